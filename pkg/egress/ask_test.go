package egress_test

import (
	"testing"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/internal/testenv/objects"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// What becomes of an address that one more namespace requests.
//
// Mutant killed: ask-finds-no-host.
func TestAsk(t *testing.T) {
	t.Parallel()
	o := traced()
	automatic := objects.ReportedHostSubnet("c", "10.1.8.13")
	automatic.EgressCIDRs = []string{"10.1.8.240/28"}
	o.HostSubnets[0].EgressIPs = []string{"10.1.8.205"}
	o.HostSubnets = append(o.HostSubnets, automatic)
	cluster, _ := egress.Snapshot(o)
	for ip, want := range map[string]egress.RequestResult{
		"10.1.8.205": {Host: "a", State: egress.Active, Reason: egress.ReasonAssigned},
		"10.1.8.241": {Host: "c", State: egress.Unassigned, Reason: egress.ReasonNotClaimed},
		"10.1.8.201": {State: egress.Unassigned, Reason: egress.ReasonNotClaimed},
		"10.1.8.200": {Host: "b", State: egress.Conflict, Reason: egress.ReasonMultipleNamespaces},
		"10.1.8.12":  {State: egress.Invalid, Reason: egress.ReasonHostAddress},
		"10.244.1.9": {State: egress.Invalid, Reason: egress.ReasonPodAddress},
	} {
		got := egress.Ask(cluster, testenv.Addr(ip))
		if got.Host != want.Host || got.State != want.State || got.Reason != want.Reason {
			t.Errorf("%s: %+v, want %+v", ip, got, want)
		}
	}
	if before, _ := egress.Snapshot(o); len(before.Groups) != len(cluster.Groups) {
		t.Error("the cluster has changed")
	}
}
