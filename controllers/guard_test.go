package controllers_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	ovnv1 "github.com/egressip-operator/egressip-operator/api/ovn/v1"
	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/controllers"
	"github.com/egressip-operator/egressip-operator/internal/testenv"
)

const system = "egressip-system"

// tokenOf returns the configuration of a pod of the service account on that
// node, with the token that it gets.
func (a *api) tokenOf(t *testing.T, account, node string) *rest.Config {
	t.Helper()
	clientset, err := kubernetes.NewForConfig(a.cfg)
	if err != nil {
		t.Fatal(err)
	}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: account + "-" + node, Namespace: system},
		Spec: corev1.PodSpec{
			ServiceAccountName: account, NodeName: node,
			Containers: []corev1.Container{{Name: "main", Image: "none"}},
		},
	}
	a.create(t, pod)
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		BoundObjectRef: &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: pod.Name, UID: pod.UID},
	}}
	token, err := clientset.CoreV1().ServiceAccounts(system).CreateToken(t.Context(), account, request, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	cfg := rest.AnonymousClientConfig(a.cfg)
	cfg.BearerToken = token.Status.Token
	return cfg
}

func (a *api) as(t *testing.T, cfg *rest.Config) client.Client {
	t.Helper()
	c, err := client.New(cfg, client.Options{Scheme: a.Scheme()})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestGuardRails: who may write what, with the manifests that are installed.
func TestGuardRails(t *testing.T) {
	a := startAPI(t)
	// The CRDs are there already, from the same files.
	if out, err := a.kubectl(t, "", "apply", "--server-side", "--force-conflicts", "-k", "../config/default"); err != nil {
		t.Fatalf("kubectl apply -k config/default: %v\n%s", err, out)
	}
	a.node(t, "node1", "10.254.1.0/24", "192.168.7.11")
	a.node(t, "node2", "10.254.2.0/24", "192.168.7.12")
	a.namespace(t, "shop")

	whole := t
	t.Run("the controller works with its rights, and has no more", func(t *testing.T) {
		limited := *a
		limited.cfg = a.tokenOf(t, "egressip-controller", "node1")
		limited.control(whole, controllers.Options{LeaderElection: true, LeaderElectionNamespace: system})
		a.request(t, "shop", "192.168.7.200")
		for _, name := range []string{"node1", "node2"} {
			a.ranges(t, name, "192.168.7.0/24")
		}
		a.awaitNamespace(t, "shop", wantActive("192.168.7.200", "node1"))
		a.ready(t, "node1", corev1.ConditionFalse)
		a.awaitNamespace(t, "shop", wantActive("192.168.7.200", "node2"))
		a.awaitEvent(t, "NetNamespace", "shop", "EgressIPMoved", "192.168.7.200")
		if err := a.Delete(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node1"}}); err != nil {
			t.Fatal(err)
		}
		a.awaitGone(t, hostSubnet("node1"))
		a.node(t, "node1", "10.254.1.0/24", "192.168.7.11")
		a.awaitHost(t, "node1", func(h *v1.HostSubnet) string {
			return wantCondition(h.Status.Conditions, v1.ConditionOnline, metav1.ConditionTrue, "", "")
		})

		controller := a.as(t, limited.cfg)
		if err := controller.List(t.Context(), &corev1.SecretList{}); !apierrors.IsForbidden(err) {
			t.Errorf("reading secrets: %v, want Forbidden", err)
		}
		if err := controller.Delete(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node1"}}); !apierrors.IsForbidden(err) {
			t.Errorf("deleting a Node: %v, want Forbidden", err)
		}
	})

	// As the agent does.
	report := func(c client.Client, host, condition string) error {
		u := &unstructured.Unstructured{Object: map[string]any{"status": map[string]any{
			"agent": map[string]any{"version": "1", "uplinkCIDR": "192.168.7.11/24"},
			"conditions": []any{map[string]any{
				"type": condition, "status": "True", "reason": "Ready", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z",
			}},
		}}}
		u.SetGroupVersionKind(v1.GroupVersion().WithKind("HostSubnet"))
		u.SetName(host)
		return c.Status().Apply(t.Context(), client.ApplyConfigurationFromUnstructured(u), client.FieldOwner("egressip-agent"), client.ForceOwnership)
	}

	t.Run("an agent", func(t *testing.T) {
		agent := a.as(t, a.tokenOf(t, "egressip-agent", "node1"))
		// A policy takes a moment until it is in force.
		testenv.Eventually(t, func(context.Context) string {
			if err := report(agent, "node2", v1.ConditionAgentReady); !apierrors.IsForbidden(err) ||
				!strings.Contains(err.Error(), `the agent of node "node1" may write the status of that node's HostSubnet only, not of "node2"`) {
				return fmt.Sprintf("writing the status of another node: %v, want a refusal by the policy", err)
			}
			return ""
		})
		if err := report(agent, "node1", v1.ConditionAgentReady); err != nil {
			t.Errorf("writing its own status: %v", err)
		}
		if err := report(agent, "node1", v1.ConditionOnline); !apierrors.IsForbidden(err) {
			t.Errorf("judging its own host: %v, want Forbidden", err)
		}
		for what, err := range map[string]error{
			"claiming":           agent.Patch(t.Context(), hostSubnet("node1"), client.RawPatch("application/merge-patch+json", []byte(`{"egressIPs":["192.168.7.200"]}`))),
			"picking witnesses":  agent.Status().Patch(t.Context(), hostSubnet("node1"), client.RawPatch("application/merge-patch+json", []byte(`{"status":{"witnesses":["node2"]}}`))),
			"requesting":         agent.Patch(t.Context(), netNamespace("shop"), client.RawPatch("application/merge-patch+json", []byte(`{"egressIPs":["192.168.7.200"]}`))),
			"deleting":           agent.Delete(t.Context(), hostSubnet("node1")),
			"reading secrets":    agent.List(t.Context(), &corev1.SecretList{}),
			"reading nodes":      agent.List(t.Context(), &corev1.NodeList{}),
			"writing EgressIPs":  agent.Delete(t.Context(), &ovnv1.EgressIP{ObjectMeta: metav1.ObjectMeta{Name: "prod"}}),
			"writing namespaces": agent.Delete(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}),
		} {
			if !apierrors.IsForbidden(err) {
				t.Errorf("%s: %v, want Forbidden", what, err)
			}
		}
		for _, list := range []client.ObjectList{&v1.HostSubnetList{}, &v1.NetNamespaceList{}, &ovnv1.EgressIPList{}, &corev1.PodList{}, &corev1.NamespaceList{}} {
			if err := agent.List(t.Context(), list); err != nil {
				t.Errorf("list %T: %v", list, err)
			}
		}
	})

	t.Run("the samples apply", func(t *testing.T) {
		if out, err := a.kubectl(t, "", "apply", "-f", "../config/samples"); err != nil {
			t.Errorf("kubectl apply -f config/samples: %v\n%s", err, out)
		}
	})

	t.Run("a user who is admin of a project", func(t *testing.T) {
		out, err := a.kubectl(t, "", "create", "clusterrolebinding", "project-admin", "--clusterrole=admin", "--user=ann")
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		cfg := rest.CopyConfig(a.cfg)
		cfg.Impersonate = rest.ImpersonationConfig{UserName: "ann"}
		ann := a.as(t, cfg)
		for _, object := range []client.Object{netNamespace("shop"), hostSubnet("node1")} {
			err := ann.Patch(t.Context(), object, client.RawPatch("application/merge-patch+json", []byte(`{"egressIPs":["192.168.7.200"]}`)))
			if !apierrors.IsForbidden(err) {
				t.Errorf("patch of %T by a project's admin: %v, want Forbidden", object, err)
			}
		}
	})
}
