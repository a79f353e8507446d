package controllers_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/egressip-operator/egressip-operator/api/egressip/v1alpha1"
	ovnv1 "github.com/egressip-operator/egressip-operator/api/ovn/v1"
	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/controllers"
	"github.com/egressip-operator/egressip-operator/internal/testenv"
)

func (a *api) pool(t *testing.T, name string, spec v1alpha1.EgressIPPoolSpec) {
	t.Helper()
	a.create(t, &v1alpha1.EgressIPPool{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: spec})
}

func requestOf(namespace, name, pool string) *v1alpha1.EgressIPRequest {
	return &v1alpha1.EgressIPRequest{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: v1alpha1.EgressIPRequestSpec{Pool: pool},
	}
}

// awaitRequest polls until a request has these addresses, or none for the reason.
func (a *api) awaitRequest(t *testing.T, namespace, name, reason string, ips ...string) {
	t.Helper()
	testenv.Eventually(t, func(ctx context.Context) string {
		r := &v1alpha1.EgressIPRequest{}
		if err := a.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, r); err != nil {
			return err.Error()
		}
		if !slices.Equal(r.Status.EgressIPs, ips) {
			return fmt.Sprintf("it has %q, want %q: %+v", r.Status.EgressIPs, ips, r.Status.Conditions)
		}
		status := metav1.ConditionFalse
		if len(ips) > 0 {
			status = metav1.ConditionTrue
		}
		return wantCondition(r.Status.Conditions, v1alpha1.ConditionGiven, status, reason, "")
	})
}

