package controllers_test

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/testenv"
)

// samples are values for fields of a HostSubnet's status whose type alone does not say
// what the schema accepts, by name in JSON.
func samples() map[string]any {
	return map[string]any{
		"foundNetworks": []any{map[string]any{"cidr": "10.8.0.0/16", "source": "x", "use": v1.UsePods}},
	}
}

// TestAgentsWriteOnlyTheirPart: of its own HostSubnet's status an agent may change what
// is listed as an agent's, and nothing else: no other field that the schema has now, or
// will have, and no other condition. A field that is added to HostSubnetStatus is tried
// without a change here, and so is one that only the CRD has.
//
// Mutants: a policy that lists what is forbidden; one that looks only at the status
// after the write, so that an agent may remove.
func TestAgentsWriteOnlyTheirPart(t *testing.T) {
	a := startAPI(t)
	if out, err := a.kubectl(t, "", "apply", "--server-side", "--force-conflicts", "-k", "../config/default"); err != nil {
		t.Fatalf("kubectl apply -k config/default: %v\n%s", err, out)
	}
	a.addFutureField(t)
	for i, name := range []string{"node1", "node2"} {
		a.node(t, name, fmt.Sprintf("10.254.%d.0/24", i+1), fmt.Sprintf("192.168.7.%d", i+11))
		a.create(t, &v1.HostSubnet{ObjectMeta: hostSubnet(name).ObjectMeta, Host: name, HostIP: fmt.Sprintf("192.168.7.%d", i+11)})
	}
	agent := a.as(t, a.tokenOf(t, "egressip-agent", "node1"))
	testenv.Eventually(t, func(ctx context.Context) string { // a policy takes a moment until it is in force
		if err := patchStatus(ctx, agent, "node2", map[string]any{"observedGeneration": 1}); !apierrors.IsForbidden(err) {
			return fmt.Sprintf("writing the status of another node: %v, want Forbidden", err)
		}
		return ""
	})

	own := map[string]any{
		"observedGeneration": 1, "agent": map[string]any{"version": "1", "uplinkCIDR": "192.168.7.11/24"},
		"egressIPs":  []any{map[string]any{"ip": "192.168.7.200", "state": "Active", "configured": true}},
		"conditions": []any{condition(v1.ConditionAgentReady, "1"), condition(v1.ConditionAddressInUse, "1"), condition(v1.ConditionWarnings, "1")},
	}
	allowed := []string{"observedGeneration", "agent", "egressIPs", "conditions"}
	apply := func() error {
		u := &unstructured.Unstructured{Object: map[string]any{"status": jsonCopy(t, own)}}
		u.SetGroupVersionKind(v1.GroupVersion().WithKind("HostSubnet"))
		u.SetName("node1")
		return agent.Status().Apply(t.Context(), client.ApplyConfigurationFromUnstructured(u), client.FieldOwner("egressip-agent"), client.ForceOwnership)
	}
	t.Run("its own part, where there is no status yet, and again", func(t *testing.T) {
		for range 2 {
			if err := apply(); err != nil {
				t.Error(err)
			}
		}
	})

	t.Run("it reads where the API server is", func(t *testing.T) {
		var list discoveryv1.EndpointSliceList
		err := agent.List(t.Context(), &list, client.InNamespace("default"), client.MatchingFields{"metadata.name": "kubernetes"})
		if err != nil || len(list.Items) != 1 {
			t.Errorf("%d EndpointSlices, %v", len(list.Items), err)
		}
	})

	// Of a field that the controller may have written, or not.
	forbidden := func(t *testing.T, field string, value any) {
		t.Helper()
		for _, stored := range []any{nil, value} {
			if err := patchStatus(t.Context(), a, "node1", map[string]any{field: stored}); err != nil {
				t.Fatalf("%s cannot be written even by the administrator: %v\nGive a value that the schema accepts in samples.", field, err)
			}
			written := value
			if stored != nil {
				written = nil
			}
			if err := patchStatus(t.Context(), agent, "node1", map[string]any{field: written}); !apierrors.IsForbidden(err) {
				t.Errorf("status.%s was %v and becomes %v: %v, want Forbidden", field, stored, written, err)
			}
		}
		if err := apply(); err != nil {
			t.Errorf("its own part, beside %s: %v", field, err)
		}
	}
	fields := []string{"future"}
	status := reflect.TypeFor[v1.HostSubnetStatus]()
	for part := range status.Fields() {
		name, _, _ := strings.Cut(part.Tag.Get("json"), ",")
		if slices.Contains(allowed, name) {
			continue
		}
		fields = append(fields, name)
		t.Run("field "+name, func(t *testing.T) {
			value, ok := samples()[name]
			if !ok {
				value = sample(part.Type)
			}
			forbidden(t, name, value)
		})
	}
	t.Run("a field to come", func(t *testing.T) { forbidden(t, "future", "x") })

	for _, kind := range []string{v1.ConditionOnline, v1.ConditionEgressReady, v1.ConditionEvacuating, "SomebodyElses"} {
		t.Run("condition "+kind, func(t *testing.T) {
			is := own["conditions"].([]any)
			with, changed := append(slices.Clone(is), condition(kind, "1")), append(slices.Clone(is), condition(kind, "2"))
			if err := patchStatus(t.Context(), agent, "node1", map[string]any{"conditions": with}); !apierrors.IsForbidden(err) {
				t.Errorf("added: %v, want Forbidden", err)
			}
			if err := patchStatus(t.Context(), a, "node1", map[string]any{"conditions": with}); err != nil {
				t.Fatal(err)
			}
			for how, conditions := range map[string]any{"changed": changed, "removed": is, "removed with all": nil} {
				if err := patchStatus(t.Context(), agent, "node1", map[string]any{"conditions": conditions}); !apierrors.IsForbidden(err) {
					t.Errorf("%s: %v, want Forbidden", how, err)
				}
			}
			without := append([]any{condition(v1.ConditionAgentReady, "2")}, condition(kind, "1"))
			if err := patchStatus(t.Context(), agent, "node1", map[string]any{"conditions": without}); err != nil {
				t.Errorf("its own conditions, beside that: %v", err)
			}
			if err := apply(); err != nil {
				t.Error(err)
			}
			if err := patchStatus(t.Context(), a, "node1", map[string]any{"conditions": is}); err != nil {
				t.Fatal(err)
			}
		})
	}
	t.Logf("fields that only the controller writes: %v", fields)
}

