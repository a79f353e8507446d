package controllers_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/controllers"
	"github.com/egressip-operator/egressip-operator/internal/testenv"
)

// TestObjectsWithAFormerField: agents of version 0.1.0 wrote status.agent.watches, which is
// not in the API any more. After the update of the CRDs, objects that have it are read
// without it, and the controller, users and newer agents write them. A write of such an
// agent is refused as a whole, so that what it reported last stays.
func TestObjectsWithAFormerField(t *testing.T) {
	a := startAPI(t)
	former := map[string]any{"version": "0.1.0", "watches": []any{"node2"}, "silent": []any{"node2"}}
	a.changeAgentStatus(t, `[{"op": "add", "path": %q, "value": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "atomic"}}]`)
	for i, node := range []string{"node1", "node2"} {
		a.node(t, node, fmt.Sprintf("10.254.%d.0/24", i+1), fmt.Sprintf("192.168.7.1%d", i+1))
	}
	a.controlAlone(t, controllers.Options{})
	a.awaitHost(t, "node1", func(*v1.HostSubnet) string { return "" })
	testenv.Eventually(t, func(ctx context.Context) string {
		return text(a.report(ctx, "node1", former))
	})
	if got := a.agentStatus(t, "node1"); fmt.Sprint(got) != fmt.Sprint(former) {
		t.Fatalf("status.agent is %v, want %v: nothing would be shown", got, former)
	}

	a.changeAgentStatus(t, `[{"op": "remove", "path": %q}]`)
	testenv.Eventually(t, func(ctx context.Context) string {
		if err := a.report(ctx, "node1", former); err == nil || !strings.Contains(err.Error(), "watches: field not declared in schema") {
			return fmt.Sprintf("an agent of version 0.1.0 writes its status: %v", err)
		}
		return ""
	})
	delete(former, "watches")
	if got := a.agentStatus(t, "node1"); fmt.Sprint(got) != fmt.Sprint(former) {
		t.Errorf("status.agent is %v, want %v", got, former)
	}
	a.ready(t, "node1", corev1.ConditionFalse) // the controller writes
	a.awaitHost(t, "node1", func(h *v1.HostSubnet) string {
		return wantCondition(h.Status.Conditions, v1.ConditionOnline, "False", "", "")
	})
	a.claim(t, "node1", "192.168.7.200")
	manifest, err := a.kubectl(t, "", "get", "hostsubnet", "node1", "-o", "yaml")
	if err != nil || strings.Contains(manifest, "watches") {
		t.Errorf("kubectl get: %v\n%s", err, manifest)
	}
	if out, err := a.kubectl(t, manifest, "replace", "-f", "-"); err != nil {
		t.Errorf("kubectl replace: %v\n%s", err, out)
	}
	newer := map[string]any{"version": "0.2.0", "silent": []any{}}
	if err := a.report(t.Context(), "node1", newer); err != nil {
		t.Errorf("the status of a newer agent is refused: %v", err)
	}
	if got := a.agentStatus(t, "node1"); fmt.Sprint(got) != fmt.Sprint(newer) {
		t.Errorf("status.agent is %v, want %v", got, newer)
	}
	for _, entry := range a.awaitHost(t, "node1", func(h *v1.HostSubnet) string { return wantEgressIPs(h.EgressIPs, "192.168.7.200") }).ManagedFields {
		if entry.FieldsV1 != nil && strings.Contains(entry.FieldsV1.GetRawString(), "watches") {
			t.Errorf("%s still manages the field: %s", entry.Manager, entry.FieldsV1.GetRawString())
		}
	}
}

// changeAgentStatus patches the CRD of HostSubnets where status.agent.watches would be.
func (a *api) changeAgentStatus(t *testing.T, patch string) {
	t.Helper()
	crd := &unstructured.Unstructured{}
	crd.SetGroupVersionKind(schema.GroupVersionKind{Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition"})
	crd.SetName("hostsubnets." + v1.GroupName)
	const path = "/spec/versions/0/schema/openAPIV3Schema/properties/status/properties/agent/properties/watches"
	if err := a.Patch(t.Context(), crd, client.RawPatch(types.JSONPatchType, fmt.Appendf(nil, patch, path))); err != nil {
		t.Fatal(err)
	}
}

// agentStatus is status.agent as it is stored.
func (a *api) agentStatus(t *testing.T, node string) map[string]any {
	t.Helper()
	u := &unstructured.Unstructured{}
	u.SetGroupVersionKind(v1.GroupVersion().WithKind("HostSubnet"))
	if err := a.Get(t.Context(), client.ObjectKey{Name: node}, u); err != nil {
		t.Fatal(err)
	}
	status, _, err := unstructured.NestedMap(u.Object, "status", "agent")
	if err != nil {
		t.Fatal(err)
	}
	return status
}
