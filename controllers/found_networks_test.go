package controllers_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/controllers"
	"github.com/egressip-operator/egressip-operator/internal/testenv"
)

// TestNetworksThatObjectsName: what objects of CNIs and of the cluster name is published,
// with the rights of config/rbac, also of kinds that appear, go and come back while the
// controller runs. Without the rights it works, and says what it may not read.
//
// Mutants killed: kinds-are-looked-up-once, kinds-stay, one-kind-stops-all.
func TestNetworksThatObjectsName(t *testing.T) {
	a := startAPI(t)
	const namespace, account = "egressip-system", "egressip-controller"
	a.create(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}})
	if out, err := a.kubectl(t, "", "apply", "--server-side", "-k", "../config/rbac"); err != nil {
		t.Fatalf("kubectl apply -k config/rbac: %v\n%s", err, out)
	}
	var role rbacv1.ClusterRole
	if err := a.Get(t.Context(), client.ObjectKey{Name: account}, &role); err != nil {
		t.Fatal(err)
	}
	all := slices.Clone(role.Rules)
	without := func(groups ...string) {
		t.Helper()
		role.Rules = slices.DeleteFunc(slices.Clone(all), func(r rbacv1.PolicyRule) bool {
			return slices.ContainsFunc(groups, func(g string) bool { return slices.Contains(r.APIGroups, g) })
		})
		if err := a.Update(t.Context(), &role); err != nil {
			t.Fatal(err)
		}
	}
	var reads rbacv1.Role
	if err := a.Get(t.Context(), client.ObjectKey{Namespace: "default", Name: account + "-service"}, &reads); err != nil {
		t.Fatal(err)
	}
	rights := slices.Clone(reads.Rules)
	reads.Rules = rights[:1] // of Service kubernetes
	if err := a.Update(t.Context(), &reads); err != nil {
		t.Fatal(err)
	}
	without("apiextensions.k8s.io", "cilium.io")
	for i := range 5 {
		a.node(t, fmt.Sprintf("node%d", i), "", fmt.Sprintf("192.168.7.1%d", i))
	}
	a.crd(t, "crd.projectcalico.org", "v1", "ippools", "IPPool")
	a.crd(t, "cilium.io", "v2", "ciliumnodes", "CiliumNode")
	a.object(t, "{apiVersion: crd.projectcalico.org/v1, kind: IPPool, metadata: {name: pods}, spec: {cidr: 10.8.0.0/16}}")
	limited := *a
	limited.cfg = rest.CopyConfig(a.cfg)
	limited.cfg.Impersonate = rest.ImpersonationConfig{
		UserName: "system:serviceaccount:" + namespace + ":" + account,
		Groups:   []string{"system:serviceaccounts", "system:serviceaccounts:" + namespace, "system:authenticated"},
	}
	limited.controlAlone(t, controllers.Options{LeaderElection: true, LeaderElectionNamespace: namespace, FindNetworks: true})
	const pods = "Pods 10.8.0.0/16 IPPool pods (crd.projectcalico.org)"
	const service, server = "IP of Service default/kubernetes", "IP of EndpointSlice default/kubernetes"
	a.finds(t, "node0", pods, service, "? CustomResourceDefinitions: the controller cannot list them", "? EndpointSlice: the controller cannot list them")
	a.finds(t, "node3")

	// The rights are given later, one by one: the pause until that is noticed grows.
	reads.Rules = rights
	if err := a.Update(t.Context(), &reads); err != nil {
		t.Fatal(err)
	}
	without("cilium.io")
	a.finds(t, "node0", pods, service, server, "? CiliumNode (cilium.io): the controller cannot list them")
	without()
	a.finds(t, "node0", pods, service, server)
	a.object(t, "{apiVersion: cilium.io/v2, kind: CiliumNode, metadata: {name: node3}, spec: {ipam: {podCIDRs: [10.7.3.0/24, 'fd00:7:3::/64']}}}")
	a.finds(t, "node3", "NodePods 10.7.3.0/24 CiliumNode node3 (cilium.io)", "NodePods fd00:7:3::/64 CiliumNode node3 (cilium.io)")

	// A kind, and an annotation, appear later; one object is none.
	a.crd(t, "config.openshift.io", "v1", "networks", "Network")
	cluster := a.object(t, "{apiVersion: config.openshift.io/v1, kind: Network, metadata: {name: cluster}, status: {clusterNetwork: [{cidr: 10.128.0.0/14}], serviceNetwork: [x]}}")
	a.object(t, "{apiVersion: config.openshift.io/v1, kind: Network, metadata: {name: other}, status: {clusterNetwork: [{cidr: 10.132.0.0/14}]}}")
	const deployed, broken = "Pods 10.128.0.0/14 Network cluster (config.openshift.io)", "Services x Network cluster (config.openshift.io): it is not a network"
	a.finds(t, "node2", pods, service, server, deployed, broken)
	a.patch(t, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node4"}}, `{"metadata":{"annotations":{"k8s.ovn.org/node-subnets":"{\"default\":[\"10.128.4.0/23\"]}"}}}`)
	a.finds(t, "node4", "NodePods 10.128.4.0/23 annotation k8s.ovn.org/node-subnets of the Node")

	// An object changes; a kind goes with its objects, and comes back.
	pool := a.object(t, "{apiVersion: crd.projectcalico.org/v1, kind: IPPool, metadata: {name: more}, spec: {cidr: 10.6.0.0/16}}")
	a.finds(t, "node1", pods, "Pods 10.6.0.0/16 IPPool more (crd.projectcalico.org)", service, server, deployed, broken)
	a.patch(t, pool, `{"spec":{"disabled":true}}`)
	a.finds(t, "node1", pods, "Pods 10.6.0.0/16 IPPool more (crd.projectcalico.org): the pool is disabled", service, server, deployed, broken)
	if err := a.Delete(t.Context(), cluster); err != nil {
		t.Fatal(err)
	}
	definition := &unstructured.Unstructured{}
	definition.SetName("ippools.crd.projectcalico.org")
	definition.SetGroupVersionKind(apiextensionsv1.SchemeGroupVersion.WithKind("CustomResourceDefinition"))
	if err := a.Delete(t.Context(), definition); err != nil {
		t.Fatal(err)
	}
	a.finds(t, "node1", service, server)
	a.awaitGone(t, definition)
	a.crd(t, "crd.projectcalico.org", "v1", "ippools", "IPPool")
	a.object(t, "{apiVersion: crd.projectcalico.org/v1, kind: IPPool, metadata: {name: pods}, spec: {cidr: 10.8.0.0/16}}")
	a.finds(t, "node1", pods, service, server)

	more := &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: "more"}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{"10.77.0.0/24"}}}
	switch err := a.Create(t.Context(), more); {
	case apierrors.IsNotFound(err) || meta.IsNoMatchError(err): // before Kubernetes 1.33
	case err != nil:
		t.Fatal(err)
	default:
		a.finds(t, "node1", pods, service, server, "Services 10.77.0.0/24 ServiceCIDR more")
	}
}

// crd creates a CustomResourceDefinition that takes any object, and waits until the API
// server serves it.
func (a *api) crd(t *testing.T, group, version, resource, kind string) {
	t.Helper()
	preserve := true
	crd := &apiextensionsv1.CustomResourceDefinition{
		TypeMeta:   metav1.TypeMeta{APIVersion: apiextensionsv1.SchemeGroupVersion.String(), Kind: "CustomResourceDefinition"},
		ObjectMeta: metav1.ObjectMeta{Name: resource + "." + group},
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{
			Group: group, Scope: apiextensionsv1.ClusterScoped,
			Names: apiextensionsv1.CustomResourceDefinitionNames{Plural: resource, Singular: strings.ToLower(kind), Kind: kind, ListKind: kind + "List"},
			Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{
				Name: version, Served: true, Storage: true,
				Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{Type: "object", XPreserveUnknownFields: &preserve}},
			}},
		},
	}
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(crd)
	if err != nil {
		t.Fatal(err)
	}
	u := &unstructured.Unstructured{Object: content}
	unstructured.RemoveNestedField(u.Object, "status")
	a.create(t, u)
	list := &unstructured.UnstructuredList{}
	list.SetGroupVersionKind(schema.GroupVersionKind{Group: group, Version: version, Kind: kind + "List"})
	testenv.Eventually(t, func(ctx context.Context) string { return text(a.List(ctx, list)) })
}

// object creates an object.
func (a *api) object(t *testing.T, written string) *unstructured.Unstructured {
	t.Helper()
	u := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(written), &u.Object); err != nil {
		t.Fatal(err)
	}
	a.create(t, u)
	return u
}

// finds waits until a host's status has these networks and no others. Of messages the
// beginning counts, and of Service kubernetes and its endpoints that they are there.
func (a *api) finds(t *testing.T, host string, want ...string) {
	t.Helper()
	const limit = 2 * time.Minute
	wrong := testenv.Await(t.Context(), limit, func(ctx context.Context) string {
		var h v1.HostSubnet
		if err := a.Get(ctx, client.ObjectKey{Name: host}, &h); err != nil {
			return err.Error()
		}
		var got []string
		for _, f := range h.Status.FoundNetworks {
			line := f.Use + " " + f.CIDR + " " + f.Source
			switch {
			case f.Source == "ServiceCIDR kubernetes":
				continue // from Kubernetes 1.33 on
			case f.Source == "Service default/kubernetes", f.Source == "EndpointSlice default/kubernetes":
				line = "IP of " + f.Source
			case f.CIDR == "":
				line = "? " + f.Source
			}
			if f.Problem != "" {
				line += ": " + f.Problem
			}
			got = append(got, line)
		}
		same := len(got) == len(want)
		for _, w := range want {
			same = same && slices.ContainsFunc(got, func(g string) bool { return strings.HasPrefix(g, w) })
		}
		if !same {
			return fmt.Sprintf("%s has\n%s\nwant\n%s", host, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		return ""
	})
	if wrong != "" {
		t.Fatalf("still wrong after %s: %s", limit, wrong)
	}
}
