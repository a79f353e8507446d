package main

import (
	"bytes"
	"errors"
	"regexp"
	"strings"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// Kills the mutants one-report-is-inside, cni-alone-is-inside and services-are-known.
func TestNetworks(t *testing.T) {
	t.Parallel()
	o := given()
	o.HostSubnets[0].Subnet = "10.244.0.0/24"
	o.HostSubnets[1].Status.Agent.PodNetworks = []string{"10.9.1.0/24", "10.9.2.7/32"}
	o.HostSubnets[1].Status.Agent.Addresses = []string{"172.17.0.1"}
	o.HostSubnets[1].Status.Agent.PodNetworksMissing = "Pod shop/a is nowhere."
	o.HostSubnets[1].Status.Placement = &v1.PlacementStatus{PodNetworks: []string{"10.9.1.0/24"}, Capacity: 10}
	o.HostSubnets[0].Status.FoundNetworks = []v1.FoundNetwork{
		{CIDR: "10.8.0.0/16", Source: "IPPool a (crd.projectcalico.org)", Use: v1.UsePods},
		{CIDR: "10.0.0.0/8", Source: "IPPool wide (crd.projectcalico.org)", Use: v1.UsePods},
		{CIDR: "10.96.0.1/32", Source: "Service default/kubernetes", Use: v1.UseServices},
		{CIDR: "10.1.8.5/32", Source: "EndpointSlice default/kubernetes", Use: v1.UseAPIServers},
		{CIDR: "10.1.8.6/32", Source: "EndpointSlice default/kubernetes, a while ago", Use: v1.UseAPIServers},
		{CIDR: "10.7.1.0/24", Source: "CiliumNode node1 (cilium.io)", Use: v1.UseNodePods},
		{CIDR: "10.244.0.0/25", Source: "CiliumNode node1 (cilium.io)", Use: v1.UseNodePods},
		{CIDR: "10.8.1.0/26", Source: "BlockAffinity b (crd.projectcalico.org)", Use: v1.UseNodePods},
		{CIDR: "fd00:7::/64", Source: "CiliumNode node1 (cilium.io)", Use: v1.UseNodePods},
		{CIDR: "fd00:8::/48", Source: "IPPool six (crd.projectcalico.org)", Use: v1.UsePods},
		{CIDR: "10.8", Source: "IPPool bad (crd.projectcalico.org)", Use: v1.UsePods, Problem: "it is not a network"},
	}
	o.HostSubnets[1].Status.FoundNetworks = o.HostSubnets[0].Status.FoundNetworks[:3]
	var out bytes.Buffer
	if err := networks(&out, o, facts{servicesErr: errors.New("no such kind")}); err != nil {
		t.Fatal(err)
	}
	check(t, squeeze(out.String()), []string{
		"NETWORK SOURCE HOST INSIDE WHY NOT\n",
		"10.1.8.11/32 hostIP node1 yes -\n",
		"10.244.0.0/24 podCIDR node1 yes -\n",
		"10.9.1.0/24 pods node2 yes -\n",
		"10.9.2.7/32 pods node2 no only the agent reports it\n",
		"172.17.0.1/32 address node2 no only the agent reports it\n",
		"10.8.0.0/16 IPPool a (crd.projectcalico.org) - yes -\n",
		"10.0.0.0/8 IPPool wide (crd.projectcalico.org) - no it has the address of a host",
		"10.96.0.1/32 Service default/kubernetes - yes -\n",
		"10.1.8.5/32 EndpointSlice default/kubernetes - yes -\n",
		"10.1.8.6/32 EndpointSlice default/kubernetes, a while ago - no the API server there is gone or down",
		"10.7.1.0/24 CiliumNode node1 (cilium.io) node1 no only the CNI says so",
		"10.244.0.0/25 CiliumNode node1 (cilium.io) node1 yes -\n",
		"10.8.1.0/26 BlockAffinity b (crd.projectcalico.org) node1 yes -\n",
		"fd00:7::/64 CiliumNode node1 (cilium.io) node1 no only the CNI says so",
		"fd00:8::/48 IPPool six (crd.projectcalico.org) - yes -\n",
		"10.8 IPPool bad (crd.projectcalico.org) - no it is not a network\n",
		"\nnode2: Pod shop/a is nowhere.\n",
		"Networks of services: none is known here (no such kind)",
	}, nil)
	if n := strings.Count(out.String(), "IPPool a"); n != 1 {
		t.Errorf("a pool that two HostSubnets carry is shown %d times", n)
	}
	out.Reset()
	services := facts{services: []networkingv1.ServiceCIDR{{
		ObjectMeta: metav1.ObjectMeta{Name: "kubernetes"}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{"10.96.0.0/16"}},
	}}}
	if err := networks(&out, o, services); err != nil {
		t.Fatal(err)
	}
	check(t, squeeze(out.String()), []string{"10.96.0.0/16 ServiceCIDR kubernetes - yes -\n"}, []string{"Networks of services"})
	out.Reset()
	if err := networks(&out, egress.Objects{}, facts{}); err != nil {
		t.Fatal(err)
	}
	check(t, out.String(), []string{"No HostSubnet names a network"}, nil)
}

// What kubeadm noted is shown, with why it does not count where it has other machines.
//
// Mutant killed: wrong-notes-are-inside.
func TestNetworksOfKubeadm(t *testing.T) {
	t.Parallel()
	o := given()
	noted := facts{kubeadm: egress.KubeadmNetworks("networking: {podSubnet: '10.0.0.0/8,10.128.0.0/9', serviceSubnet: 10.96.0.0/12}")}
	var out bytes.Buffer
	if err := networks(&out, o, noted); err != nil {
		t.Fatal(err)
	}
	check(t, squeeze(out.String()), []string{
		"10.0.0.0/8 ConfigMap kube-system/kubeadm-config - no it has the address of a host",
		"10.128.0.0/9 ConfigMap kube-system/kubeadm-config - yes -\n",
		"10.96.0.0/12 ConfigMap kube-system/kubeadm-config - yes -\n",
	}, []string{"Networks of services", "not shown"})
	out.Reset()
	if err := networks(&out, o, facts{kubeadmErr: errors.New("forbidden")}); err != nil {
		t.Fatal(err)
	}
	check(t, out.String(), []string{"The networks of kubeadm, if there is one, are not shown: forbidden."}, nil)
}

// squeeze makes the blanks between columns one.
func squeeze(s string) string { return regexp.MustCompile(" +").ReplaceAllString(s, " ") }