// TestPools: requests are given addresses of their pools, which labelled Nodes that the pool selects
// have; those beyond the quota, or of namespaces that the pool is not for, are refused with a reason;
// what a request that is gone had, one of its name has again, also after a restart of the
// controller. A pool that is used up serves the next request when an address is free. Its gateways
// are those of its EgressIPs, and so are annotations of a request.
//
// Mutant killed: pools-have-no-gateways.
func TestPools(t *testing.T) {
	a := startAPI(t)
	options := controllers.Options{EgressIPs: true, PoolRetention: time.Hour}
	stop := a.control(t, options)
	for i, name := range []string{"node1", "node2"} {
		a.node(t, name, fmt.Sprintf("10.254.%d.0/24", i+1), fmt.Sprintf("192.168.7.1%d", i+1))
		a.assignable(t, name)
	}
	a.patch(t, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node2"}}, `{"metadata": {"labels": {"zone": "dmz"}}}`)
	for _, name := range []string{"shop", "test"} {
		a.create(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"env": name}}})
	}
	a.pool(t, "dmz", v1alpha1.EgressIPPoolSpec{
		CIDRs:             []string{"192.168.7.10/31", "192.168.7.200/32"}, // one of them is node1's own
		NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"env": "shop"}},
		NodeSelector:      &metav1.LabelSelector{MatchLabels: map[string]string{"zone": "dmz"}},
		PerNamespace:      new(int32(1)),
		Gateways:          []string{"192.168.7.1"},
	})
	a.create(t, requestOf("shop", "out", "dmz"))
	a.awaitRequest(t, "shop", "out", "Given", "192.168.7.10")
	e := a.awaitEgressIP(t, "shop.out", wantItems("192.168.7.10 node2"))
	if e.Spec.NamespaceSelector.MatchLabels["kubernetes.io/metadata.name"] != "shop" || e.Annotations[v1.AnnotationGateways] != "192.168.7.1" {
		t.Errorf("the EgressIP selects %+v, with %v", e.Spec, e.Annotations)
	}
	a.create(t, requestOf("shop", "more", "dmz"), requestOf("test", "out", "dmz"), requestOf("test", "other", "nowhere"))
	a.awaitRequest(t, "shop", "more", "Quota")
	a.awaitRequest(t, "test", "out", "NotAllowed")
	a.awaitRequest(t, "test", "other", "NoPool")
	a.awaitEvent(t, "EgressIPRequest", "more", "NotGiven", "delete another request")
	testenv.Eventually(t, func(ctx context.Context) string {
		p := &v1alpha1.EgressIPPool{}
		if err := a.Get(ctx, client.ObjectKey{Name: "dmz"}, p); err != nil {
			return err.Error()
		}
		if p.Status.Given != 1 || p.Status.Refused != 2 || p.Status.Kept != 0 {
			return fmt.Sprintf("status is %+v", p.Status)
		}
		return wantCondition(p.Status.Conditions, v1alpha1.ConditionReady, metav1.ConditionTrue, "Given", "")
	})
	a.patch(t, &v1alpha1.EgressIPPool{ObjectMeta: metav1.ObjectMeta{Name: "dmz"}}, `{"spec": {"perNamespace": 5, "gateways": null}}`)
	a.awaitRequest(t, "shop", "more", "Given", "192.168.7.200")
	a.awaitEgressIP(t, "shop.out", func(e *ovnv1.EgressIP) string {
		if gateways, there := e.Annotations[v1.AnnotationGateways]; there {
			return "it still names gateways " + gateways
		}
		return ""
	})

	// Annotations of the request are those of its EgressIP; what is wrong with them is said.
	const excluded, wrong = "10.0.0.0/8", "10.0.0.1/8"
	for _, text := range []string{excluded, wrong} {
		a.patch(t, requestOf("shop", "out", "dmz"), `{"metadata": {"annotations": {"`+v1.AnnotationExcludeCIDRs+`": "`+text+`", "`+v1.AnnotationMode+`": "ordered"}}}`)
		a.awaitEgressIP(t, "shop.out", func(e *ovnv1.EgressIP) string {
			if e.Annotations[v1.AnnotationExcludeCIDRs] == text && e.Annotations[v1.AnnotationMode] == "ordered" {
				return ""
			}
			return fmt.Sprintf("annotations are %v", e.Annotations)
		})
	}
	a.awaitEvent(t, "EgressIPRequest", "out", "BadAnnotation", "10.0.0.1/8 has host bits")
	a.patch(t, requestOf("shop", "out", "dmz"), `{"metadata": {"annotations": null}}`)
	a.awaitEgressIP(t, "shop.out", func(e *ovnv1.EgressIP) string {
		if _, there := e.Annotations[v1.AnnotationExcludeCIDRs]; there {
			return fmt.Sprintf("annotations are %v", e.Annotations)
		}
		return ""
	})

	// Gone, and back.
	if err := a.Delete(t.Context(), requestOf("shop", "out", "dmz")); err != nil {
		t.Fatal(err)
	}
	a.awaitEgressIP(t, "shop.out", func(e *ovnv1.EgressIP) string {
		if len(e.Spec.EgressIPs) > 0 || e.Annotations[v1alpha1.AnnotationReleasedAt] == "" {
			return fmt.Sprintf("it is %+v, with %v", e.Spec, e.Annotations)
		}
		return ""
	})
	a.awaitHost(t, "node2", func(h *v1.HostSubnet) string { return wantEgressIPs(h.AssignedEgressIPs, "192.168.7.200") })
	a.create(t, requestOf("shop", "third", "dmz"))
	a.awaitRequest(t, "shop", "third", "Exhausted")
	stop()
	a.controlAlone(t, options)
	a.create(t, requestOf("shop", "out", "dmz"))
	a.awaitRequest(t, "shop", "out", "Given", "192.168.7.10")
	a.awaitEgressIP(t, "shop.out", func(e *ovnv1.EgressIP) string {
		if len(items(e)) > 0 && e.Annotations[v1alpha1.AnnotationReleasedAt] == "" {
			return ""
		}
		return fmt.Sprintf("items are %q, annotations %v", items(e), e.Annotations)
	})
	a.patch(t, &v1alpha1.EgressIPPool{ObjectMeta: metav1.ObjectMeta{Name: "dmz"}}, `{"spec": {"cidrs": ["192.168.7.10/31", "192.168.7.200/31"]}}`)
	a.awaitRequest(t, "shop", "third", "Given", "192.168.7.201")
}

