package main

import (
	"bytes"
	"testing"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// Kills the mutant that takes what one agent reports for inside.
func TestNetworks(t *testing.T) {
	t.Parallel()
	o := given()
	o.HostSubnets[0].Subnet = "10.244.0.0/24"
	o.HostSubnets[1].Status.Agent.PodNetworks = []string{"10.9.1.0/24", "10.9.2.7/32"}
	o.HostSubnets[1].Status.Agent.Addresses = []string{"172.17.0.1"}
	o.HostSubnets[1].Status.Agent.PodNetworksMissing = "Pod shop/a is nowhere."
	o.HostSubnets[1].Status.Placement = &v1.PlacementStatus{PodNetworks: []string{"10.9.1.0/24"}, Capacity: 10}
	var out bytes.Buffer
	if err := networks(&out, o); err != nil {
		t.Fatal(err)
	}
	check(t, out.String(), []string{
		"NETWORK         SOURCE    HOST    INSIDE   WHY NOT\n",
		"10.1.8.11/32    hostIP    node1   yes      -\n",
		"10.244.0.0/24   podCIDR   node1   yes      -\n",
		"10.9.1.0/24     pods      node2   yes      -\n",
		"10.9.2.7/32     pods      node2   no       only the agent reports it\n",
		"172.17.0.1/32   address   node2   no       only the agent reports it\n",
		"\nnode2: Pod shop/a is nowhere.\n",
	}, nil)
	out.Reset()
	if err := networks(&out, egress.Objects{}); err != nil {
		t.Fatal(err)
	}
	check(t, out.String(), []string{"No HostSubnet names a network"}, nil)
}
