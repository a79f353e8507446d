package controllers_test

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/controllers"
)

func wantWitnesses(names ...string) func(*v1.HostSubnet) string {
	return func(h *v1.HostSubnet) string {
		if !slices.Equal(h.Status.Witnesses, names) {
			return fmt.Sprintf("the witnesses of %s are %v, want %v", h.Name, h.Status.Witnesses, names)
		}
		return ""
	}
}

// report writes a status as an agent does.
func (a *api) report(ctx context.Context, node string, agent map[string]any) error {
	u := &unstructured.Unstructured{Object: map[string]any{"status": map[string]any{"agent": agent}}}
	u.SetGroupVersionKind(v1.GroupVersion().WithKind("HostSubnet"))
	u.SetName(node)
	return a.Status().Apply(ctx, client.ApplyConfigurationFromUnstructured(u), client.FieldOwner("egressip-agent"), client.ForceOwnership)
}

// TestWitnessesArePublished: hosts with egress IPs have the hosts whose agents have
// reported as witnesses, and others have none; what somebody else writes there is
// repaired.
func TestWitnessesArePublished(t *testing.T) {
	a := startAPI(t)
	for i := 1; i <= 4; i++ {
		a.node(t, fmt.Sprintf("node%d", i), fmt.Sprintf("10.254.%d.0/24", i), fmt.Sprintf("192.168.7.1%d", i))
	}
	a.controlAlone(t, controllers.Options{})
	a.ranges(t, "node1", "192.168.7.128/25")
	a.awaitHost(t, "node1", func(h *v1.HostSubnet) string {
		if len(h.EgressCIDRs) == 0 {
			return "not automatic yet"
		}
		return wantWitnesses()(h)
	})
	for _, node := range []string{"node1", "node2", "node3"} {
		a.awaitHost(t, node, func(*v1.HostSubnet) string { return "" })
		if err := a.report(t.Context(), node, map[string]any{"version": "0.2.0", "silent": []any{}}); err != nil {
			t.Fatal(err)
		}
	}
	a.awaitHost(t, "node1", wantWitnesses("node2", "node3"))
	if err := a.report(t.Context(), "node4", map[string]any{"version": "0.2.0", "silent": []any{"node2"}}); err != nil {
		t.Fatal(err)
	}
	a.awaitHost(t, "node1", wantWitnesses("node2", "node3", "node4"))
	h := a.awaitHost(t, "node2", wantWitnesses())
	if h.Status.Witnesses = []string{"node1"}; a.Status().Update(t.Context(), h) != nil {
		t.Fatal("the status cannot be edited")
	}
	a.awaitHost(t, "node2", wantWitnesses())
	a.ranges(t, "node1")
	a.awaitHost(t, "node1", wantWitnesses())
}
