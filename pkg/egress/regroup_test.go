package egress_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// An EgressIP takes pods from their NetNamespace, and from an EgressIP that comes later by name.
//
// Mutant killed: regroup-counts-addresses.
func TestRegroup(t *testing.T) {
	t.Parallel()
	o := traced()
	of := func(names ...string) egress.Cluster {
		o.EgressIPs = nil
		for i, name := range names {
			o.EgressIPs = append(o.EgressIPs, objectOfEgressIP(name, uint32(20+i), "10.1.8.21"+string(rune('0'+i)))) //nolint:gosec // a few
		}
		c, _ := egress.Snapshot(o)
		return c
	}
	pods := []egress.Pod{pod("free", "10.244.1.4"), pod("shop", "10.244.1.5"), pod("shop", "10.244.1.6"), pod("shop", "fd00::6")}
	pods[1].Name, pods[2].Name, pods[3].Name = "a", "b", "b"
	namespaces := map[string]labels.Set{"shop": {"kubernetes.io/metadata.name": "shop"}, "free": {}}
	for _, c := range []struct {
		before, after egress.Cluster
		want          []egress.Regrouping
	}{
		{of(), of("web"), []egress.Regrouping{{From: "shop", To: "EgressIP/web", Pods: 2, Example: "shop/a"}}},
		{of("web"), of("all", "web"), []egress.Regrouping{{From: "EgressIP/web", To: "EgressIP/all", Pods: 2, Example: "shop/a"}}},
		{of("all"), of("all", "web"), []egress.Regrouping{}},
		{of("all"), of(), []egress.Regrouping{{From: "EgressIP/all", To: "shop", Pods: 2, Example: "shop/a"}}},
	} {
		if diff := cmp.Diff(c.want, egress.Regroup(c.before, c.after, pods, namespaces)); diff != "" {
			t.Error(diff)
		}
	}
}
