package controllers_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/controllers"
)

// restore creates the object again as Velero does: with its annotations and its
// managed fields as they were, and without its UID.
func (a *api) restore(t *testing.T, kind string, backup client.Object) {
	t.Helper()
	text, err := yaml.Marshal(backup)
	if err != nil {
		t.Fatal(err)
	}
	u := &unstructured.Unstructured{}
	if err := yaml.Unmarshal(text, &u.Object); err != nil {
		t.Fatal(err)
	}
	u.SetGroupVersionKind(v1.GroupVersion().WithKind(kind))
	fields := u.GetManagedFields()
	if len(fields) == 0 {
		t.Fatal("the backup has no managed fields")
	}
	u.SetUID("")
	u.SetResourceVersion("")
	u.SetManagedFields(nil)
	unstructured.RemoveNestedField(u.Object, "status")
	if err := a.Create(t.Context(), u); err != nil {
		t.Fatal(err)
	}
	before := u.DeepCopy()
	u.SetManagedFields(slices.DeleteFunc(fields, func(f metav1.ManagedFieldsEntry) bool { return f.Subresource != "" }))
	if err := a.Patch(t.Context(), u, client.MergeFrom(before)); err != nil {
		t.Fatal(err)
	}
}

// wantBound says what is wrong with what an object says of its owner.
func wantBound(object client.Object, mark string, owner client.Object) string {
	annotations := object.GetAnnotations()
	if annotations[mark] != string(owner.GetUID()) || annotations[v1.AnnotationBoundUID] != string(object.GetUID()) {
		return fmt.Sprintf("%s with the UID %s is not bound to %s: %v", object.GetName(), object.GetUID(), owner.GetUID(), annotations)
	}
	return ""
}

