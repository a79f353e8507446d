package dataplane

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/warning"
	"github.com/egressip-operator/egressip-operator/pkg/probe"
)

// given: hosts that have addresses of IPv6 alone; then pods leave with their egress IPs of
// IPv6, from the egress host and from others, over an overlay of IPv6 and whatever they send,
// however large; answers return; and nothing warns that IPv4 is missing. When the egress host
// dies, they leave by another one.
func TestHostsWithoutIPv4(t *testing.T) {
	for _, rules := range rulesWithoutIPv4() {
		t.Run(rules.name, func(t *testing.T) {
			w := newWorld(t, 3, rules)
			n1, n2, n3 := w.nodes[0], w.nodes[1], w.nodes[2]
			here, there, plain, shunt := n1.addPod(t, "here", 2), n2.addPod(t, "there", 2), n2.addPod(t, "plain", 3), n3.addPod(t, "shunt", 2)
			n1.host(eip61, 7)
			here.set(local(eip61, 7))
			there.set(remote(7, n1))
			plain.set(Pod{Kind: Node})
			shunt.set(Pod{Kind: Drop})
			for _, n := range w.nodes {
				n.state.Strict = true
				r := n.apply(t)
				if r.IPv6.Reason != "" || !slices.Equal(r.IPv6.Networks, []netip.Prefix{netip.MustParsePrefix("fd00:7::/64")}) ||
					r.Uplink != "eth0" || r.UplinkCIDR.String() != n.ip6()+"/64" || !r.Overlay {
					t.Errorf("%s reports %+v", n.Name, r)
				}
				if len(r.Warnings) > 0 && len(rules.want) == 1 { // in two backends, others come in between
					t.Errorf("%s warns:\n%s", n.Name, warning.Lines(r.Warnings))
				}
				if link := n.Run(t, "ip link show dev egress0"); !strings.Contains(link, " mtu 1430 ") {
					t.Errorf("the overlay of %s: %s", n.Name, link)
				}
			}
			w.applySettled(t)
			w.bastion.serveEchoOf(t, "6", 7000)
			for _, p := range []*podMachine{here, there} {
				p.leaves6(t, eip61)
				p.echoesLarge6(t)
			}
			here.ping6(t, 1500)
			there.ping6(t, 1430)
			testenv.UntilWithin(t, patience, "the pod learns the path MTU of the overlay", func() bool {
				return errors.Is(there.tryPing6(t, bastionIP6, 1431, testenv.Stretch(50*time.Millisecond)), unix.EMSGSIZE)
			})
			plain.leaves6(t, n2.ip6()) // as the CNI masquerades
			for _, n := range w.nodes {
				n.leaves6(t, n.ip6())
			}
			w.seen.only(9301)
			shunt.sends6(t, 9301)

			// An agent that starts again changes nothing.
			for _, n := range w.nodes {
				n.start(t)
				n.settled(t)
			}
			there.leaves6(t, eip61)

			// The egress host dies, and another one has its egress IP.
			n1.stop(t)
			n1.Run(t, "ip link set eth0 down")
			n3.host(eip61, 7)
			there.set(remote(7, n3))
			n3.apply(t)
			n2.apply(t)
			there.leaves6(t, eip61)
			w.linger(t)
		})
	}
}

