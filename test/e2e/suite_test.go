package e2e

import (
	"testing"

	"github.com/egressip-operator/egressip-operator/test/testbed"
)

func TestNFT(t *testing.T) { suite(t, testbed.NFT) }

func TestLegacy(t *testing.T) { suite(t, testbed.Legacy) }

// suite plays everything on one cluster: bringing it up costs more than most
// tests. Each test leaves it as it found it, so that any of them can run alone.
func suite(t *testing.T, backend testbed.Backend) {
	t.Helper()
	b := newBed(t, backend)
	if backend == testbed.Legacy {
		// As WireGuard and some CNIs set it: reverse path filtering, strict
		// here, then looks at marks too. One of the two suites has it.
		for _, n := range b.Nodes() {
			if _, err := b.NodeExec(t.Context(), n, "sysctl", "-w", "net.ipv4.conf.all.src_valid_mark=1"); err != nil {
				t.Fatal(err)
			}
		}
	}
	before := b.snapshots(t)
	b.install(t)
	for _, test := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"a namespace leaves with its egress IP", b.testStory},
		{"the columns are those of OpenShift", b.testColumns},
		{"what cannot be is refused by kubectl", b.testRefusals},
		{"every kind of packet", b.testPackets},
		{"connections from outside are left alone", b.testInbound},
		{"traffic inside the cluster is left alone", b.testInside},
		{"two namespaces that request one egress IP are dropped", b.testConflict},
		{"of several egress IPs the first is used", b.testOrdered},
		{"several egress IPs in balance", b.testBalanced},
		{"hosts with egressCIDRs get what is requested", b.testAutomatic},
		{"who may write what", b.testRights},
		{"drift is repaired", b.testDrift},
		{"an agent that is killed loses no connection", b.testAgentRestart},
	} {
		if !t.Run(test.name, test.run) {
			// What follows would fail for the same reason, and take long.
			t.Log("stopped after the first failure")
			return
		}
	}
	t.Run("removing leaves every node as it was", func(t *testing.T) { b.testRemoval(t, before) })
}
