package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/testenv/apiserver"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// TestOnARealAPIServer: the plugin finds the cluster by its kubeconfig, and
// reads what is there.
func TestOnARealAPIServer(t *testing.T) {
	t.Parallel()
	env := apiserver.Start(t, apiserver.Options{CRDs: []string{filepath.Join("..", "..", "config", "crd")}})
	admin, err := env.AddUser(envtest.User{Name: "admin", Groups: []string{"system:masters"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	kubeconfig, err := admin.KubeConfig()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(path, kubeconfig, 0o600); err != nil {
		t.Fatal(err)
	}
	scheme := runtime.NewScheme()
	if err := errors.Join(v1.AddToScheme(scheme), corev1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	c, err := client.New(env.Config, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	o := given()
	for i := range o.NetNamespaces {
		if err := c.Create(t.Context(), &o.NetNamespaces[i]); err != nil {
			t.Fatal(err)
		}
	}
	for i := range o.HostSubnets {
		status := o.HostSubnets[i].Status
		if err := c.Create(t.Context(), &o.HostSubnets[i]); err != nil {
			t.Fatal(err)
		}
		o.HostSubnets[i].Status = status
		if err := c.Status().Update(t.Context(), &o.HostSubnets[i]); err != nil {
			t.Fatal(err)
		}
	}
	says := func(args ...string) string {
		t.Helper()
		var out, errOut bytes.Buffer
		cmd := rootCommand(&out, &errOut)
		cmd.SetArgs(append(args, "--kubeconfig", path))
		if err := cmd.ExecuteContext(t.Context()); err != nil || errOut.Len() > 0 {
			t.Fatalf("kubectl egressip %v: %v\n%s", args, err, errOut.String())
		}
		return out.String()
	}
	check(t, says("explain", "shop"), []string{"shop        17      10.1.8.200   node1   Active   Assigned\n"}, []string{"test"})
	check(t, says("status"), []string{"node1   10.1.8.11   manual", "Namespaces: 3, with requests: 2"}, nil)
	// Before Kubernetes 1.33 a cluster does not say which networks its services are in.
	services, none := "ServiceCIDR kubernetes - yes -\n", "Networks of services: none is known"
	if !servesServiceCIDRs(t, c) {
		services, none = none, services
	}
	check(t, squeeze(says("networks")), []string{"10.1.8.12/32 hostIP node2 yes -\n", services}, []string{none, "kubeadm"})
	note := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: egress.KubeadmConfigMap},
		Data:       map[string]string{egress.KubeadmKey: "networking: {podSubnet: 10.244.0.0/16}"},
	}
	if err := c.Create(t.Context(), note); err != nil {
		t.Fatal(err)
	}
	check(t, squeeze(says("networks")), []string{"10.244.0.0/16 ConfigMap kube-system/kubeadm-config - yes -\n"}, nil)
}

func servesServiceCIDRs(t *testing.T, c client.Client) bool {
	t.Helper()
	_, err := c.RESTMapper().RESTMapping(schema.GroupKind{Group: "networking.k8s.io", Kind: "ServiceCIDR"}, "v1")
	if err != nil && !meta.IsNoMatchError(err) {
		t.Fatal(err)
	}
	return err == nil
}
