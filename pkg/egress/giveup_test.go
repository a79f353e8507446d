package egress_test

import (
	"net/netip"
	"testing"

	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// Mutant killed: unusable-requests-are-none.
func TestNothingRequested(t *testing.T) {
	for name, c := range map[string]struct {
		namespaces []egress.Group
		want       bool
	}{
		"no namespaces":           {nil, true},
		"namespaces alone":        {[]egress.Group{{Name: "one"}, {Name: "two"}}, true},
		"a request":               {[]egress.Group{{Name: "one"}, {Name: "two", Requests: []netip.Addr{netip.MustParseAddr("10.0.0.200")}}}, false},
		"one that cannot be used": {[]egress.Group{{Name: "one", Invalid: []string{"x"}}}, false},
	} {
		if got := egress.NothingRequested(egress.Cluster{Groups: c.namespaces}); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

func TestGivingUpLeavesNoWayOut(t *testing.T) {
	c := threeHosts()
	pods := []egress.Pod{{Namespace: "one", IP: netip.MustParseAddr("10.0.0.1")}, {Namespace: "two", IP: netip.MustParseAddr("10.0.0.2")}}
	plan, _ := egress.PlanFor(c, egress.Resolve(c), "a", pods, nil)
	if len(plan.Hosted) != 1 || plan.Pods[0].Kind != egress.PathLocal {
		t.Fatalf("plan %+v", plan)
	}
	got := egress.GiveUp(plan)
	if len(got.Hosted) > 0 || got.Pods[0].Kind != egress.PathDrop || got.Pods[1].Kind != egress.PathRemote {
		t.Errorf("given up: %+v", got)
	}
	if len(plan.Hosted) != 1 || plan.Pods[0].Kind != egress.PathLocal {
		t.Errorf("the plan itself was changed: %+v", plan)
	}
}
