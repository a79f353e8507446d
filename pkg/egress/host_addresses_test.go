package egress_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// TestFurtherAddressesAreNoEgressIPs: an address that a host has in addition to hostIP is
// refused as an egress IP by name, whether it is claimed, requested or given by the
// controller; but what an agent reports takes nothing away that works.
//
// Kills the mutants further-of-anyone, further-wins, further-anywhere and
// further-of-its-own.
func TestFurtherAddressesAreNoEgressIPs(t *testing.T) {
	const ip = "192.168.7.200"
	one := []string{ip}
	segment := func() *given {
		return new(given).namespace("red", ip).host("w0").host("w1", ip).uplink("w0", "192.168.7.10/24").uplink("w1", "192.168.7.11/24")
	}
	pool := func() *given {
		return new(given).namespace("red", ip).automatic("w0", "192.168.7.192/26").automatic("w1", "192.168.7.192/26").
			uplink("w0", "192.168.7.10/24").uplink("w1", "192.168.7.11/24")
	}
	for name, c := range map[string]struct {
		given  *given
		reason egress.Reason // of the request
		says   string
		// on is the host that the controller gives the address to.
		on string
	}{
		"nobody else has it":                    {segment(), egress.ReasonAssigned, "", ""},
		"another host of the segment has it":    {segment().addresses("w0", one, nil), egress.ReasonHostAddress, "host w0", ""},
		"it is not claimed":                     {segment().claims("w1").addresses("w0", one, nil), egress.ReasonHostAddress, "host w0", ""},
		"the host that claims it has it itself": {segment().uplink("w0", "192.168.8.10/24").addresses("w1", one, nil), egress.ReasonHostAddress, "Host w1", ""},
		"a host elsewhere says that it has it":  {segment().uplink("w0", "192.168.8.10/24").addresses("w0", one, one), egress.ReasonAssigned, "", ""},
		"a Node alone says so":                  {segment().addresses("w0", nil, one), egress.ReasonAssigned, "", ""},
		"a host without its hostIP says so":     {segment().uplink("w0", "192.168.7.77/24").addresses("w0", one, nil), egress.ReasonAssigned, "", ""},
		"a host says so whose Node is gone":     {segment().addresses("w0", one, nil).gone("w0"), egress.ReasonAssigned, "", ""},
		"it works where it is claimed":          {segment().addresses("w0", one, nil).reports("w1", ip, ""), egress.ReasonAssigned, "", ""},
		"it works elsewhere, and moves":         {segment().claims("w1").claims("w0", ip).addresses("w1", one, nil).reports("w1", ip, ""), egress.ReasonAssigned, "", ""},
		"in a pool, of a host of the segment":   {pool().addresses("w0", one, nil), egress.ReasonHostAddress, "host w0", "none"},
		"in a pool, of one host alone": {
			pool().uplink("w0", "192.168.7.10/25").addresses("w0", one, nil),
			egress.ReasonNotClaimed, "", "w1",
		},
	} {
		t.Run(name, func(t *testing.T) {
			cluster, _ := egress.Snapshot(c.given.Objects)
			for what, view := range map[string]egress.Cluster{"cluster": cluster, "for routing": cluster.ForRouting()} {
				result := egress.Resolve(view).Groups[0]
				if got := result.Requests[0]; got.Reason != c.reason || !strings.Contains(got.Message, c.says) {
					t.Errorf("%s: %s, %q; want %s with %q", what, got.Reason, got.Message, c.reason, c.says)
				}
				if result.Dropped != (c.reason != egress.ReasonAssigned) {
					t.Errorf("%s: dropped: %t", what, result.Dropped)
				}
			}
			if c.on == "" {
				return
			}
			on := "none"
			for _, host := range egress.Allocate(cluster).Hosts {
				if slices.Contains(host.Claims, testenv.Addr(ip)) {
					on = host.Host
				}
			}
			if on != c.on {
				t.Errorf("given to %s, want %s", on, c.on)
			}
		})
	}
}
