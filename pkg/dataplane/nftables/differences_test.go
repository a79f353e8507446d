package nftables

import (
	"slices"
	"testing"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/rules"
)

// TestDifferencesNameWhatDiffers: what is not there and what should not be there is named by chain
// and by map, and a table that is as desired has no differences.
func TestDifferencesNameWhatDiffers(t *testing.T) {
	base := &Base{Hook: rules.Forward, Priority: -1}
	desired := Table{
		Chains: map[string]Chain{
			"filter-forward": {Base: base, Rules: []Rule{{ID: "a"}, {ID: "b"}, {ID: "b"}}},
			"locked":         {Rules: []Rule{{ID: "c"}}},
		},
		Maps: map[string]Elements{setSNAT: {"1": "x", "2": "y"}},
	}
	if missing, stale := Differences(desired, desired); len(missing)+len(stale) > 0 {
		t.Errorf("the same table: missing %q, stale %q", missing, stale)
	}
	observed := Table{
		Chains: map[string]Chain{
			"filter-forward": {Base: &Base{Hook: rules.Forward, Priority: 5}, Rules: []Rule{{ID: "a"}, {ID: "b"}, {ID: "of others"}}},
			"added":          {},
		},
		Maps:    map[string]Elements{setSNAT: {"1": "z", "2": "y"}},
		Unknown: []string{"egress-later"},
	}
	missing, stale := Differences(observed, desired)
	if want := []string{
		"chain filter-forward of table inet egressip at its hook and priority",
		"1 of 3 rules in chain filter-forward of table inet egressip",
		"chain locked of table inet egressip",
		"1 of 2 elements in map egress-snat of table inet egressip",
	}; !slices.Equal(missing, want) {
		t.Errorf("missing %q, want %q", missing, want)
	}
	if want := []string{
		"1 rules in chain filter-forward of table inet egressip that are none of ours, or of another time",
		"chain added of table inet egressip",
		"set egress-later of table inet egressip",
		"1 elements in map egress-snat of table inet egressip",
	}; !slices.Equal(stale, want) {
		t.Errorf("stale %q, want %q", stale, want)
	}
}
