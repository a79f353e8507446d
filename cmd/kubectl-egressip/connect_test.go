package main

import (
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	ovnv1 "github.com/egressip-operator/egressip-operator/api/ovn/v1"
)

// egressIP selects the pods of the namespace named shop.
func egressIP(name string, ips ...string) ovnv1.EgressIP {
	return ovnv1.EgressIP{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: ovnv1.EgressIPSpec{
		EgressIPs: ips, NamespaceSelector: metav1.LabelSelector{MatchLabels: map[string]string{"kubernetes.io/metadata.name": "shop"}},
	}}
}

// TestEgressIPsThatAreOurs: those of another software's definition are not shown. Who may not
// read the definition sees those that have a netid.
//
// Mutants killed: plugin-reads-foreign-egressips, plugin-believes-any-egressip.
func TestEgressIPsThatAreOurs(t *testing.T) {
	t.Parallel()
	s := startServer(t, "crd", "egressip")
	numbered, other := egressIP("ours", "10.1.8.210"), egressIP("other", "10.1.8.211")
	netID := uint32(77)
	numbered.Status.NetID = &netID
	s.create(t, &numbered, &other)
	const rows = "EgressIP/other - 10.1.8.211 - "
	check(t, squeeze(s.says(t, "explain")), []string{rows, "EgressIP/ours 77 10.1.8.210 - Unassigned NotClaimed\n"}, nil)
	check(t, squeeze(s.says(t, "explain", "egressIP/ours")), []string{"EgressIP/ours 77"}, []string{"other"})
	check(t, s.says(t, "status"), []string{"Namespaces: 0, EgressIPs: 2, with requests: 2, dropped: 2"}, nil)

	// The roles of Kubernetes for viewers say nothing about definitions.
	s.create(t, &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "egressip-view"}, Rules: []rbacv1.PolicyRule{{
		APIGroups: []string{"network.openshift.io", ovnv1.GroupName}, Verbs: []string{"list"}, Resources: []string{"netnamespaces", "hostsubnets", "egressips"},
	}}}, &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "viewer"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "egressip-view"},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: "viewer"}},
	})
	viewer := s.user(t, envtest.User{Name: "viewer"})
	out, _ := runPlugin(t, "", "explain", "--kubeconfig", viewer)
	check(t, squeeze(out), []string{"EgressIP/ours 77"}, []string{"other"})

	crd := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: ovnv1.CRDName}}
	crd.SetGroupVersionKind(schema.GroupVersionKind{Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition"})
	patch := `{"metadata": {"annotations": {"` + ovnv1.AnnotationServedBy + `": null}}}`
	if err := s.Patch(t.Context(), crd, client.RawPatch("application/merge-patch+json", []byte(patch))); err != nil {
		t.Fatal(err)
	}
	check(t, s.says(t, "explain"), []string{"No namespace and no EgressIP requests egress IPs.\n"}, []string{"ours", "other"})
}