// TestTeamsAskPools: who may edit a namespace may make requests there, and nothing else of ours; the
// pool of a request cannot be changed, and what is no pool is refused.
func TestTeamsAskPools(t *testing.T) {
	a := startAPI(t)
	a.namespace(t, "egressip-system")
	a.namespace(t, "shop")
	if out, err := a.kubectl(t, "", "apply", "--server-side", "-k", "../config/rbac"); err != nil {
		t.Fatalf("kubectl apply -k config/rbac: %v\n%s", err, out)
	}
	cluster := &rbacv1.ClusterRole{}
	if err := a.Get(t.Context(), client.ObjectKey{Name: "egressip-request"}, cluster); err != nil {
		t.Fatal(err)
	}
	if cluster.Labels["rbac.authorization.k8s.io/aggregate-to-edit"] != "true" || cluster.Labels["rbac.authorization.k8s.io/aggregate-to-admin"] != "true" {
		t.Errorf("the role is not aggregated: %v", cluster.Labels)
	}
	a.create(t, &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "team"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "egressip-request"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: "jane"}},
	})
	jane := rest.CopyConfig(a.cfg)
	jane.Impersonate = rest.ImpersonationConfig{UserName: "jane", Groups: []string{"system:authenticated"}}
	team, err := client.New(jane, client.Options{Scheme: a.Scheme()})
	if err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, func(ctx context.Context) string { return text(team.Create(ctx, requestOf("shop", "out", "dmz"))) })
	for what, err := range map[string]error{
		"another namespace": team.Create(t.Context(), requestOf("default", "out", "dmz")),
		"a pool":            team.Create(t.Context(), &v1alpha1.EgressIPPool{ObjectMeta: metav1.ObjectMeta{Name: "mine"}, Spec: v1alpha1.EgressIPPoolSpec{CIDRs: []string{"192.168.7.0/24"}}}),
		"an EgressIP":       team.Create(t.Context(), &ovnv1.EgressIP{ObjectMeta: metav1.ObjectMeta{Name: "mine"}, Spec: ovnv1.EgressIPSpec{EgressIPs: []string{"192.168.7.9"}}}),
	} {
		if !apierrors.IsForbidden(err) {
			t.Errorf("%s: %v, want Forbidden", what, err)
		}
	}
	if err := team.Patch(t.Context(), requestOf("shop", "out", ""), client.RawPatch("application/merge-patch+json", []byte(`{"spec": {"pool": "other"}}`))); !apierrors.IsInvalid(err) {
		t.Errorf("another pool: %v, want Invalid", err)
	}
	for _, cidr := range []string{"192.168.7.1/24", "everything", "192.168.7.9"} {
		err := a.Create(t.Context(), &v1alpha1.EgressIPPool{ObjectMeta: metav1.ObjectMeta{Name: "bad"}, Spec: v1alpha1.EgressIPPoolSpec{CIDRs: []string{cidr}}})
		if !apierrors.IsInvalid(err) {
			t.Errorf("cidrs with %q: %v, want Invalid", cidr, err)
		}
	}
	for _, gateways := range [][]string{{"router"}, {"172.16.5.0/24"}, {"172.16.5.1", "172.16.5.2"}, {"172.16.5.1", "fe80::1", "172.16.5.2"}} {
		err := a.Create(t.Context(), &v1alpha1.EgressIPPool{ObjectMeta: metav1.ObjectMeta{Name: "bad"}, Spec: v1alpha1.EgressIPPoolSpec{CIDRs: []string{"192.168.7.0/24"}, Gateways: gateways}})
		if !apierrors.IsInvalid(err) {
			t.Errorf("gateways %q: %v, want Invalid", gateways, err)
		}
	}
}
