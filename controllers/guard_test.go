package controllers_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
)

const system = "egressip-system"

// apply applies manifests of config/.
func (a *api) apply(t *testing.T, files ...string) {
	t.Helper()
	for _, file := range files {
		manifest, err := os.ReadFile(filepath.Join("..", "config", file))
		if err != nil {
			t.Fatal(err)
		}
		if out, err := a.kubectl(t, string(manifest), "apply", "-f", "-"); err != nil {
			t.Fatalf("kubectl apply -f %s: %v\n%s", file, err, out)
		}
	}
}

// as returns a client with the token that a pod of the service account on that
// node gets.
func (a *api) as(t *testing.T, account, node string) client.Client {
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
	c, err := client.New(cfg, client.Options{Scheme: a.Scheme()})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestGuardRails: who may write what, with the manifests that are installed.
func TestGuardRails(t *testing.T) {
	a := startAPI(t)
	a.apply(t, "default/namespace.yaml", "rbac/rbac.yaml", "admission/policy.yaml")
	for i, name := range []string{"node1", "node2"} {
		a.create(t, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}})
		h := hostSubnet(name)
		h.Host, h.HostIP = name, fmt.Sprintf("192.168.7.%d", 11+i)
		a.create(t, h)
	}
	n := netNamespace("shop")
	n.NetName = "shop"
	a.create(t, n)
	report := func(c client.Client, host, status string) error {
		return c.Status().Patch(t.Context(), hostSubnet(host), client.RawPatch("application/merge-patch+json", []byte(status)))
	}
	const agentReport = `{"status": {"agent": {"version": "1", "uplinkCIDR": "192.168.7.11/24"}, "conditions": [
		{"type": "AgentReady", "status": "True", "reason": "Ready", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}}`

	t.Run("an agent", func(t *testing.T) {
		agent := a.as(t, "egressip-agent", "node1")
		// A policy takes a moment until it is in force.
		eventually(t, func(context.Context) string {
			if err := report(agent, "node2", agentReport); !apierrors.IsForbidden(err) ||
				!strings.Contains(err.Error(), `the agent of node "node1" may write the status of that node's HostSubnet only, not of "node2"`) {
				return fmt.Sprintf("writing the status of another node: %v, want a refusal by the policy", err)
			}
			return ""
		})
		if err := report(agent, "node1", agentReport); err != nil {
			t.Errorf("writing its own status: %v", err)
		}
		if err := report(agent, "node1", strings.ReplaceAll(agentReport, "AgentReady", "Online")); !apierrors.IsForbidden(err) {
			t.Errorf("judging its own host: %v, want Forbidden", err)
		}
		for what, err := range map[string]error{
			"claiming":           agent.Patch(t.Context(), hostSubnet("node1"), client.RawPatch("application/merge-patch+json", []byte(`{"egressIPs":["192.168.7.200"]}`))),
			"requesting":         agent.Patch(t.Context(), netNamespace("shop"), client.RawPatch("application/merge-patch+json", []byte(`{"egressIPs":["192.168.7.200"]}`))),
			"deleting":           agent.Delete(t.Context(), hostSubnet("node1")),
			"reading secrets":    agent.List(t.Context(), &corev1.SecretList{}),
			"reading namespaces": agent.List(t.Context(), &corev1.NamespaceList{}),
		} {
			if !apierrors.IsForbidden(err) {
				t.Errorf("%s: %v, want Forbidden", what, err)
			}
		}
		for _, list := range []client.ObjectList{&v1.HostSubnetList{}, &v1.NetNamespaceList{}, &corev1.PodList{}} {
			if err := agent.List(t.Context(), list); err != nil {
				t.Errorf("list %T: %v", list, err)
			}
		}
	})

	t.Run("the controller works with its rights, and has no more", func(t *testing.T) {
		controller := a.as(t, "egressip-controller", "node1")
		if err := controller.List(t.Context(), &corev1.SecretList{}); !apierrors.IsForbidden(err) {
			t.Errorf("reading secrets: %v, want Forbidden", err)
		}
		if err := controller.Delete(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node1"}}); !apierrors.IsForbidden(err) {
			t.Errorf("deleting a Node: %v, want Forbidden", err)
		}
	})

	t.Run("a user who is admin of a project", func(t *testing.T) {
		out, err := a.kubectl(t, "", "create", "clusterrolebinding", "project-admin", "--clusterrole=admin", "--user=ann")
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		cfg := rest.CopyConfig(a.cfg)
		cfg.Impersonate = rest.ImpersonationConfig{UserName: "ann"}
		ann, err := client.New(cfg, client.Options{Scheme: a.Scheme()})
		if err != nil {
			t.Fatal(err)
		}
		for _, object := range []client.Object{netNamespace("shop"), hostSubnet("node1")} {
			err := ann.Patch(t.Context(), object, client.RawPatch("application/merge-patch+json", []byte(`{"egressIPs":["192.168.7.200"]}`)))
			if !apierrors.IsForbidden(err) {
				t.Errorf("patch of %T by a project's admin: %v, want Forbidden", object, err)
			}
		}
	})
}
