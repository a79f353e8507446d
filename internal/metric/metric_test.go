package metric

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// A counter whose labels have known values has all of its series from the start, and one whose
// values are not known has none.
func TestSeriesAreThereFromTheStart(t *testing.T) {
	t.Parallel()
	var s Set
	s.Counters(Def{Name: "known_total", Help: "x", Labels: []Label{{Name: "a", Values: []string{"1", "2"}}, {Name: "b", Values: []string{"1", "2", "3"}}}})
	s.Counters(Def{Name: "unknown_total", Help: "x", Labels: []Label{{Name: "a", Values: []string{"1", "2"}}, {Name: "b", Is: "a name"}}, Series: "one for each name"})
	got := gather(t, &s)
	if got["known_total"] != 6 || got["unknown_total"] != 0 {
		t.Errorf("series %v, want 6 and none", got)
	}
	if defs := s.Defs(); defs[0].Bound() != "6" || defs[1].Bound() != "one for each name" || defs[0].Type != Counter {
		t.Errorf("definitions %+v", defs)
	}
}

// What others count is asked for at each scrape.
func TestSampledCounters(t *testing.T) {
	t.Parallel()
	var s Set
	asked := 0
	s.Sampled([]Def{{Name: "x_total", Help: "x", Labels: []Label{{Name: "a", Values: []string{"1", "2"}}}}, {Name: "y_total", Help: "y"}},
		func(is func(int, float64, ...string)) {
			asked++
			is(0, float64(asked), "1")
			is(1, 7)
		})
	for i := range 2 {
		if got := gather(t, &s); got["x_total"] != 1 || got["y_total"] != 1 || asked != i+1 {
			t.Errorf("series %v after %d samples", got, asked)
		}
	}
}

// A set can be registered again after it was unregistered, and says what it could not register.
func TestRegisterAgain(t *testing.T) {
	t.Parallel()
	var s, other Set
	s.Gauge(Def{Name: "a", Help: "a"})
	s.Histogram(Def{Name: "b", Help: "b", Buckets: []float64{1}})
	other.Gauge(Def{Name: "b", Help: "another"})
	r := prometheus.NewRegistry()
	for range 2 {
		unregister, err := s.Register(r)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := other.Register(r); err == nil {
			t.Error("two metrics of one name")
		}
		unregister()
	}
}

// gather returns the number of series of each metric.
func gather(t *testing.T, s *Set) map[string]int {
	t.Helper()
	r := prometheus.NewRegistry()
	unregister, err := s.Register(r)
	if err != nil {
		t.Fatal(err)
	}
	defer unregister()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	series := make(map[string]int)
	for _, f := range families {
		series[f.GetName()] = len(f.GetMetric())
	}
	return series
}