// given: a host with an address of IPv6; when a packet comes to the port of its overlay, by
// either family, then what it carries goes on only if a host sent it, in a network of an
// egress IP here, to the outside.
//
// Mutants killed: anybody-sends-over-ipv6, overlay-ignores-outer-ipv6.
func TestOverlayOverIPv6TakesPacketsOfHostsAlone(t *testing.T) {
	w := newWorld(t, 2, ownTable().withoutIPv4())
	host, other := w.nodes[0], w.nodes[1]
	pod, near := other.addPod(t, "pod", 2), host.addPod(t, "near", 2)
	host.host(eip61, 7)
	pod.set(remote(7, host))
	near.set(Pod{Kind: Node})
	w.applyAll(t)
	// A host that others reach by IPv4, too, is none of those of the overlay by it.
	for i, n := range w.nodes {
		n.Run(t, fmt.Sprintf("ip address add 192.168.7.1%d/24 dev eth0", i+1))
	}
	at := net.JoinHostPort(bastionIP6, "9000")
	seen, inside := w.bastion.receiveUDPAt(t, at), near.receiveUDPAt(t, net.JoinHostPort(near.ip.String(), "9000"))
	port := uint16(5000)
	packet := func(netID uint32, to netip.AddrPort, text string) []byte {
		port++ // each a connection of its own
		return vxlan(netID, netip.AddrPortFrom(pod.ip, port), to, []byte(text))
	}
	out, in := netip.MustParseAddrPort(at), netip.AddrPortFrom(near.ip, 9000)
	overlay := net.JoinHostPort(host.ip.String(), "9789")

	w.router.sendUDPOver(t, "udp6", overlay, packet(7, out, "from a machine that is no host"))
	w.bastion.sendUDPOver(t, "udp6", overlay, packet(7, out, "from outside"))
	pod.sendUDPOver(t, "udp6", overlay, packet(7, out, "from a pod"))
	near.sendUDPOver(t, "udp6", overlay, packet(7, out, "from a pod of the host"))
	other.sendUDPOver(t, "udp4", "192.168.7.11:9789", packet(7, out, "by IPv4"))
	other.sendUDPOver(t, "udp6", overlay, packet(8, out, "of a network that is not hosted"))
	other.sendUDPOver(t, "udp6", overlay, packet(7, in, "to a pod"))
	other.sendUDPOver(t, "udp6", overlay, packet(7, netip.AddrPortFrom(host.ip, 9000), "to the host"))
	other.sendUDPOver(t, "udp6", overlay, packet(7, netip.AddrPortFrom(other.ip, 9000), "back to a host"))

	// What a host sends for its pod comes, and all before it has been seen.
	other.sendUDPOver(t, "udp6", overlay, packet(7, out, "as it should be"))
	testenv.UntilWithin(t, patience, "the one good packet", func() bool { return len(seen.of("as it should be")) > 0 })
	for _, l := range []*receiveLog{seen, inside} {
		l.mu.Lock()
		for text, sources := range l.sources {
			if text != "as it should be" || sources[0] != testenv.Addr(eip61) {
				t.Errorf("a packet %s went through, from %v", text, sources)
			}
		}
		l.mu.Unlock()
	}
	// The host's connection tracking knows no packet of the overlay.
	for _, f := range host.tracked(t) {
		if f.Protocol == unix.IPPROTO_UDP && f.Dest == host.ip {
			t.Errorf("tracked: %+v", f)
		}
	}
}

// given: hosts that probe each other over an overlay of IPv6; then a host is found silent if
// and only if that does not carry.
func TestProbesTravelTheOverlayOfIPv6(t *testing.T) {
	w := newWorld(t, 2, ownTable().withoutIPv4())
	asker, host := w.nodes[0], w.nodes[1]
	for _, n := range w.nodes {
		n.cfg.ProbePort = probePort
		n.start(t)
	}
	w.applyAll(t)
	ready := func(s probe.Stats) uint64 { return s.Ready }
	p := asker.probes(t, host)
	p.finds("the agent has not said anything yet", probe.Offline, probe.Silent)
	host.answers(t, true, time.Hour)
	p.finds("all is well", probe.Online, probe.NoCause)

	// In one transaction: no probe is lost.
	host.Run(t, `nft 'table ip6 guard { chain in { type filter hook input priority -10; policy drop;
		icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-advert } accept; udp dport 9789 accept; }; }'`)
	p.goesOn("a firewall lets the overlay in, and nothing else", ready)
	host.answers(t, false, time.Hour)
	p.finds("the data plane does not work", probe.Offline, probe.NotReady)
	host.answers(t, true, 0)
	p.goesOn("the agent is away", func(s probe.Stats) uint64 { return s.Refused })
	host.answers(t, true, time.Hour)
	p.finds("the agent is back", probe.Online, probe.NoCause)

	host.Run(t, "nft insert rule ip6 guard in udp dport 9789 drop")
	p.finds("the port of the overlay is closed", probe.Offline, probe.Silent)
	host.Run(t, "nft delete table ip6 guard")
	p.finds("it is open again", probe.Online, probe.NoCause)
	host.Run(t, "tc filter del dev egress0 ingress")
	p.finds("the programs at the overlay are gone", probe.Offline, probe.Silent)
	host.apply(t)
	host.answers(t, true, time.Hour)
	p.finds("they are back", probe.Online, probe.NoCause)
	w.applySettled(t)
}

// given: hosts with addresses of both families, known to each other by those of IPv4; when
// they get to know each other by those of IPv6, and by those of IPv4 again, then the overlay is
// over that family, with maps of another layout, and meanwhile no packet has left with another
// source. A host that is known by IPv4 alone is out of reach of those known by IPv6.
//
// Mutants killed: maps-keep-their-layout, ipv6-ends-with-hosts-of-ipv6.
func TestOverlayChangesItsFamily(t *testing.T) {
	w := newDualWorld(t, ownTable())
	w.applyAll(t)
	port := w.membersSend(t)
	flow := func(what string) {
		t.Helper()
		for p, to := range port {
			before := w.seen6.from(to, eip61)
			testenv.UntilWithin(t, patience, fmt.Sprintf("packets of %s %s", p.Name, what), func() bool { return w.seen6.from(to, eip61) > before+20 })
		}
	}
	flow("over IPv4")
	w.seen6.says("the hosts are known by IPv6")
	w.n1.unhost(eip1) // a host known by IPv6 has none of IPv4
	for _, p := range w.members() {
		p.set(Pod{Kind: Drop})
	}
	w.know(t, byIPv6)
	flow("over IPv6")
	w.applySettled(t)

	w.seen6.says("the hosts are known by IPv4 again")
	w.know(t, byIPv4)
	flow("over IPv4 again")
	w.applyAll(t) // the rules of an overlay over IPv6 have outlived it for one pass
	w.applySettled(t)

	w.seen6.says("the hosts are known by IPv6 again, and one by IPv4 alone")
	w.know(t, byIPv6)
	flow("over IPv6 again")
	w.drain6(t)
	w.n3.lead(w.n2.ip)
	w.n3.apply(t)
	w.silent6(t, port[w.third])
	w.linger(t)
}

