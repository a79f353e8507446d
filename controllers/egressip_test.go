package controllers_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	ovnv1 "github.com/egressip-operator/egressip-operator/api/ovn/v1"
	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/controllers"
	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/internal/testenv/objects"
)

// egressIP creates an EgressIP for the namespaces with the label env=prod.
func (a *api) egressIP(t *testing.T, name string, ips ...string) {
	t.Helper()
	a.create(t, &ovnv1.EgressIP{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: ovnv1.EgressIPSpec{
			EgressIPs: ips, NamespaceSelector: metav1.LabelSelector{MatchLabels: map[string]string{"env": "prod"}},
		},
	})
}

// assignable gives a Node the label for EgressIPs, and the network of the segment.
func (a *api) assignable(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		a.patch(t, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}, `{"metadata": {
			"labels": {"k8s.ovn.org/egress-assignable": ""},
			"annotations": {"cloud.network.openshift.io/egress-ipconfig":
				"[{\"interface\":\"eth0\",\"ifaddr\":{\"ipv4\":\"192.168.7.0/24\"},\"capacity\":{\"ip\":10}}]"}}}`)
	}
}

func (a *api) notAssignable(t *testing.T, name string) {
	t.Helper()
	a.patch(t, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}, `{"metadata": {"labels": {"k8s.ovn.org/egress-assignable": null}}}`)
}

// awaitEgressIP polls until wrong has nothing to say of the EgressIP.
func (a *api) awaitEgressIP(t *testing.T, name string, wrong func(*ovnv1.EgressIP) string) *ovnv1.EgressIP {
	t.Helper()
	e := &ovnv1.EgressIP{}
	testenv.Eventually(t, func(ctx context.Context) string {
		e = &ovnv1.EgressIP{}
		if err := a.Get(ctx, client.ObjectKey{Name: name}, e); err != nil {
			return err.Error()
		}
		return wrong(e)
	})
	return e
}

// items are "ADDRESS NODE", in order.
func items(e *ovnv1.EgressIP) []string {
	var all []string
	for _, item := range e.Status.Items {
		all = append(all, item.EgressIP+" "+item.Node)
	}
	return all
}

func wantItems(want ...string) func(*ovnv1.EgressIP) string {
	return func(e *ovnv1.EgressIP) string {
		if !slices.Equal(items(e), want) {
			return fmt.Sprintf("items are %q, want %q; status is %+v", items(e), want, e.Status)
		}
		return wantCondition(e.Status.Conditions, v1.ConditionEgressReady, metav1.ConditionTrue, "Assigned", "")
	}
}

// documented is the example of the documentation of OpenShift and OKD.
const documented = `
apiVersion: k8s.ovn.org/v1
kind: EgressIP
metadata:
  name: egress-group1
spec:
  egressIPs:
  - 192.168.7.101
  - 192.168.7.102
  podSelector:
    matchLabels:
      app: web
  namespaceSelector:
    matchLabels:
      env: prod
`

