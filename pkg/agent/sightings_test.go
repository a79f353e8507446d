package agent

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
)

// A virtual IP that goes counts for a while: the node that it moves to needs a moment to
// report it.
//
// Kills the mutant that forgets at once.
func TestAnAddressThatGoesCountsForAWhile(t *testing.T) {
	t.Parallel()
	var s sightings
	now := time.Unix(1000, 0)
	expect := func(what string, changed, want bool, addresses ...string) {
		t.Helper()
		if diff := cmp.Diff(testenv.Addrs(addresses...), s.list(), cmpopts.EquateComparable(netip.Addr{})); changed != want || diff != "" {
			t.Errorf("%s: changed %t (-want +got):\n%s", what, changed, diff)
		}
	}
	expect("at first", s.see(testenv.Addrs("192.168.7.11", "192.168.7.99"), now), true, "192.168.7.11", "192.168.7.99")
	expect("again", s.see(testenv.Addrs("192.168.7.11", "192.168.7.99"), now), false, "192.168.7.11", "192.168.7.99")
	expect("gone", s.see(testenv.Addrs("192.168.7.11"), now.Add(addressMemory)), false, "192.168.7.11", "192.168.7.99")
	expect("gone for long", s.see(testenv.Addrs("192.168.7.11"), now.Add(addressMemory+time.Second)), true, "192.168.7.11")
}
