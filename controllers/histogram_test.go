package controllers_test

import (
	"fmt"
	"testing"
	"time"
)

// observations are those of a histogram.
type observations struct {
	count   uint64
	seconds float64
}

// histogram reads a histogram of the controllers.
func (a *api) histogram(t *testing.T, name string) (o observations) {
	t.Helper()
	families, err := a.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name {
				o.count += m.GetHistogram().GetSampleCount()
				o.seconds += m.GetHistogram().GetSampleSum()
			}
		}
	}
	return o
}

func (o observations) less(before observations) observations {
	return observations{count: o.count - before.count, seconds: o.seconds - before.seconds}
}

func (o observations) text(what string) string {
	mean := time.Duration(0)
	if o.count > 0 {
		mean = time.Duration(o.seconds / float64(o.count) * float64(time.Second))
	}
	return fmt.Sprintf("%d %s of %s each", o.count, what, mean.Round(10*time.Microsecond))
}
