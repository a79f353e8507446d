package controllers_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/controllers"
	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// netIDs returns the netids of all NetNamespaces.
func (a *api) netIDs(ctx context.Context) (map[string]uint32, error) {
	var list v1.NetNamespaceList
	if err := a.List(ctx, &list); err != nil {
		return nil, err
	}
	ids := make(map[string]uint32)
	for _, n := range list.Items {
		if id, ok := n.ID(); ok {
			ids[n.Name] = id
		}
	}
	return ids, nil
}

// awaitNamespaces polls until each Namespace has a NetNamespace with a netid of
// its own, and returns the netids.
func (a *api) awaitNamespaces(t *testing.T) map[string]uint32 {
	t.Helper()
	var ids map[string]uint32
	testenv.Eventually(t, func(ctx context.Context) string {
		var namespaces corev1.NamespaceList
		if err := a.List(ctx, &namespaces); err != nil {
			return err.Error()
		}
		var err error
		if ids, err = a.netIDs(ctx); err != nil {
			return err.Error()
		}
		for _, namespace := range namespaces.Items {
			if _, ok := ids[namespace.Name]; !ok {
				return fmt.Sprintf("Namespace %s has no NetNamespace", namespace.Name)
			}
		}
		return ""
	})
	owner := make(map[uint32]string)
	for name, id := range ids {
		if other, taken := owner[id]; taken {
			t.Errorf("NetNamespaces %s and %s both have netid %d", name, other, id)
		}
		owner[id] = name
		switch {
		case name == "default" && id != 0:
			t.Errorf("default has netid %d, want 0", id)
		case name != "default" && (id < 10 || id > v1.MaxNetID):
			t.Errorf("%s has netid %d, want one from 10 to %d", name, id, v1.MaxNetID)
		}
	}
	return ids
}

// TestNetNamespaces: each Namespace has one, for as long as it lives, with a
// netid of its own that never changes.
func TestNetNamespaces(t *testing.T) {
	whole := t // the controller outlives subtests
	a := startAPI(t)
	a.namespace(t, "alpha")
	// A user brought one along, with the very netid that bravo would get.
	wanted, _ := egress.NextNetID("bravo", func(uint32) bool { return false })
	a.create(t, &v1.NetNamespace{
		ObjectMeta: metav1.ObjectMeta{Name: "alpha", Annotations: map[string]string{"example.com/kept": "yes"}},
		NetName:    "alpha", NetID: &wanted, EgressIPs: []string{"192.168.7.200"},
	})
	a.namespace(t, "bravo")
	stop := a.control(t, controllers.Options{})
	first := a.awaitNamespaces(t)

	t.Run("a netid that exists is honoured", func(t *testing.T) {
		alpha := a.awaitNamespace(t, "alpha", func(n *v1.NetNamespace) string {
			if n.Annotations[v1.AnnotationNamespaceUID] == "" {
				return "not bound to its Namespace"
			}
			return wantEgressIPs(n.EgressIPs, "192.168.7.200")
		})
		if *alpha.NetID != wanted || alpha.Annotations["example.com/kept"] != "yes" {
			t.Errorf("alpha is %+v, want netid %d and its annotation", alpha, wanted)
		}
		if first["bravo"] == wanted {
			t.Errorf("bravo has the netid of alpha, %d", wanted)
		}
	})

	t.Run("a request for another netid is refused", func(t *testing.T) {
		a.patch(t, netNamespace("alpha"), fmt.Sprintf(`{"metadata":{"annotations":{%q:"join:bravo"}}}`, v1.AnnotationChangeNetwork))
		a.awaitEvent(t, "NetNamespace", "alpha", "RenumberingRefused", "join:bravo")
		a.awaitNamespace(t, "alpha", func(n *v1.NetNamespace) string {
			if _, still := n.Annotations[v1.AnnotationChangeNetwork]; still || *n.NetID != wanted {
				return fmt.Sprintf("annotations %v, netid %d", n.Annotations, *n.NetID)
			}
			return ""
		})
	})

	t.Run("nothing changes with a restart", func(t *testing.T) {
		stop()
		// While nobody looks, namespaces come; their netids must be chosen with
		// all that exist in view.
		for i := range 40 {
			a.namespace(t, fmt.Sprintf("many-%d", i))
		}
		stop = a.control(whole, controllers.Options{})
		second := a.awaitNamespaces(t)
		for name, id := range first {
			if second[name] != id {
				t.Errorf("netid of %s was %d and is %d", name, id, second[name])
			}
		}
	})

	t.Run("it is deleted with its Namespace", func(t *testing.T) {
		a.request(t, "bravo", "192.168.7.208")
		a.removeNamespace(t, "bravo")
		a.awaitGone(t, netNamespace("bravo"))
		a.awaitEvent(t, "NetNamespace", "bravo", "SettingsDeleted", fmt.Sprintf(`netid %d, egressIPs ["192.168.7.208"]`, first["bravo"]))
	})

	t.Run("deleted by hand it comes back", func(t *testing.T) {
		if err := a.Delete(t.Context(), netNamespace("many-7")); err != nil {
			t.Fatal(err)
		}
		a.awaitNamespaces(t)
	})

	t.Run("a new Namespace does not inherit the egress IPs of an old one", func(t *testing.T) {
		old := a.awaitNamespace(t, "alpha", func(*v1.NetNamespace) string { return "" })
		stop()
		a.removeNamespace(t, "alpha")
		a.namespace(t, "alpha")
		stop = a.control(whole, controllers.Options{})
		a.awaitNamespace(t, "alpha", func(n *v1.NetNamespace) string {
			if n.UID == old.UID || len(n.EgressIPs) > 0 {
				return fmt.Sprintf("it is still the old one: %v", n.EgressIPs)
			}
			return ""
		})
	})

	t.Run("one without a Namespace is left alone", func(t *testing.T) {
		// Restored from a backup, before its Namespace and with the mark of
		// another cluster.
		a.create(t, &v1.NetNamespace{
			ObjectMeta: metav1.ObjectMeta{Name: "restored", Annotations: map[string]string{v1.AnnotationNamespaceUID: "of-another-cluster"}},
			NetName:    "restored", NetID: new(uint32(4711)), EgressIPs: []string{"192.168.7.230"},
		})
		a.namespace(t, "later")
		a.awaitNamespaces(t) // the controller has passed over it
		a.namespace(t, "restored")
		a.awaitNamespace(t, "restored", func(n *v1.NetNamespace) string {
			if n.Annotations[v1.AnnotationNamespaceUID] == "of-another-cluster" {
				return "not bound to its Namespace"
			}
			if *n.NetID != 4711 {
				return fmt.Sprintf("netid is %d", *n.NetID)
			}
			return wantEgressIPs(n.EgressIPs, "192.168.7.230")
		})
	})

	ids, err := a.netIDs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if all := slices.Sorted(maps.Values(ids)); len(slices.Compact(all)) != len(ids) {
		t.Errorf("netids are not unique: %v", ids)
	}
}

// awaitGone polls until the object does not exist.
func (a *api) awaitGone(t *testing.T, object client.Object) {
	t.Helper()
	testenv.Eventually(t, func(ctx context.Context) string {
		if err := a.Get(ctx, client.ObjectKeyFromObject(object), object); !apierrors.IsNotFound(err) {
			return fmt.Sprintf("%s is still there: %v", object.GetName(), err)
		}
		return ""
	})
}
