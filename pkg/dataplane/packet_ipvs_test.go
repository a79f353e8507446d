package dataplane

import (
	"errors"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
)

// sendAs sends a UDP packet from the machine itself with any source, which takes the
// hooks that packets of IPVS take: output and postrouting, and not forward.
func (m *machine) sendAs(t *testing.T, src, dst netip.AddrPort, payload []byte) {
	t.Helper()
	if err := newForger(t, m, dst.Addr()).send(dst.Addr(), udpPacket(src, dst, payload)); !errors.Is(err, unix.EPERM) { // a rule drops it
		must(t, err)
	}
}

// given: kube-proxy in mode ipvs, by which a pod's packet to a service goes up to hook
// input and leaves by hook output; then it has no mark of ours there, so that what comes
// after handles it as without us; a pod with an egress IP reaches no endpoint outside with
// its node's address, and no pod the overlay of another host.
//
// IPVS itself is not in every kernel: the hooks are taken one by one.
//
// Kills the mutants without a rule of chain ARRIVED or OUTPUT.
func TestServicesByIPVS(t *testing.T) {
	for _, rules := range someRules() {
		t.Run(rules.name, func(t *testing.T) {
			w := newWorld(t, 2, rules)
			n1, n2 := w.nodes[0], w.nodes[1]
			there, plain := n2.addPod(t, "there", 2), n2.addPod(t, "plain", 3)
			n1.host(eip1, 7)
			there.set(remote(7, n1))
			plain.set(Pod{Kind: Node})
			w.applyAll(t)
			n2.serveWhoami(t, ":80")
			n2.Run(t, rules.iptables()+" -A INPUT -m mark --mark 0x1000/0x1000 -j DROP")
			if from, err := there.whoami(t, n2.gateway()+":80"); err != nil || from != there.ip.String() {
				t.Fatalf("up to hook input: %q, %v", from, err)
			}

			const port = 9001
			of := func(p *podMachine) netip.AddrPort { return netip.AddrPortFrom(p.ip, 5000) }
			outside := netip.AddrPortFrom(testenv.Addr(bastionIP), port)
			w.seen.only(port, n2.ip.String())
			w.seen.only(port + 1)
			n2.sendAs(t, of(there), netip.AddrPortFrom(outside.Addr(), port+1), []byte("x"))
			n2.sendAs(t, of(plain), netip.AddrPortFrom(n1.ip, 9789), forge(7, of(there), netip.AddrPortFrom(outside.Addr(), port+1)))
			n2.sendAs(t, of(plain), outside, []byte("x"))
			testenv.UntilWithin(t, patience, "what may leave", func() bool { return w.seen.from(port, n2.ip.String()) > 0 })
			w.linger(t)
			if !rules.table() || rules.shared { // others can take the lock of stage mangle away
				n2.Run(t, rules.flush("mangle", ""))
				n2.sendAs(t, of(there), netip.AddrPortFrom(outside.Addr(), port+1), []byte("x"))
				w.linger(t)
				w.applyAll(t)
			}

			near := n1.addPod(t, "near", 2)
			seen := near.receiveUDP(t, port)
			n2.sendAs(t, of(there), netip.AddrPortFrom(near.ip, port), []byte("inside"))
			testenv.UntilWithin(t, patience, "what is inside", func() bool { return len(seen.of("inside")) > 0 })
			w.applySettled(t)
		})
	}
}
