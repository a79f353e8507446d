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
	options := testbed.Options{Prefix: "e2e" + string(backend)[:3], Backend: backend}
	// One of the two suites has nodes and pods with IPv6, the other one a link of its own to
	// each pod, without a bridge.
	if backend == testbed.NFT {
		options.DualStack = true
	} else {
		options.CNI = testbed.PTP
	}
	b := newBedOf(t, options)
	b.values = append(b.values, "agent.egressInterfaces={eth*}") // of the test bed, they are veths
	if backend == testbed.NFT {
		b.values = append(b.values, "agent.announceInterval="+asksEvery.String())
	}
	if backend == testbed.Legacy {
		// As WireGuard and some CNIs set it: reverse path filtering, strict
		// here, then looks at marks too. One of the two suites has it.
		for _, n := range b.Nodes() {
			if _, err := b.NodeExec(t.Context(), n, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/conf/all/src_valid_mark"); err != nil {
				t.Fatal(err)
			}
		}
	}
	b.before = b.snapshots(t)
	b.install(t)
	if !inOrder(t, step{"a namespace leaves with its egress IP", b.testStory}) {
		return
	}
	// One suite is enough for what is about the API more than about the kernel.
	api := backend == testbed.NFT
	if api && !inOrder(
		t,
		step{"the columns are those of OpenShift", b.testColumns},
		step{"what cannot be is refused by kubectl", b.testRefusals},
		step{"kubectl egressip history says who has the address", b.testHistory},
		step{"pods with egress IPs do not leave by IPv6", b.testIPv6},
		step{"a namespace leaves with egress IPs of both families", b.testServe6},
		step{"connections from outside by IPv6 are left alone", b.by(ipv6(), b.testInbound)},
		step{"another machine has an egress IP of IPv6", b.by(ipv6(), b.testTaken)},
		step{"hosts with egressCIDRs get what is requested", b.testAutomatic},
		step{"who may write what", b.testRights},
	) {
		return
	}
	// What both suites play, one of them plays by IPv6.
	either := b.family
	if options.DualStack {
		either = ipv6()
	}
	if !inOrder(
		t,
		step{"kubectl egressip explain asks the kernels", b.testLive},
		step{"every kind of packet", b.testPackets},
		step{"a new pod leaves with its egress IP from its first packet on", b.testNewPods},
		step{"connections from outside are left alone", b.testInbound},
		step{"traffic inside the cluster is left alone", b.testInside},
		step{"two namespaces that request one egress IP are dropped", b.by(either, b.testConflict)},
		step{"several egress IPs in balance", b.testBalanced},
		// Well before nodes are compared: their agents forget an interface that has gone within ten
		// seconds.
		step{"an egress IP of a second network leaves there", b.by(ipv4(), b.testSecondNetwork)},
		step{"egress IPs apply to some destinations", b.by(either, b.testDestinations)},
		step{"an EgressIP gives pods that it selects their egress IPs", b.by(either, b.testEgressIP)},
		step{"drift is repaired", b.testDrift},
		step{"an agent that is killed loses no connection", b.testAgentRestart},
		step{"removing leaves every node as it was", b.testRemoval},
	) {
		return
	}
	// Installed again, for tests after which a node cannot be compared: power cuts.
	b.install(t)
	if api && !inOrder(
		t,
		step{"probes that are blocked take nothing away", b.testProbesBlocked},
		step{"a stale Node takes no address", b.testStaleNode},
		step{"an automatic host without an agent gets nothing", b.testNoAgent},
		step{"a Node that registers again gets its settings back", b.testNodeAgain},
		step{"a leader that was paused writes no claims", b.testLeaderPaused},
		step{"a leader that reaches the API server alone takes nothing away", b.testLeaderSeesNobody},
		step{"a leader that the API server is cut off from is replaced", b.testAPIServerGone},
		step{"a backup is restored", b.testBackup},
		step{"a host is evacuated", b.testEvacuation},
		step{"an egress IP moves when its host and the leader on it lose power", b.testPowerCutOfTheLeader},
		step{"an egress IP of IPv6 moves when its host loses power", b.testPowerCut6},
	) {
		return
	}
	inOrder(
		t,
		step{"a host that is cut off gives its egress IPs up", b.by(either, b.testCutOff)},
		step{"an egress IP moves when its host loses power", b.testPowerCut},
		step{"a host whose overlay is closed is not used", b.testOverlayClosed},
		step{"of several egress IPs the first is used", b.by(either, b.testOrdered)},
	)
}

// step is one test of the suite.
type step struct {
	name string
	run  func(*testing.T)
}

// inOrder runs tests up to the first that fails: those that follow would fail
// for the same reason, and take long.
func inOrder(t *testing.T, steps ...step) bool {
	t.Helper()
	for _, s := range steps {
		if !t.Run(s.name, s.run) {
			return false
		}
	}
	return true
}
