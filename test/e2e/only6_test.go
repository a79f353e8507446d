package e2e

import (
	"os"
	"testing"

	"github.com/egressip-operator/egressip-operator/test/testbed"
)

// TestIPv6Only plays the main job in a cluster where nothing has an address of IPv4: nodes,
// pods, Services, the API server and the machines outside have those of IPv6 alone. Pods of
// other namespaces, with and without an egress IP, send all the time.
//
// It runs where EGRESSIP_TEST_IPV6_ONLY is set, as a cluster of its own takes minutes. TestNFT
// plays many of the steps by IPv6, on nodes with both families.
func TestIPv6Only(t *testing.T) {
	if os.Getenv("EGRESSIP_TEST_IPV6_ONLY") == "" {
		t.Skip("EGRESSIP_TEST_IPV6_ONLY is not set: see \"make ipv6-only\"")
	}
	b := newBedOf(t, testbed.Options{Prefix: "e2esix", IPv6Only: true})
	b.before = b.snapshots(t)
	b.install(t)
	probers := b.probers(t)
	if !inOrder(
		t,
		step{"a namespace leaves with its egress IP", b.testStory},
		step{"every kind of packet", b.testPackets},
		step{"connections from outside are left alone", b.testInbound},
		step{"traffic inside the cluster is left alone", b.testInside},
		step{"an agent that is killed loses no connection", b.testAgentRestart},
		step{"pods beside all that always leave with their own address", probers.verify},
		step{"removing leaves every node as it was", b.testRemoval},
	) {
		return
	}
	// Installed again, as after a power cut a node cannot be compared; and with the boot lock:
	// pods of the node send from its boot on, before it has an agent.
	b.values = append(b.values, "agent.bootLock.enabled=true", "clusterCIDRs={"+testbed.ClusterCIDRv6+"}", "serviceCIDRs={"+testbed.ServiceCIDRv6+"}")
	b.install(t)
	probers = b.probers(t)
	inOrder(
		t,
		step{"an egress IP moves when its host loses power", b.testPowerCut},
		step{"pods beside a power cut always leave with their own address", probers.verify},
	)
}
