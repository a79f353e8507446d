package controllers_test

import (
	"fmt"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/controllers"
)

// TestPodNetworksThatAgentsFind: the controller lists those in which the API server has a
// Pod of the Node, with the rights of config/rbac, also when the Pod gets its address
// later; and the host is not ready while a pod is in none.
//
// Mutants killed: pods-of-any-node, pods-are-looked-up-once.
func TestPodNetworksThatAgentsFind(t *testing.T) {
	a := startAPI(t)
	const namespace = "egressip-system"
	a.create(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}})
	if out, err := a.kubectl(t, "", "apply", "--server-side", "-k", "../config/rbac"); err != nil {
		t.Fatalf("kubectl apply -k config/rbac: %v\n%s", err, out)
	}
	a.node(t, "node1", "", "192.168.7.11")
	a.node(t, "node2", "", "192.168.7.12")
	a.namespace(t, "shop")
	a.pod(t, "here", "node1", "10.9.1.7")
	a.pod(t, "there", "node2", "10.9.2.7")
	later := a.pod(t, "later", "node1", "")
	limited := *a
	limited.cfg = rest.CopyConfig(a.cfg)
	limited.cfg.Impersonate = rest.ImpersonationConfig{
		UserName: "system:serviceaccount:" + namespace + ":egressip-controller",
		Groups:   []string{"system:serviceaccounts", "system:serviceaccounts:" + namespace, "system:authenticated"},
	}
	limited.controlAlone(t, controllers.Options{LeaderElection: true, LeaderElectionNamespace: namespace})
	lists := func(want ...string) {
		t.Helper()
		a.awaitHost(t, "node1", func(h *v1.HostSubnet) string {
			if h.Status.Placement == nil || !slices.Equal(h.Status.Placement.PodNetworks, want) {
				return fmt.Sprintf("placement is %+v, want pod networks %v", h.Status.Placement, want)
			}
			return ""
		})
	}
	report := func(missing string, networks ...any) {
		t.Helper()
		a.awaitHost(t, "node1", func(*v1.HostSubnet) string { return "" })
		agent := map[string]any{"version": "1", "uplinkCIDR": "192.168.7.11/24", "podNetworks": append([]any{}, networks...)}
		if missing != "" {
			agent["podNetworksMissing"] = missing
		}
		if err := a.report(t.Context(), "node1", agent); err != nil {
			t.Fatal(err)
		}
	}
	ready := func(status metav1.ConditionStatus) {
		t.Helper()
		a.awaitHost(t, "node1", func(h *v1.HostSubnet) string {
			if c := meta.FindStatusCondition(h.Status.Conditions, v1.ConditionEgressReady); c == nil || c.Status != status {
				return fmt.Sprintf("EgressReady is %+v, want %s", c, status)
			}
			return ""
		})
	}
	report("Pod shop/later is nowhere", "10.9.1.0/24", "10.9.2.0/24", "10.9.3.7/32")
	lists("10.9.1.0/24")
	ready(metav1.ConditionFalse)
	later.Status.PodIP, later.Status.PodIPs = "10.9.3.7", []corev1.PodIP{{IP: "10.9.3.7"}}
	if err := a.Status().Update(t.Context(), later); err != nil {
		t.Fatal(err)
	}
	lists("10.9.1.0/24", "10.9.3.7/32")
	report("", "10.9.1.0/24")
	lists("10.9.1.0/24")
	ready(metav1.ConditionTrue)
	report("")
	lists()
}

// pod creates a Pod on a Node, with an address where ip is not "".
func (a *api) pod(t *testing.T, name, node, ip string) *corev1.Pod {
	t.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name},
		Spec: corev1.PodSpec{
			NodeName: node, Containers: []corev1.Container{{Name: "c", Image: "i"}}, AutomountServiceAccountToken: new(false),
		},
	}
	a.create(t, pod)
	pod.Status.Phase = corev1.PodRunning
	if ip != "" {
		pod.Status.PodIP, pod.Status.PodIPs = ip, []corev1.PodIP{{IP: ip}}
	}
	if err := a.Status().Update(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	return pod
}