func patchStatus(ctx context.Context, c client.Client, name string, status map[string]any) error {
	encoded, err := json.Marshal(map[string]any{"status": status})
	if err != nil {
		return err
	}
	return c.Status().Patch(ctx, hostSubnet(name), client.RawPatch("application/merge-patch+json", encoded))
}

func condition(kind, message string) map[string]any {
	return map[string]any{
		"type": kind, "status": "True", "reason": "Test", "message": message, "lastTransitionTime": "2026-01-01T00:00:00Z",
	}
}

// jsonCopy is value as JSON has it.
func jsonCopy(t *testing.T, value any) (copied any) {
	t.Helper()
	encoded, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(encoded, &copied); err != nil {
		t.Fatal(err)
	}
	return toInt(copied)
}

// toInt makes whole numbers integers, as unstructured objects have them.
func toInt(value any) any {
	switch v := value.(type) {
	case map[string]any:
		for key := range v {
			v[key] = toInt(v[key])
		}
	case []any:
		for i := range v {
			v[i] = toInt(v[i])
		}
	case float64:
		return int64(v)
	}
	return value
}

// sample is a value of the type that is not empty.
func sample(t reflect.Type) any {
	switch t.Kind() {
	case reflect.Pointer:
		return sample(t.Elem())
	case reflect.Slice:
		return []any{sample(t.Elem())}
	case reflect.Struct:
		all := make(map[string]any)
		for field := range t.Fields() {
			if name, _, _ := strings.Cut(field.Tag.Get("json"), ","); name != "" {
				all[name] = sample(field.Type)
			}
		}
		return all
	case reflect.Bool:
		return true
	case reflect.Int, reflect.Int32, reflect.Int64:
		return 7
	default:
		return "x"
	}
}

// addFutureField adds status.future to the CRD of HostSubnets, as a later version may.
func (a *api) addFutureField(t *testing.T) {
	t.Helper()
	crd := &unstructured.Unstructured{}
	crd.SetGroupVersionKind(schema.GroupVersionKind{Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition"})
	crd.SetName("hostsubnets." + v1.GroupName)
	const add = `[{"op": "add", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/status/properties/future", "value": {"type": "string"}}]`
	if err := a.Patch(t.Context(), crd, client.RawPatch(types.JSONPatchType, []byte(add))); err != nil {
		t.Fatal(err)
	}
	probe := &v1.HostSubnet{ObjectMeta: hostSubnet("probe").ObjectMeta, Host: "probe", HostIP: "192.168.7.99"}
	a.create(t, probe)
	testenv.Eventually(t, func(ctx context.Context) string {
		if err := patchStatus(ctx, a, "probe", map[string]any{"future": "x"}); err != nil {
			return err.Error()
		}
		u := &unstructured.Unstructured{}
		u.SetGroupVersionKind(v1.GroupVersion().WithKind("HostSubnet"))
		if err := a.Get(ctx, client.ObjectKey{Name: "probe"}, u); err != nil {
			return err.Error()
		}
		if value, _, _ := unstructured.NestedString(u.Object, "status", "future"); value != "x" {
			return "the schema has no future field yet"
		}
		return ""
	})
	if err := a.Delete(t.Context(), probe); err != nil {
		t.Fatal(err)
	}
}
