package metric

import (
	"slices"
	"testing"
)

// Names are compared whole, and histograms have series of other names than theirs.
func TestUnknown(t *testing.T) {
	t.Parallel()
	defs := []Def{{Name: "egressip_a_total", Type: Counter}, {Name: "egressip_b_seconds", Type: Histogram}}
	for expression, want := range map[string][]string{
		`sum(rate(egressip_a_total{x="egressip"}[5m])) > 0 and up == 1`: nil,
		`histogram_quantile(0.9, egressip_b_seconds_bucket)`:            nil,
		`egressip_b_seconds_sum / egressip_b_seconds_count`:             nil,
		`egressip_a`: {"egressip_a"},
		`egressip_a_totals + egressip_a_total_count + egressip_b_seconds`: {"egressip_a_total_count", "egressip_a_totals", "egressip_b_seconds"},
	} {
		if got := Unknown(expression, defs); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", expression, got, want)
		}
	}
}
