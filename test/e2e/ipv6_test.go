package e2e

import (
	"fmt"
	"testing"

	"github.com/egressip-operator/egressip-operator/test/testbed"
)

// bastionURL6 is bastionURL for IPv6.
func bastionURL6() string {
	return fmt.Sprintf("http://[%s]:%d", testbed.BastionIPv6, testbed.BastionPort)
}

// testIPv6: a pod whose namespace requests egress IPs, all of them of IPv4, does not leave by
// IPv6, and all that stays inside the cluster goes on. Other pods do not notice.
func (b *bed) testIPv6(t *testing.T) {
	b.leave6(t, b.egress)
	b.givenEgressIP(t)
	k, err := b.Capture(t.Context(), testbed.Bastion, "eth0", func(p testbed.Packet) bool { return !p.Outgoing && p.Source.Addr().Is6() })
	if err != nil {
		t.Fatal(err)
	}
	b.unanswered(t, b.egress, "get "+bastionURL6(), fmt.Sprintf("udp [%s]:%d", testbed.BastionIPv6, testbed.BastionPort), "ping "+testbed.BastionIPv6)
	for _, from := range b.egress {
		for _, to := range b.plain {
			b.sees(t, from, fmt.Sprintf("http://[%s]:8080/", to.IPv6), from.IPv6.String())
		}
	}
	packets, err := k.Stop()
	if err != nil || len(packets) > 0 {
		t.Errorf("the bastion got %d packets by IPv6, %v: such as %+v", len(packets), err, packets[:min(1, len(packets))])
	}
	b.leave6(t, b.plain)
	for _, p := range b.egress {
		b.eventually(t, func() error { return b.hasField(t, "hostsubnet", p.Node, "{.status.agent.ipv6}", "Dropped") })
	}
	// For those who want egress IPs for IPv4 alone.
	const annotation = "egressip.network.openshift.io/other-family"
	annotate := func(value string) {
		b.patch(t, "netnamespace", egressNamespace, fmt.Sprintf(`{"metadata": {"annotations": {%q: %s}}}`, annotation, value))
	}
	annotate(`"node"`)
	b.leave6(t, b.egress)
	b.leaveWith(t, b.egress, func(testbed.Pod) string { return egressIP4 })
	annotate("null")
	b.drop6(t, b.egress)
	b.request(t, egressNamespace)
	b.leave6(t, b.egress)
}

// drop6 waits until no pod gets an answer by IPv6.
func (b *bed) drop6(t *testing.T, pods []testbed.Pod) {
	t.Helper()
	b.awaitDropped(t, pods, bastionURL6())
}

// leave6 waits until the bastion sees each pod with its node's address of IPv6.
func (b *bed) leave6(t *testing.T, pods []testbed.Pod) {
	t.Helper()
	for _, p := range pods {
		b.sees(t, p, bastionURL6(), b.NodeIPv6(p.Node).String())
	}
}
