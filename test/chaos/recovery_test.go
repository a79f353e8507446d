package main

import (
	"testing"
	"time"

	"github.com/egressip-operator/egressip-operator/test/chaos/traffic"
)

// TestStalled: only for as long as every other pod of the node gets nothing through, an
// outage is not ours: one that does shows that the node worked. Mutants: the longest gap of
// any other pod counts; what a gap has before or after the outage counts.
func TestStalled(t *testing.T) {
	gap := func(from, until int) traffic.Gap {
		at := func(ms int) time.Time { return time.UnixMilli(1e12).Add(time.Duration(ms) * time.Millisecond) }
		return traffic.Gap{From: at(from), Until: at(until)}
	}
	for name, c := range map[string]struct {
		others [][]traffic.Gap
		want   int
	}{
		"no other pod":                {nil, 0},
		"others get through":          {[][]traffic.Gap{{gap(900, 940), gap(940, 980)}, {gap(800, 840)}}, 40},
		"all wait for as long":        {[][]traffic.Gap{{gap(0, 1000)}, {gap(0, 1000)}}, 1000},
		"all wait for longer":         {[][]traffic.Gap{{gap(-500, 2500)}, {gap(-400, 2500)}}, 1000},
		"one gets through":            {[][]traffic.Gap{{gap(0, 1000)}, {gap(0, 40), gap(40, 80)}}, 40},
		"all wait for a part":         {[][]traffic.Gap{{gap(100, 400), gap(400, 440)}, {gap(50, 450)}}, 300},
		"all wait, but not meanwhile": {[][]traffic.Gap{{gap(1000, 3000)}, {gap(-3000, 0)}}, 0},
	} {
		if got := stalled(gap(0, 1000), c.others); got != time.Duration(c.want)*time.Millisecond {
			t.Errorf("%s: stalled for %s, want %d ms", name, got, c.want)
		}
	}
}