// given: hosts that are known by IPv6, one of which has an egress IP, and a machine that is no host
// and sends to the overlay of that one all the time; when the hosts get to know each other by
// IPv4, then none of what the machine sends goes on, at no moment.
//
// Mutant killed: ports-open-before-the-overlay-goes.
func TestOverlayOfIPv6IsGuardedUntilItIsGone(t *testing.T) {
	const port = 9300
	w := newDualWorld(t, ownTable())
	w.n1.unhost(eip1)
	for _, p := range w.members() {
		p.set(Pod{Kind: Drop})
	}
	w.seen6.only(port)
	w.know(t, byIPv6)
	w.third.leaves6(t, eip61)
	to, c := netip.AddrPortFrom(testenv.Addr(bastionIP6), port), w.router.dial(t, "udp6", net.JoinHostPort(w.n2.ip6(), "9789"))
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var forging sync.WaitGroup
	forging.Go(func() {
		from := uint16(1024)
		repeat(ctx, 100*time.Microsecond, func() {
			from = max(from+1, 1024) // each a connection of its own
			_, _ = c.Write(vxlan(7, netip.AddrPortFrom(w.third.ip6, from), to, []byte("forged")))
		})
	})
	for range 5 {
		w.know(t, byIPv4)
		w.know(t, byIPv6)
	}
	cancel()
	forging.Wait()
	w.drain6(t)
	w.third.leaves6(t, eip61)
}

// byIPv4 and byIPv6 are addresses that a node may be known by.
func byIPv4(n *node) netip.Addr { return testenv.Addr(fmt.Sprintf("192.168.7.1%d", n.index)) }
func byIPv6(n *node) netip.Addr { return testenv.Addr(n.ip6()) }

// know has the hosts get to know each other by some address of theirs.
func (w dualWorld) know(t *testing.T, by func(*node) netip.Addr) {
	t.Helper()
	for _, n := range w.nodes {
		n.state.HostIP, n.state.Hosts = by(n), nil
		for _, o := range w.nodes {
			n.state.Hosts = append(n.state.Hosts, by(o))
		}
		n.lead(by(w.n2))
		n.apply(t)
		if seen := n.dp.outlook.facts; seen.OverIPv6 != by(n).Is6() {
			t.Errorf("%s warns of what was seen of the other family", n.Name)
		}
	}
}

// lead has all pods with a way over the overlay take it to a host.
func (n *node) lead(host netip.Addr) {
	for i, p := range n.state.Pods {
		if p.Kind == Remote {
			n.state.Pods[i].Via = []netip.Addr{host}
		}
	}
}

// given: a host with an address of IPv6, and rules in iptables, or an uplink too narrow for
// IPv6 in IPv6; then there is no overlay, the error says why, and nothing leaves by it.
func TestNoOverlayOverIPv6(t *testing.T) {
	w := newWorld(t, 2, ownTable().withoutIPv4())
	n1, n2 := w.nodes[0], w.nodes[1]
	n1.host(eip61, 7)
	there := n2.addPod(t, "there", 2)
	there.set(remote(7, n1))
	w.applyAll(t)
	there.leaves6(t, eip61)

	n2.Run(t, "ip link set eth0 mtu 1349")
	if r, err := n2.tryApply(t); !errors.Is(err, errIPv6MTU) || r.Overlay || !strings.Contains(r.IPv6.Reason, "1349") {
		t.Errorf("a narrow uplink: %v; %+v", err, r)
	}
	if _, err := there.whoami(t, "["+bastionIP6+"]:8080"); err == nil {
		t.Error("it left all the same")
	}
	n2.Run(t, "ip link set eth0 mtu 1350")
	n2.apply(t)
	there.leaves6(t, eip61)
	n2.settled(t)

	n2.cfg.Backends, n2.cfg.IPTables = []Backend{NFT}, false
	n2.start(t)
	n2.dp.ip6tables = nil
	if r, err := n2.tryApply(t); !errors.Is(err, errNoIP6Tables) || r.Overlay {
		t.Errorf("rules in iptables, without ip6tables: %v; %+v", err, r)
	}
	n2.start(t)
	n2.apply(t)
	there.leaves6(t, eip61)
}