// TestEgressIP: YAML of the documentation applies unchanged; each egress IP goes to another Node
// with the label, in the time of a patch to others if the label goes, and its columns are those
// of OVN-Kubernetes. Without a host, nothing is assigned, and status and an event say why.
func TestEgressIP(t *testing.T) {
	a := startAPI(t)
	a.control(t, controllers.Options{EgressIPs: true})
	for i, name := range []string{"node1", "node2", "node3"} {
		a.node(t, name, fmt.Sprintf("10.254.%d.0/24", i+1), fmt.Sprintf("192.168.7.1%d", i+1))
	}
	if out, err := a.kubectl(t, documented, "apply", "-f", "-"); err != nil {
		t.Fatalf("kubectl apply: %v\n%s", err, out)
	}
	e := a.awaitEgressIP(t, "egress-group1", func(e *ovnv1.EgressIP) string {
		if e.Status.NetID == nil || len(e.Status.Items) != 0 {
			return fmt.Sprintf("status is %+v", e.Status)
		}
		return wantCondition(e.Status.Conditions, v1.ConditionEgressReady, metav1.ConditionFalse, "NotClaimed", "k8s.ovn.org/egress-assignable")
	})
	a.awaitEvent(t, "EgressIP", "egress-group1", "NamespaceDropped", "k8s.ovn.org/egress-assignable")
	netID := *e.Status.NetID

	a.assignable(t, "node1", "node2")
	a.awaitEgressIP(t, "egress-group1", wantItems("192.168.7.101 node1", "192.168.7.102 node2"))
	a.awaitHost(t, "node1", func(h *v1.HostSubnet) string {
		if !slices.Equal(h.AssignedEgressIPs, []string{"192.168.7.101"}) || len(h.EgressIPs) != 0 {
			return fmt.Sprintf("egressIPs are %q, assigned %q", h.EgressIPs, h.AssignedEgressIPs)
		}
		return ""
	})
	a.awaitEvent(t, "EgressIP", "egress-group1", "EgressIPAssigned", "192.168.7.101")
	row := a.rowOf(t, ovnv1.GroupVersion(), "egressips", "egress-group1")
	for column, want := range map[string]string{
		"EgressIPs": "192.168.7.101", "Assigned Node": "node1", "Assigned EgressIPs": "192.168.7.101",
	} {
		if text := fmt.Sprint(row[column]); !strings.Contains(text, want) {
			t.Errorf("column %s is %q, want %s in it", column, text, want)
		}
	}
	if out, err := a.kubectl(t, "", "get", "eip"); err != nil || !strings.Contains(out, "ASSIGNED NODE") || !strings.Contains(out, "node1") {
		t.Errorf("kubectl get eip: %v\n%s", err, out)
	}

	a.assignable(t, "node3")
	a.notAssignable(t, "node1")
	e = a.awaitEgressIP(t, "egress-group1", wantItems("192.168.7.101 node3", "192.168.7.102 node2"))
	if *e.Status.NetID != netID {
		t.Errorf("the netid is %d, and was %d", *e.Status.NetID, netID)
	}
	a.awaitHost(t, "node1", func(h *v1.HostSubnet) string { return wantEgressIPs(h.AssignedEgressIPs) })

	// What the administrator lists stays, beside what the controller assigns.
	a.claim(t, "node3", "192.168.7.200")
	a.namespace(t, "shop")
	a.request(t, "shop", "192.168.7.200")
	a.awaitNamespace(t, "shop", wantActive("192.168.7.200", "node3"))
	if err := a.Delete(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	a.awaitHost(t, "node3", func(h *v1.HostSubnet) string {
		if len(h.AssignedEgressIPs) > 0 {
			return fmt.Sprintf("still assigned are %q", h.AssignedEgressIPs)
		}
		return wantEgressIPs(h.EgressIPs, "192.168.7.200")
	})
}

// TestEgressIPSelectorBreaks: the selectors in use are in the status. One that is edited into one that
// cannot be used leaves them there, and the condition names it; a new controller goes on so.
//
// Kills the mutant selectors-are-not-noted.
func TestEgressIPSelectorBreaks(t *testing.T) {
	a := startAPI(t)
	stop := a.control(t, controllers.Options{EgressIPs: true})
	a.node(t, "node1", "10.254.1.0/24", "192.168.7.11")
	a.assignable(t, "node1")
	if out, err := a.kubectl(t, documented, "apply", "-f", "-"); err != nil {
		t.Fatalf("kubectl apply: %v\n%s", err, out)
	}
	const name = "egress-group1"
	selecting := func(app, message string) func(*ovnv1.EgressIP) string {
		return func(e *ovnv1.EgressIP) string {
			s := e.Status.Selectors
			if s == nil || s.PodSelector.MatchLabels["app"] != app || len(s.PodSelector.MatchExpressions) > 0 || e.Status.ObservedGeneration != e.Generation {
				return fmt.Sprintf("status of generation %d, which is %d, has selectors %+v, want app %s", e.Status.ObservedGeneration, e.Generation, s, app)
			}
			return wantCondition(e.Status.Conditions, v1.ConditionEgressReady, metav1.ConditionTrue, "Assigned", message)
		}
	}
	a.awaitEgressIP(t, name, selecting("web", ""))
	broken := `{"spec": {"podSelector": {"matchLabels": null, "matchExpressions": [{"key": "app", "operator": "in", "values": ["web"]}]}}}`
	a.patch(t, &ovnv1.EgressIP{ObjectMeta: metav1.ObjectMeta{Name: name}}, broken)
	a.awaitEgressIP(t, name, selecting("web", "spec.podSelector"))
	stop()
	a.controlAlone(t, controllers.Options{EgressIPs: true})
	a.patch(t, &ovnv1.EgressIP{ObjectMeta: metav1.ObjectMeta{Name: name}}, `{"spec": {"podSelector": {"matchExpressions": [{"key": "app", "operator": "Like"}]}}}`)
	a.awaitEgressIP(t, name, selecting("web", "spec.podSelector"))
	a.patch(t, &ovnv1.EgressIP{ObjectMeta: metav1.ObjectMeta{Name: name}}, `{"spec": {"podSelector": {"matchLabels": {"app": "api"}, "matchExpressions": null}}}`)
	a.awaitEgressIP(t, name, selecting("api", ""))
}

// TestEgressIPAndNetNamespace: an address that both request is used by neither, and both say so.
// A pod that both give egress IPs, as agents report it, is reported on both.
func TestEgressIPAndNetNamespace(t *testing.T) {
	a := startAPI(t)
	a.control(t, controllers.Options{EgressIPs: true})
	a.node(t, "node1", "10.254.1.0/24", "192.168.7.11")
	a.node(t, "node2", "10.254.2.0/24", "192.168.7.12")
	a.assignable(t, "node1")
	a.namespace(t, "shop")
	a.request(t, "shop", "192.168.7.200")
	a.claim(t, "node2", "192.168.7.200")
	a.awaitNamespace(t, "shop", wantActive("192.168.7.200", "node2"))
	a.egressIP(t, "prod", "192.168.7.200")
	for _, await := range []func(wrong func([]metav1.Condition) string){
		func(wrong func([]metav1.Condition) string) {
			a.awaitNamespace(t, "shop", func(n *v1.NetNamespace) string { return wrong(n.Status.Conditions) })
		},
		func(wrong func([]metav1.Condition) string) {
			a.awaitEgressIP(t, "prod", func(e *ovnv1.EgressIP) string { return wrong(e.Status.Conditions) })
		},
	} {
		await(func(c []metav1.Condition) string {
			return wantCondition(c, v1.ConditionEgressReady, metav1.ConditionFalse, "MultipleNamespaces", "EgressIP prod, namespace shop")
		})
	}
	a.patch(t, &ovnv1.EgressIP{ObjectMeta: metav1.ObjectMeta{Name: "prod"}}, `{"spec": {"egressIPs": ["192.168.7.201"]}}`)
	a.awaitEgressIP(t, "prod", wantItems("192.168.7.201 node1"))
	a.awaitNamespace(t, "shop", wantActive("192.168.7.200", "node2"))

	if err := a.report(t.Context(), "node2", map[string]any{
		"version": objects.AgentVersion, "uplinkCIDR": "192.168.7.12/32",
		"overlaps": []any{map[string]any{"used": "EgressIP/prod", "ignored": "shop", "pod": "shop/web-0"}},
	}); err != nil {
		t.Fatal(err)
	}
	a.awaitNamespace(t, "shop", func(n *v1.NetNamespace) string {
		return wantCondition(n.Status.Conditions, v1.ConditionEgressReady, metav1.ConditionFalse, "Overlap", "pod shop/web-0 on host node2 leaves with the egress IPs of EgressIP prod")
	})
	a.awaitEgressIP(t, "prod", func(e *ovnv1.EgressIP) string {
		return wantCondition(e.Status.Conditions, v1.ConditionEgressReady, metav1.ConditionTrue, "Assigned", "counts for pod shop/web-0 on host node2")
	})
}

// TestNetIDsOfEgressIPs: an EgressIP has a netid that nothing else has, whatever is written into
// its status, and a NetNamespace keeps its own.
func TestNetIDsOfEgressIPs(t *testing.T) {
	a := startAPI(t)
	a.control(t, controllers.Options{EgressIPs: true})
	a.namespace(t, "shop")
	n := a.awaitNamespace(t, "shop", func(n *v1.NetNamespace) string {
		if n.NetID == nil {
			return "no netid"
		}
		return ""
	})
	a.egressIP(t, "one", "192.168.7.201")
	a.egressIP(t, "two", "192.168.7.202")
	numbered := func(name string, not ...uint32) uint32 {
		t.Helper()
		return *a.awaitEgressIP(t, name, func(e *ovnv1.EgressIP) string {
			if e.Status.NetID == nil || slices.Contains(not, *e.Status.NetID) {
				return fmt.Sprintf("status is %+v", e.Status)
			}
			return ""
		}).Status.NetID
	}
	one := numbered("one", *n.NetID)
	numbered("two", *n.NetID, one)
	for _, taken := range []uint32{*n.NetID, one} {
		two := &ovnv1.EgressIP{ObjectMeta: metav1.ObjectMeta{Name: "two"}}
		if err := a.Status().Patch(t.Context(), two, client.RawPatch("application/merge-patch+json",
			fmt.Appendf(nil, `{"status": {"netid": %d}}`, taken))); err != nil {
			t.Fatal(err)
		}
		numbered("two", *n.NetID, one)
	}
	if now := a.awaitNamespace(t, "shop", func(*v1.NetNamespace) string { return "" }); *now.NetID != *n.NetID {
		t.Errorf("the NetNamespace has netid %d, and had %d", *now.NetID, *n.NetID)
	}
	numbered("one", *n.NetID)
}

// TestForeignEgressIPs: where another software has the definition, its objects are left alone, and
// everything else works. When it becomes ours, they are served.
func TestForeignEgressIPs(t *testing.T) {
	a := startAPI(t)
	crd := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: ovnv1.CRDName}}
	crd.SetGroupVersionKind(apiextensionsv1.SchemeGroupVersion.WithKind("CustomResourceDefinition"))
	a.patch(t, crd, `{"metadata": {"annotations": {"egressip.network.openshift.io/served-by": null}}}`)
	stop := a.control(t, controllers.Options{EgressIPs: true})
	a.node(t, "node1", "10.254.1.0/24", "192.168.7.11")
	a.assignable(t, "node1")
	a.egressIP(t, "prod", "192.168.7.201")
	a.namespace(t, "shop")
	a.request(t, "shop", "192.168.7.200")
	a.ranges(t, "node1", "192.168.7.128/25")
	a.awaitNamespace(t, "shop", wantActive("192.168.7.200", "node1"))
	e := a.awaitEgressIP(t, "prod", func(*ovnv1.EgressIP) string { return "" })
	if e.Status.NetID != nil || len(e.Status.Conditions) > 0 {
		t.Errorf("the status of another software's object is %+v", e.Status)
	}
	a.awaitHost(t, "node1", func(h *v1.HostSubnet) string {
		if h.Status.Placement == nil || h.Status.Placement.EgressAssignable {
			return fmt.Sprintf("placement is %+v", h.Status.Placement)
		}
		return wantEgressIPs(h.AssignedEgressIPs)
	})
	stop()
	a.patch(t, crd, `{"metadata": {"annotations": {"egressip.network.openshift.io/served-by": "egressip-operator"}}}`)
	a.controlAlone(t, controllers.Options{EgressIPs: true})
	a.awaitEgressIP(t, "prod", wantItems("192.168.7.201 node1"))
	a.awaitHost(t, "node1", func(h *v1.HostSubnet) string { return wantEgressIPs(h.EgressIPs, "192.168.7.200") })
}
