package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	ovnv1 "github.com/egressip-operator/egressip-operator/api/ovn/v1"
	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/testenv/apiserver"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// server is an API server with our CRDs, and what the plugin says there.
type server struct {
	env *envtest.Environment
	client.Client
	// kubeconfig is the administrator's.
	kubeconfig string
}

func startServer(t *testing.T, crds ...string) server {
	t.Helper()
	for i := range crds {
		crds[i] = filepath.Join("..", "..", "config", crds[i])
	}
	s := server{env: apiserver.Start(t, apiserver.Options{CRDs: crds})}
	s.kubeconfig = s.user(t, envtest.User{Name: "admin", Groups: []string{"system:masters"}})
	scheme := runtime.NewScheme()
	if err := errors.Join(v1.AddToScheme(scheme), ovnv1.AddToScheme(scheme), corev1.AddToScheme(scheme), rbacv1.AddToScheme(scheme), coordinationv1.AddToScheme(scheme), appsv1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	c, err := client.New(s.env.Config, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	s.Client = c
	return s
}

// user returns the path of a new user's kubeconfig.
func (s *server) user(t *testing.T, u envtest.User) string {
	t.Helper()
	added, err := s.env.AddUser(u, nil)
	if err != nil {
		t.Fatal(err)
	}
	kubeconfig, err := added.KubeConfig()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(path, kubeconfig, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// create creates the objects with their status.
func (s *server) create(t *testing.T, objects ...client.Object) {
	t.Helper()
	for _, object := range objects {
		withStatus := object.DeepCopyObject().(client.Object)
		if err := s.Create(t.Context(), object); err != nil {
			t.Fatal(err)
		}
		switch object.(type) {
		case *v1.HostSubnet, *ovnv1.EgressIP:
			withStatus.SetResourceVersion(object.GetResourceVersion())
			if err := s.Status().Update(t.Context(), withStatus); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// says is what the plugin prints, as the administrator.
func (s *server) says(t *testing.T, args ...string) string {
	t.Helper()
	out, report := runPlugin(t, "", append(args, "--kubeconfig", s.kubeconfig)...)
	if report != "" {
		t.Fatalf("kubectl egressip %v: %s", args, report)
	}
	return out
}

// runPlugin returns what the plugin writes to stdout and stderr.
func runPlugin(t *testing.T, in string, args ...string) (out, report string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := rootCommand(&stdout, &stderr)
	cmd.SetIn(strings.NewReader(in))
	cmd.SetArgs(args)
	if err := cmd.ExecuteContext(t.Context()); err != nil {
		t.Fatalf("kubectl egressip %v: %v\n%s", args, err, stderr.String())
	}
	return stdout.String(), stderr.String()
}

// TestOnARealAPIServer: the plugin finds the cluster by its kubeconfig, and
// reads what is there. That there is no definition of EgressIPs is no error.
func TestOnARealAPIServer(t *testing.T) {
	t.Parallel()
	s := startServer(t, "crd")
	o := given()
	for i := range o.NetNamespaces {
		s.create(t, &o.NetNamespaces[i])
	}
	for i := range o.HostSubnets {
		s.create(t, &o.HostSubnets[i])
	}
	check(t, s.says(t, "explain", "shop"), []string{"shop    17      10.1.8.200   node1   Active   Assigned\n"}, []string{"test"})
	check(t, s.says(t, "status"), []string{"node1   10.1.8.11   manual", "Namespaces: 3, EgressIPs: 0, with requests: 2"}, nil)
	// Before Kubernetes 1.33 a cluster does not say which networks its services are in.
	services, none := "ServiceCIDR kubernetes - yes -\n", "Networks of services: none is known"
	if !servesServiceCIDRs(t, s) {
		services, none = none, services
	}
	check(t, squeeze(s.says(t, "networks")), []string{"10.1.8.12/32 hostIP node2 yes -\n", services}, []string{none, "kubeadm"})
	note := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: egress.KubeadmConfigMap},
		Data:       map[string]string{egress.KubeadmKey: "networking: {podSubnet: 10.244.0.0/16}"},
	}
	s.create(t, note)
	check(t, squeeze(s.says(t, "networks")), []string{"10.244.0.0/16 ConfigMap kube-system/kubeadm-config - yes -\n"}, nil)
}

func servesServiceCIDRs(t *testing.T, c client.Client) bool {
	t.Helper()
	_, err := c.RESTMapper().RESTMapping(schema.GroupKind{Group: "networking.k8s.io", Kind: "ServiceCIDR"}, "v1")
	if err != nil && !meta.IsNoMatchError(err) {
		t.Fatal(err)
	}
	return err == nil
}

func clientKey(name string) client.ObjectKey { return client.ObjectKey{Name: name} }

// definition is a CustomResourceDefinition, to patch.
func definition(name string) *metav1.PartialObjectMetadata {
	crd := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: name}}
	crd.SetGroupVersionKind(schema.GroupVersionKind{Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition"})
	return crd
}

func mergePatch(text string) client.Patch { return client.RawPatch(types.MergePatchType, []byte(text)) }
