package dataplane

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/conntrack"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/warning"
)

// without are the rights of the chart's agent but one.
func without(t *testing.T, right string) []string {
	t.Helper()
	return slices.DeleteFunc(capabilitiesOfTheChart(t), func(c string) bool { return c == right })
}

// given: a connection that waits for data, and an agent that may not send packets of its own;
// when the connection's host dies, then a warning says that it is reset only when the pod sends, as
// it is. With the right the next one is reset at once, and there is no warning.
//
// Mutant killed: late-resets-are-not-told.
func TestWarningOfResetsThatComeLate(t *testing.T) {
	w, p := withHosts(t, ownTable(), 2, true) // iptables needs the right, too
	n1, n2, n3 := w.nodes[0], w.nodes[1], w.nodes[2]
	p.set(remoteFrom(map[*node]string{n1: eip1}))
	w.applyAll(t)
	late := p.dial(t, "tcp4", echoAddress)
	echoes(t, late, 10)
	p.set(remoteFrom(map[*node]string{n2: eip2}))
	n3.rights = without(t, "NET_RAW")
	n3.warnsOnly(t, warning.NotReset, "--reset-connections", "only when their pods send", "open a packet socket", "restart pods")
	resets(t, late)
	n3.rights = nil
	n3.warnsNoMore(t)

	soon := p.dial(t, "tcp4", echoAddress)
	echoes(t, soon, 10)
	p.set(remoteFrom(map[*node]string{n1: eip1}))
	n3.warnsNoMore(t)
	resetsIdle(t, soon)
}

// given: connections of which only one can be noted for a reset, as when a host has lost tens of
// thousands at once; when their host dies, also while the pod's own node takes an egress IP, which
// takes two rounds, then a warning says that some are not reset. When there is room again, then
// the next one is reset, and there is no warning.
//
// Mutants killed: some-resets-are-not-told, next-round-forgets-warnings.
func TestWarningOfConnectionsThatAreNotReset(t *testing.T) {
	for _, backend := range []rulesOf{onlyLegacy(), onlyNFT()} {
		t.Run(backend.name, func(t *testing.T) {
			w, p := withHosts(t, backend, 2, true)
			n1, n2, n3 := w.nodes[0], w.nodes[1], w.nodes[2]
			n3.Run(t, "ipset create "+setResets+" hash:ip,port,ip timeout 900 maxelem 1")
			p.set(remoteFrom(map[*node]string{n1: eip1}))
			w.applyAll(t)
			dial := func(n int) {
				t.Helper()
				for range n {
					echoes(t, p.dial(t, "tcp4", echoAddress), 10)
				}
			}
			expect := func() {
				t.Helper()
				n3.warnsOnly(t, warning.NotReset, "--reset-connections", "some connections that cannot go on are not reset", "restart pods")
				n3.warnsNoMore(t)
			}
			dial(3)
			p.set(remoteFrom(map[*node]string{n2: eip2}))
			expect()

			dial(3)
			n3.host(eip3, 8)
			p.set(remoteFrom(map[*node]string{n1: eip1}))
			expect()

			n3.Run(t, "ipset flush "+setResets)
			last := p.dial(t, "tcp4", echoAddress)
			echoes(t, last, 10)
			p.set(remoteFrom(map[*node]string{n2: eip2}))
			n3.warnsNoMore(t)
			resetsIdle(t, last)
		})
	}
}

// given: a pod that opens connections to one destination until its egress IP has a fifth of its
// source ports left; then a warning names the egress IP and the destination, and goes with the
// connections.
//
// Mutant killed: ports-run-out-unnoticed.
func TestWarningOfPortsThatRunOut(t *testing.T) {
	w := newWorld(t, 1, ownTable())
	n := w.nodes[0]
	p := n.addPod(t, "p", 2)
	n.host(eip1, 7)
	p.set(local(eip1, 7))
	n.warnsNoMore(t)
	count := func() {
		t.Helper()
		n.Do(t, func() {
			of, err := n.dp.countUsages()
			must(t, err)
			n.dp.usages.put(of)
		})
	}
	w.router.Run(t, "iptables-nft -t raw -A PREROUTING -p udp --dport 9001 -j DROP")
	f := newForger(t, p.machine, p.ip)
	to := netip.MustParseAddrPort(bastionIP + ":9001")
	for port := range 52_000 { // more than four fifths of all
		must(t, f.send(to.Addr(), udpPacket(netip.AddrPortFrom(p.ip, uint16(1024+port)), to, []byte("x"))))
	}
	count()
	n.warnsOnly(t, warning.PortsRunOut, "egress IP "+eip1, "connections to UDP "+bastionIP+":9001", "more egress IPs")
	n.Do(t, func() {
		entries, err := conntrack.FindFrom([]netip.Addr{p.ip}, func(conntrack.Flow) bool { return true })
		must(t, err)
		_, err = conntrack.Forget(entries)
		must(t, err)
	})
	count()
	n.warnsNoMore(t)
}
