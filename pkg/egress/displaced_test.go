package egress_test

import (
	"maps"
	"net/netip"
	"slices"
	"testing"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// TestWhatIsDisplaced: an egress IP is displaced from its release until a host claims it, also
// while that waits for the former host, or while no host can take it; not if no namespace
// requests it.
//
// Kills the mutants unplaced-is-forgotten and unrequested-is-displaced.
func TestWhatIsDisplaced(t *testing.T) {
	ip := testenv.Addr
	release := func(address string, why egress.Reason) egress.Release {
		return egress.Release{IP: ip(address), Host: "one", Reason: why}
	}
	d := make(egress.Displaced)
	d.Wrote([]string{"10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"}, []string{"10.0.0.4"}, []egress.Release{
		release("10.0.0.1", egress.ReasonHostOffline), release("10.0.0.2", egress.ReasonHostOffline),
		release("10.0.0.3", egress.ReasonNotRequested), release("10.0.0.4", egress.ReasonHostOffline),
	})
	is := func(when string, want ...string) {
		t.Helper()
		var got []string
		for _, address := range slices.SortedFunc(maps.Keys(d), netip.Addr.Compare) {
			got = append(got, address.String())
			if !d.Moves([]string{"10.9.9.9", address.String()}, nil) {
				t.Errorf("%s: to claim %s moves nothing", when, address)
			}
		}
		if !slices.Equal(got, want) || d.Moves([]string{"10.9.9.9"}, nil) {
			t.Errorf("%s: %q are displaced, want %q", when, got, want)
		}
	}
	is("after the release", "10.0.0.1", "10.0.0.2")
	d.Keep(egress.Allocation{
		Hosts:    []egress.HostClaims{{Host: "two", Claims: []netip.Addr{ip("10.0.0.1")}}},
		Unplaced: []egress.Unplaced{{IP: ip("10.0.0.2")}},
	})
	is("one to be claimed, one without a host", "10.0.0.1", "10.0.0.2")
	d.Wrote(nil, []string{"10.0.0.1"}, nil)
	is("one is claimed", "10.0.0.2")
	d.Keep(egress.Allocation{})
	is("the other is not requested any more")
	for why, moves := range map[egress.Reason]bool{egress.ReasonHostOffline: true, egress.ReasonNotRequested: false} {
		if d.Moves(nil, []egress.Release{release("10.0.0.1", why)}) != moves {
			t.Errorf("a release because of %s: moves is not %t", why, moves)
		}
	}
}
