package dataplane

import (
	"net/netip"
	"testing"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
)

// given: hosts whose reverse path filter is loose, or off, or that have IPv6 alone, which has
// none, and pods that may write any source; when they send to the overlay of an egress host with
// another host's address, in the name of a namespace, then nothing leaves. What that host itself
// sends does.
//
// Mutants killed: forged-hosts-pass, forged-hosts-pass-from-bridges, ways-of-hosts-are-wrong.
func TestPodsCannotSendAsHosts(t *testing.T) {
	for _, test := range []struct {
		name, filter string
		rules        rulesOf
	}{
		{"rp_filter=0", "0", ownTable()}, {"rp_filter=2", "2", ownTable()}, {"IPv6", "0", ownTable().withoutIPv4()},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t, 3, test.rules)
			n1, n2, n3 := w.nodes[0], w.nodes[1], w.nodes[2]
			for _, n := range w.nodes {
				n.Run(t, "for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo "+test.filter+" >$f; done")
			}
			n1.host(w.eip(1), 7)
			there := n2.addPod(t, "there", 2)
			there.set(remote(7, n1))
			here, third := n1.addPod(t, "here", 3), n3.addPod(t, "third", 3)
			routed := n3.addStranger(t, "routed")
			for _, p := range []*podMachine{here, third, routed} {
				p.set(Pod{Kind: Node})
			}
			w.applyAll(t)
			there.leaves(t, w.eip(1))
			const overlay = 9789
			inner := netip.AddrPortFrom(there.ip, 1000)
			send := func(f forger, port uint16) {
				f.udp(netip.AddrPortFrom(n2.ip, 50000), netip.AddrPortFrom(n1.ip, overlay),
					forge(7, inner, netip.AddrPortFrom(bastionOf(there.ip), port)))
			}
			w.seen.only(9009)
			for _, p := range []*podMachine{here, third, routed} {
				f := newForger(t, p.machine, n1.ip)
				for range 5 {
					send(f, 9009)
				}
			}
			w.linger(t)
			w.seen.only(9010, w.eip(1))
			f := newForger(t, n2.machine, n1.ip)
			testenv.UntilWithin(t, patience, "what the host itself sends", func() bool {
				send(f, 9010)
				return w.seen.from(9010, w.eip(1)) > 0
			})
		})
	}
}
