package matrix

import (
	"fmt"
	"strings"

	"github.com/egressip-operator/egressip-operator/test/testbed"
)

// Variable names the environment variable by which TestCell of test/e2e is given its cell.
const Variable = "EGRESSIP_CELL"

// Nodes names the one by which it is given the number of nodes, if that is not the usual three.
const Nodes = "EGRESSIP_NODES"

// Cell is a combination to try.
type Cell struct {
	CNI   testbed.CNI
	Proxy testbed.ProxyMode
	// Node is the backend of the rules that CNI and kube-proxy make by iptables.
	Node testbed.Backend
	// Rules is the operator's --backend: "nftables" or "iptables".
	Rules string
	// IPv6: nodes and pods have both families, and the suite is played by IPv6.
	IPv6 bool
}

// Name of the cell, as in "flannel+nftables" (CNI and kube-proxy); what is unusual follows.
func (c Cell) Name() string {
	name := fmt.Sprintf("%s+%s", c.CNI, c.Proxy)
	if c.Node == testbed.Legacy {
		name += "+legacy"
	}
	if c.Rules != "nftables" {
		name += "+" + c.Rules + "-rules"
	}
	if c.IPv6 {
		name += "+ipv6"
	}
	return name
}

// Elsewhere reports whether the cell needs what the kernel of a test machine may lack: it is played
// in a virtual machine, by test/kernels.
func (c Cell) Elsewhere() bool { return c.Proxy == testbed.ProxyIPVS }

// Cells are the combinations that "make matrix" tries: each CNI with each mode of kube-proxy
// that its rules may meet, and the operator's rules in iptables where others work on the same
// tables and sets.
func Cells() []Cell {
	const nftables, iptables = "nftables", "iptables"
	return []Cell{
		{testbed.Bridge, testbed.ProxyIPTables, testbed.NFT, nftables, false},
		{testbed.Bridge, testbed.ProxyNFTables, testbed.NFT, nftables, false},
		{testbed.Bridge, testbed.ProxyIPVS, testbed.NFT, nftables, false},
		{testbed.Bridge, testbed.ProxyIPTables, testbed.Legacy, iptables, false},
		{testbed.Bridge, testbed.ProxyIPTables, testbed.NFT, iptables, true},
		{testbed.Bridge, testbed.ProxyIPTables, testbed.Legacy, iptables, true},
		{testbed.PTP, testbed.ProxyIPTables, testbed.NFT, nftables, false},
		{testbed.PTP, testbed.ProxyNFTables, testbed.NFT, nftables, true},
		{testbed.PTP, testbed.ProxyNFTables, testbed.NFT, nftables, false},
		{testbed.Flannel, testbed.ProxyIPTables, testbed.NFT, nftables, false},
		{testbed.Flannel, testbed.ProxyIPTables, testbed.NFT, iptables, false},
		{testbed.Flannel, testbed.ProxyNFTables, testbed.NFT, nftables, false},
		{testbed.FlannelHostGW, testbed.ProxyIPTables, testbed.NFT, nftables, false},
		{testbed.FlannelNFT, testbed.ProxyNFTables, testbed.NFT, nftables, false},
		{testbed.KubeRouter, testbed.ProxyIPTables, testbed.NFT, nftables, false},
		{testbed.KubeRouter, testbed.ProxyIPTables, testbed.NFT, iptables, false},
		{testbed.KubeRouter, testbed.ProxyNFTables, testbed.NFT, nftables, false},
	}
}

// Find returns the cell of a name.
func Find(name string) (Cell, error) {
	var names []string
	for _, c := range Cells() {
		if c.Name() == name {
			return c, nil
		}
		names = append(names, c.Name())
	}
	return Cell{}, fmt.Errorf("no cell %q: want one of %s", name, strings.Join(names, ", "))
}

// Step is one question to a cell.
type Step struct {
	// Key is the head of its column.
	Key string
	// Name is that of its test.
	Name string
}

// Steps are the questions, in the order in which TestCell asks them.
func Steps() []Step {
	return []Step{
		{"story", "a namespace leaves with its egress IP"},
		{"packets", "every kind of packet"},
		{"inside", "traffic inside the cluster is left alone"},
		{"inbound", "connections from outside are left alone"},
		{"restart", "an agent that is killed loses no connection"},
		{"drift", "drift is repaired"},
		{"beside", "no namespace beside suffers"},
		{"removal", "removing leaves every node as it was"},
		{"failover", "an egress IP moves when its host loses power"},
	}
}
