package figures

import (
	"math"
	"testing"
)

// A ratio is that of one round, and more is better.
//
// Mutant killed: ratios-of-medians.
func TestRatiosAreOfOneRound(t *testing.T) {
	s := Series{Values: map[string][]float64{"a": {1, 20, 3}, "b": {2, 10, 4}}}
	got := RatioOf(s, "a", "b")
	if got.Median != 0.75 || got.Low != 0.625 || got.High != 1.375 {
		t.Errorf("got %+v", got)
	}
	s.LessIsBetter = true
	if got := RatioOf(s, "a", "b"); math.Abs(got.Median-4.0/3) > 1e-9 {
		t.Errorf("with less that is better: %+v", got)
	}
}

func TestQuantile(t *testing.T) {
	values := []float64{4, 1, 3, 2}
	for q, want := range map[float64]float64{0: 1, 0.5: 2.5, 1: 4} {
		if got := Quantile(values, q); got != want {
			t.Errorf("quantile %v is %v, want %v", q, got, want)
		}
	}
	if Quantile(nil, 0.5) != 0 {
		t.Error("of nothing")
	}
}
