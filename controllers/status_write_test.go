package controllers_test

import (
	"fmt"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	ovnv1 "github.com/egressip-operator/egressip-operator/api/ovn/v1"
	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/controllers"
)

// TestStatusWithOlderDefinitions: where the definition of EgressIPs lacks fields of the status, the API
// server refuses a write that has them; all others are written.
//
// Mutant killed: statuses-need-all-fields.
func TestStatusWithOlderDefinitions(t *testing.T) {
	a := startAPI(t)
	crd := &unstructured.Unstructured{}
	crd.SetGroupVersionKind(schema.GroupVersionKind{Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition"})
	crd.SetName(ovnv1.CRDName)
	const status = "/spec/versions/0/schema/openAPIV3Schema/properties/status/properties/"
	patch := fmt.Appendf(nil, `[{"op": "remove", "path": "%[1]sselectors"}, {"op": "remove", "path": "%[1]segressIPs/items/properties/host"}]`, status)
	if err := a.Patch(t.Context(), crd, client.RawPatch(types.JSONPatchType, patch)); err != nil {
		t.Fatal(err)
	}
	stop := a.control(t, controllers.Options{EgressIPs: true})
	defer stop()
	a.node(t, "node1", "10.254.1.0/24", "192.168.7.11")
	a.assignable(t, "node1")
	a.egressIP(t, "prod", "192.168.7.201")
	e := a.awaitEgressIP(t, "prod", wantItems("192.168.7.201 node1"))
	if len(e.Status.EgressIPs) != 1 || e.Status.EgressIPs[0].State != v1.StateActive || e.Status.EgressIPs[0].Host != "" || e.Status.Selectors != nil {
		t.Errorf("the status is %+v", e.Status)
	}
	if len(e.Status.Conditions) == 0 {
		t.Error("it has no conditions")
	}
}
