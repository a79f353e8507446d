package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/address"
	"github.com/egressip-operator/egressip-operator/test/testbed"
)

// families are those that nodes, pods and egress IPs of a run have.
type families struct{ ipv4, ipv6 bool }

// of returns what there is of the run's families, of that of each.
func (f families) of(ipv4, ipv6 []string) []string {
	var all []string
	if f.ipv4 {
		all = append(all, ipv4...)
	}
	if f.ipv6 {
		all = append(all, ipv6...)
	}
	return slices.Clip(all)
}

// joined is of, as flags of Kubernetes take it.
func (f families) joined(ipv4, ipv6 string) string {
	return strings.Join(f.of([]string{ipv4}, []string{ipv6}), ",")
}

// first is the family of nodes' first addresses.
func (f families) first() family {
	if f.ipv4 {
		return family{table: "ip", ip: []string{"ip", "-4"}, cluster: testbed.ClusterCIDR, host: "/32", node: "/24", eip: "label eth0:eip"}
	}
	return family{
		table: "ip6", ip: []string{"ip", "-6"}, cluster: testbed.ClusterCIDRv6, host: "/128", node: "/64",
		added: []string{"nodad"}, eip: fmt.Sprintf("metric %d", address.Metric),
	}
}

// family is what commands about addresses of it have.
type family struct {
	// table is the family of tables in nftables, ip the command.
	table string
	ip    []string
	// cluster is the network of all pods, host and node are the prefix lengths of one address and of
	// the LAN.
	cluster, host, node string
	// added is what follows an address that is added.
	added []string
	// eip is by what egress IPs on an uplink are known, and what such an address is added with.
	eip string
}