// TestVelero: what a backup brings back keeps what users wrote, although Namespaces
// and Nodes have other UIDs by then, in both orders.
//
// Kills the mutant any-bound-uid-is-ours.
func TestVelero(t *testing.T) {
	whole := t
	a := startAPI(t)
	stop := a.control(t, controllers.Options{})
	a.node(t, "node1", "10.254.1.0/24", "192.168.7.11")
	for _, name := range []string{"first", "second"} {
		a.namespace(t, name)
	}
	a.request(t, "first", "192.168.7.201")
	a.request(t, "second", "192.168.7.202")
	a.claim(t, "node1", "192.168.7.201", "192.168.7.202")
	backups := make(map[string]*v1.NetNamespace)
	for _, name := range []string{"first", "second"} {
		backups[name] = a.awaitNamespace(t, name, wantActive(map[string]string{"first": "192.168.7.201", "second": "192.168.7.202"}[name], "node1"))
	}
	host := a.awaitHost(t, "node1", func(h *v1.HostSubnet) string {
		if h.Annotations[v1.AnnotationBoundUID] == "" {
			return "not bound"
		}
		return ""
	})

	// The disaster.
	stop()
	for _, name := range []string{"first", "second"} {
		a.removeNamespace(t, name)
		if err := a.Delete(t.Context(), netNamespace(name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.Delete(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node1"}}); err != nil {
		t.Fatal(err)
	}
	if err := a.Delete(t.Context(), hostSubnet("node1")); err != nil {
		t.Fatal(err)
	}

	// One Namespace is there before its NetNamespace, the other one after.
	a.restore(t, "NetNamespace", backups["second"])
	a.restore(t, "HostSubnet", host)
	a.namespace(t, "first")
	a.restore(t, "NetNamespace", backups["first"])
	a.control(whole, controllers.Options{})
	a.awaitEvent(t, "NetNamespace", "second", "SettingsKept", "Delete it if none does")
	a.awaitEvent(t, "HostSubnet", "node1", "SettingsKept", `egressIPs ["192.168.7.201" "192.168.7.202"]`)
	a.namespace(t, "second")
	node := a.node(t, "node1", "10.254.1.0/24", "192.168.7.11")
	for _, name := range []string{"first", "second"} {
		namespace := &corev1.Namespace{}
		if err := a.Get(t.Context(), client.ObjectKey{Name: name}, namespace); err != nil {
			t.Fatal(err)
		}
		n := a.awaitNamespace(t, name, func(n *v1.NetNamespace) string {
			if wrong := wantBound(n, v1.AnnotationNamespaceUID, namespace); wrong != "" {
				return wrong
			}
			return wantActive(backups[name].EgressIPs[0], "node1")(n)
		})
		if *n.NetID != *backups[name].NetID {
			t.Errorf("netid of %s is %d, want %d", name, *n.NetID, *backups[name].NetID)
		}
		a.awaitEvent(t, "NetNamespace", name, "SettingsKept", "now belongs to")
	}
	a.awaitHost(t, "node1", func(h *v1.HostSubnet) string {
		if wrong := wantBound(h, v1.AnnotationNodeUID, node); wrong != "" {
			return wrong
		}
		return wantEgressIPs(h.EgressIPs, "192.168.7.201", "192.168.7.202")
	})

	// From now on they live as long as their owners.
	a.removeNamespace(t, "first")
	a.awaitGone(t, netNamespace("first"))
}

// TestUpgradedObjects: what an earlier version marked is bound if its Namespace is
// there, and otherwise kept.
func TestUpgradedObjects(t *testing.T) {
	a := startAPI(t)
	a.namespace(t, "there")
	namespace := &corev1.Namespace{}
	if err := a.Get(t.Context(), client.ObjectKey{Name: "there"}, namespace); err != nil {
		t.Fatal(err)
	}
	a.namespace(t, "replaced")
	for i, name := range []string{"there", "replaced", "gone"} {
		n := netNamespace(name)
		n.NetID, n.EgressIPs = new(uint32(100+i)), []string{fmt.Sprintf("192.168.7.%d", 200+i)}
		n.Annotations = map[string]string{v1.AnnotationNamespaceUID: "of-an-earlier-one"}
		if name == "there" {
			n.Annotations[v1.AnnotationNamespaceUID] = string(namespace.UID)
		}
		if err := a.Create(t.Context(), n, client.FieldOwner(controllers.FieldManager)); err != nil {
			t.Fatal(err)
		}
	}
	a.control(t, controllers.Options{})
	a.awaitNamespace(t, "there", func(n *v1.NetNamespace) string { return wantBound(n, v1.AnnotationNamespaceUID, namespace) })
	for _, name := range []string{"replaced", "gone"} {
		a.awaitEvent(t, "NetNamespace", name, "SettingsKept", "of-an-earlier-one")
	}
	all, err := a.events(t.Context(), "NetNamespace", "there")
	if err != nil || slices.ContainsFunc(all, func(e string) bool { return strings.Contains(e, "SettingsKept") }) {
		t.Errorf("events of the one that is in order: %q, %v", all, err)
	}
	a.awaitNamespace(t, "replaced", func(n *v1.NetNamespace) string { return wantEgressIPs(n.EgressIPs, "192.168.7.201") })
	a.awaitNamespace(t, "gone", func(n *v1.NetNamespace) string { return wantEgressIPs(n.EgressIPs, "192.168.7.202") })
}

// TestNodeComesBack: the settings of a Node that is deleted wait for it; its automatic
// egress IPs do not.
//
// Kills the mutant gone-is-never-told.
func TestNodeComesBack(t *testing.T) {
	a := startAPI(t)
	a.control(t, controllers.Options{HostRetention: time.Hour})
	for i, name := range []string{"manual", "auto", "spare"} {
		a.node(t, name, fmt.Sprintf("10.254.%d.0/24", i+1), fmt.Sprintf("192.168.7.%d", i+11))
	}
	for _, name := range []string{"shop", "bank"} {
		a.namespace(t, name)
	}
	a.claim(t, "manual", "192.168.7.150")
	a.request(t, "shop", "192.168.7.150")
	a.ranges(t, "auto", "192.168.7.192/26")
	a.request(t, "bank", "192.168.7.200")
	a.awaitNamespace(t, "shop", wantActive("192.168.7.150", "manual"))
	a.awaitNamespace(t, "bank", wantActive("192.168.7.200", "auto"))
	a.ranges(t, "spare", "192.168.7.192/26")

	before := make(map[string]*v1.HostSubnet)
	for _, name := range []string{"manual", "auto"} {
		before[name] = a.awaitHost(t, name, func(h *v1.HostSubnet) string {
			if h.Annotations[v1.AnnotationBoundUID] == "" {
				return "not bound"
			}
			return ""
		})
		if err := a.Delete(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}); err != nil {
			t.Fatal(err)
		}
	}
	a.awaitNamespace(t, "bank", wantActive("192.168.7.200", "spare"))
	a.awaitNamespace(t, "shop", wantDropped("HostOffline", "192.168.7.150"))
	for name, claims := range map[string][]string{"manual": {"192.168.7.150"}, "auto": {}} {
		a.awaitHost(t, name, func(h *v1.HostSubnet) string {
			if wrong := wantCondition(h.Status.Conditions, v1.ConditionNodeGone, metav1.ConditionTrue, "NodeGone", "1h0m0s"); wrong != "" {
				return wrong
			}
			return wantEgressIPs(h.EgressIPs, claims...)
		})
	}

	for name, ip := range map[string]string{"manual": "192.168.7.11", "auto": "192.168.7.12"} {
		node := a.node(t, name, "10.254.9.0/24", ip)
		a.awaitHost(t, name, func(h *v1.HostSubnet) string {
			if h.UID != before[name].UID {
				return "it is another one"
			}
			if !slices.Equal(h.EgressCIDRs, before[name].EgressCIDRs) {
				return fmt.Sprintf("egressCIDRs are %v, were %v", h.EgressCIDRs, before[name].EgressCIDRs)
			}
			if wrong := wantBound(h, v1.AnnotationNodeUID, node); wrong != "" {
				return wrong
			}
			return wantCondition(h.Status.Conditions, v1.ConditionNodeGone, metav1.ConditionFalse, "", "")
		})
	}
	a.awaitNamespace(t, "shop", wantActive("192.168.7.150", "manual"))
}

// TestNodeStaysAway: after the retention the HostSubnet goes, and an event says what
// it had.
func TestNodeStaysAway(t *testing.T) {
	a := startAPI(t)
	a.control(t, controllers.Options{HostRetention: 2 * time.Second})
	a.node(t, "node1", "10.254.1.0/24", "192.168.7.11")
	a.claim(t, "node1", "192.168.7.200")
	h := a.awaitHost(t, "node1", func(h *v1.HostSubnet) string {
		if h.Annotations[v1.AnnotationBoundUID] == "" {
			return "not bound"
		}
		return ""
	})
	deleted := time.Now()
	if err := a.Delete(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node1"}}); err != nil {
		t.Fatal(err)
	}
	a.awaitGone(t, h)
	// Times in conditions are in whole seconds.
	if after := time.Since(deleted); after < time.Second {
		t.Errorf("it was deleted after %s", after)
	}
	a.awaitEvent(t, "HostSubnet", "node1", "SettingsDeleted", `egressIPs ["192.168.7.200"]`)
}

// TestNodeListsAnotherAddressFirst: a kubelet does not take an egress IP or the
// address of another host by naming it.
//
// Kills the mutant first-address-counts.
func TestNodeListsAnotherAddressFirst(t *testing.T) {
	a := startAPI(t)
	a.control(t, controllers.Options{})
	a.node(t, "node1", "10.254.1.0/24", "192.168.7.11")
	a.node(t, "node2", "10.254.2.0/24", "192.168.7.12")
	a.namespace(t, "shop")
	a.claim(t, "node1", "192.168.7.200")
	a.request(t, "shop", "192.168.7.200")
	a.awaitNamespace(t, "shop", wantActive("192.168.7.200", "node1"))
	lists := func(name string, ips ...string) {
		a.nodeStatus(t, name, func(s *corev1.NodeStatus) {
			s.Addresses = nil
			for _, ip := range ips {
				s.Addresses = append(s.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: ip})
			}
		})
	}
	lists("node1", "192.168.7.200", "192.168.7.11")
	a.awaitEvent(t, "HostSubnet", "node1", "NodeAddressRefused", "192.168.7.200 as its first InternalIP")
	lists("node2", "192.168.7.11")
	a.awaitEvent(t, "HostSubnet", "node2", "NodeAddressRefused", "the address of host node1")
	a.node(t, "node3", "10.254.3.0/24", "192.168.7.200", "192.168.7.13")
	for name, ip := range map[string]string{"node1": "192.168.7.11", "node2": "192.168.7.12", "node3": "192.168.7.13"} {
		a.awaitHost(t, name, func(h *v1.HostSubnet) string {
			if h.HostIP != ip {
				return fmt.Sprintf("hostIP of %s is %s, want %s", name, h.HostIP, ip)
			}
			return ""
		})
	}
	a.awaitNamespace(t, "shop", wantActive("192.168.7.200", "node1"))
}
