package controllers

import (
	"net/netip"
	"testing"
	"time"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/testenv/objects"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// TestFailures: what a host could not be configured for counts after some seconds, and
// for some minutes after that. Conflicts on the segment do not count: the other machine
// would answer for the address wherever it moves.
//
// Kills the mutants failing-at-once and failing-for-ever.
func TestFailures(t *testing.T) {
	const ip = "192.168.7.200"
	host := func(reason egress.Reason, cidrs ...string) []*v1.HostSubnet {
		h := objects.HostSubnet("node1", "192.168.7.11", ip)
		h.EgressCIDRs = cidrs
		h.Status.EgressIPs = []v1.ClaimStatus{{IP: ip, Configured: reason == "", Reason: string(reason)}}
		return []*v1.HostSubnet{&h}
	}
	const automatic = "192.168.7.0/24"
	type at struct {
		second int
		hosts  []*v1.HostSubnet
		want   bool
	}
	for name, steps := range map[string][]at{
		"it lasts": {
			{0, host(egress.ReasonNotConfigured, automatic), false},
			{4, host(egress.ReasonNotConfigured, automatic), false},
			{5, host(egress.ReasonNotConfigured, automatic), true},
			{6, host("", automatic), true},
			{600, nil, true},
			{700, nil, false},
		},
		"it is brief": {
			{0, host(egress.ReasonNotConfigured, automatic), false},
			{2, host("", automatic), false},
			{4, host(egress.ReasonNotConfigured, automatic), false},
			{8, host(egress.ReasonNotConfigured, automatic), false},
			{9, host(egress.ReasonNotConfigured, automatic), true},
		},
		"another machine has the address": {
			{0, host(egress.ReasonAddressInUse, automatic), false},
			{60, host(egress.ReasonAddressInUse, automatic), false},
		},
		"a manual host": {
			{0, host(egress.ReasonNotConfigured), false},
			{60, host(egress.ReasonNotConfigured), false},
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := make(failures)
			begin := time.Unix(1e9, 0)
			for _, step := range steps {
				now := begin.Add(time.Duration(step.second) * time.Second)
				f.update(step.hosts, now)
				if got := f.lasting()["node1"][netip.MustParseAddr(ip)]; got != step.want {
					t.Errorf("after %d s it counts: %t", step.second, got)
				}
				if next := f.next(now); (next > 0) != (len(f) > 0) {
					t.Errorf("after %d s the next change is in %s, of %d", step.second, next, len(f))
				}
			}
		})
	}
}
