package dataplane

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
)

// given: hosts whose reverse path filter is loose, or off, and pods that may write any source;
// when they send to the overlay of an egress host with another host's address, in the name of
// a namespace, then nothing leaves. What that host itself sends does.
//
// Mutants killed: forged-hosts-pass, forged-hosts-pass-from-bridges, ways-of-hosts-are-wrong.
func TestPodsCannotSendAsHosts(t *testing.T) {
	for _, filter := range []string{"0", "2"} {
		t.Run("rp_filter="+filter, func(t *testing.T) {
			w := newWorld(t, 3, ownTable())
			n1, n2, n3 := w.nodes[0], w.nodes[1], w.nodes[2]
			for _, n := range w.nodes {
				n.Run(t, "for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo "+filter+" >$f; done")
			}
			n1.host(eip1, 7)
			there := n2.addPod(t, "there", 2)
			there.set(remote(7, n1))
			here, third := n1.addPod(t, "here", 3), n3.addPod(t, "third", 3)
			routed := n3.addRoutedPod(t, "routed", 4)
			for _, p := range []*podMachine{here, third, routed} {
				p.set(Pod{Kind: Node})
			}
			w.applyAll(t)
			there.leaves(t, eip1)
			const overlay = 9789
			inner := netip.AddrPortFrom(there.ip, 1000)
			packet := func(port uint16) []byte {
				return datagramOf(netip.AddrPortFrom(n2.ip, 50000), netip.AddrPortFrom(n1.ip, overlay),
					forge(7, inner, netip.AddrPortFrom(testenv.Addr(bastionIP), port)))
			}
			w.seen.only(9009)
			for _, p := range []*podMachine{here, third, routed} {
				f := newForger(t, p.machine)
				for range 5 {
					f.send(n2.ip, n1.ip, unix.IPPROTO_UDP, packet(9009))
				}
			}
			w.linger(t)
			w.seen.only(9010, eip1)
			f := newForger(t, n2.machine)
			testenv.UntilWithin(t, patience, "what the host itself sends", func() bool {
				f.send(n2.ip, n1.ip, unix.IPPROTO_UDP, packet(9010))
				return w.seen.from(9010, eip1) > 0
			})
		})
	}
}
