package dataplane

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/internal/nlutil"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/nftables"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/warning"
)

// addRoutedPod makes a pod as CNIs do that have no bridge: the host routes its address to
// its link.
func (n *node) addRoutedPod(t *testing.T, name string, last int) *podMachine {
	t.Helper()
	p := &podMachine{machine: newMachine(t, name), node: n, ip: testenv.Addr(fmt.Sprintf("10.244.%d.%d", n.index, last))}
	connect(t, p.machine, "eth0", []string{p.ip.String() + "/32"}, n.machine, "v-"+name, []string{n.gateway() + "/32"})
	n.Run(t, fmt.Sprintf("ip route add %v/32 dev v-%s", p.ip, name))
	p.Run(t, "ip route add "+n.gateway()+" dev eth0; ip route add default via "+n.gateway())
	return p
}

// toBastion is a UDP packet to a port of the bastion.
func toBastion(from netip.Addr, port uint16) []byte {
	return udpPacket(netip.AddrPortFrom(from, 4242), netip.AddrPortFrom(bastionOf(from), port), []byte("x"))
}

// bastionOf is the bastion's address of the family of another.
func bastionOf(ip netip.Addr) netip.Addr {
	if ip.Is6() {
		return testenv.Addr(bastionIP6)
	}
	return testenv.Addr(bastionIP)
}

// sendsAs sends packets to a port of the bastion with any source.
func (p *podMachine) sendsAs(t *testing.T, from netip.Addr, port uint16) {
	t.Helper()
	f := newForger(t, p.machine, from)
	for range 3 {
		must(t, f.send(bastionOf(from), toBastion(from, port)))
	}
}

// sendsTagged sends the same in Ethernet frames to the bridge, with tags that name no VLAN.
func (p *podMachine) sendsTagged(t *testing.T, from netip.Addr, port uint16, tags int) {
	t.Helper()
	frame := []byte{0x0a, 0x58, 0x0a, 0xf4, byte(p.node.index), 1, 2, 0, 0, 0, 0, 9} // the bridge's MAC
	for range tags {
		frame = append(frame, 0x81, 0, 0, 0)
	}
	frame = append(append(frame, 8, 0), toBastion(from, port)...)
	p.Do(t, func() {
		link, err := net.InterfaceByName("eth0")
		must(t, err)
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(nlutil.BigEndian16(unix.ETH_P_ALL)))
		must(t, err)
		defer unix.Close(fd)
		for range 3 {
			must(t, unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: link.Index, Protocol: nlutil.BigEndian16(unix.ETH_P_IP)}))
		}
	})
}

// arrives waits until packets to a port have come with a source.
func (w *world) arrives(t *testing.T, port uint16, source string) {
	t.Helper()
	testenv.UntilWithin(t, patience, fmt.Sprintf("packets to port %d from %s", port, source), func() bool { return w.seen.from(port, source) > 0 })
}

// linkedPods are the ways in which CNIs connect pods.
func linkedPods() map[string]func(*node, *testing.T, string, int) *podMachine {
	return map[string]func(*node, *testing.T, string, int) *podMachine{
		"ports of a bridge": (*node).addPod,
		"routed links":      (*node).addRoutedPod,
	}
}

// given: pods with egress IPs, and pods of other namespaces, which send with addresses that
// are not their own; then no packet leaves with an egress IP but those of its own pods, and
// none of these pods leaves with anything else. Pods without egress IPs leave with whatever
// they send with, as without us.
//
// Mutants killed: neighbours-address-passes, new-link-passes, other-sources-pass,
// tags-hide-sources, routed-links-are-unknown.
func TestNoPodSendsWithTheAddressOfOneWithAnEgressIP(t *testing.T) {
	for name, add := range linkedPods() {
		t.Run(name, func(t *testing.T) {
			rules := ownTable()
			if name == "routed links" {
				rules = onlyNFT()
			}
			w := newWorld(t, 2, rules)
			n, n2 := w.nodes[0], w.nodes[1]
			// Else the kernel itself drops what comes from where no route leads.
			n.Run(t, "sysctl -qw net.ipv4.conf.all.rp_filter=2 net.ipv4.conf.default.rp_filter=2")
			here, there, drop := add(n, t, "here", 2), add(n, t, "there", 3), add(n, t, "drop", 4)
			plain, nfv := add(n, t, "plain", 5), add(n, t, "nfv", 6)
			n.host(eip1, 7)
			n2.host(eip2, 8)
			here.set(local(eip1, 7))
			there.set(remote(8, n2))
			drop.set(Pod{Kind: Drop})
			plain.set(Pod{Kind: Node})
			nfv.set(Pod{Kind: Node})
			w.applyAll(t)
			n.settled(t)
			late := add(n, t, "late", 7) // the agent does not know it
			port := uint16(9100)
			spoofed := func(p *podMachine, from netip.Addr) {
				port++
				w.seen.only(port)
				p.sendsAs(t, from, port)
				if name == "ports of a bridge" {
					for tags := range 4 {
						p.sendsTagged(t, from, port, tags)
					}
				}
			}
			foreign := testenv.Addr("172.30.1.1")
			for _, p := range []*podMachine{plain, nfv, late} {
				spoofed(p, here.ip)
				spoofed(p, there.ip)
				spoofed(p, drop.ip)
			}
			for _, p := range []*podMachine{here, there, drop} {
				for _, from := range []netip.Addr{plain.ip, foreign, n.ip, testenv.Addr(eip1), testenv.Addr("10.244.1.99"), testenv.Addr("10.244.2.5")} {
					spoofed(p, from)
				}
			}
			spoofed(here, there.ip)
			spoofed(there, here.ip)
			spoofed(there, drop.ip)

			// In this order on the same ways: what was sent before has come, or never will.
			for i, p := range []*podMachine{here, there, plain, nfv, late} {
				port := uint16(9001 + i)
				want := []string{eip1, eip2, n.ip.String(), n.ip.String(), n.ip.String()}[i]
				w.seen.only(port, want)
				p.sendsAs(t, p.ip, port)
				w.arrives(t, port, want)
			}
			plain.sendsAs(t, nfv.ip, 9011)
			w.arrives(t, 9011, n.ip.String())
			nfv.sendsAs(t, foreign, 9012)
			w.arrives(t, 9012, foreign.String())
			w.drain(t)
			n.apply(t) // the link of the pod that was unknown
			n.settled(t)
		})
	}
}

// given: a pod of a namespace with egress IPs that has an IPv6 address; when it sends with
// another one, then nothing comes outside. It reaches the cluster by IPv6 all the same, and
// other pods leave by it as before.
//
// Mutants killed: ipv6-sources-are-free.
func TestNoPodLeavesWithAnotherIPv6Address(t *testing.T) {
	w := newWorld(t, 1, ownTable()).withIPv6(t)
	n := w.nodes[0]
	here, plain := n.addPod6(t, "here", 2), n.addPod6(t, "plain", 3)
	n.host(eip1, 7)
	here.set(local(eip1, 7))
	here.set6(Refuse)
	plain.set(Pod{Kind: Node})
	plain.set6(Node)
	n.apply(t)
	plain.serve6(t, plain.ip6.String())
	here.reaches6(t, plain.ip6.String())
	for i, from := range []netip.Addr{plain.ip6, testenv.Addr("fd00:10:244:1::99"), testenv.Addr("fd00:99::1")} {
		port := uint16(9101 + i)
		w.seen6.only(port)
		here.sendsAs(t, from, port)
	}
	plain.sendsAs(t, plain.ip6, 9001)
	testenv.UntilWithin(t, patience, "packets of the other pod", func() bool { return w.seen6.from(9001, plain.ip6.String()) > 0 })
	n.settled(t)
}

// heir replaces a pod by another one with its address, and with a link of the same name and
// index.
func (p *podMachine) heir(t *testing.T) *podMachine {
	t.Helper()
	n, h := p.node, &podMachine{machine: newMachine(t, p.Name), node: p.node, ip: p.ip}
	nl := n.Handle(t)
	old, err := nl.LinkByName("v-" + p.Name)
	must(t, err)
	must(t, nl.LinkDel(old))
	n.Run(t, fmt.Sprintf("ip link add v-%s index %d type veth peer name heir; ip link set v-%[1]s master cni0 up", p.Name, old.Attrs().Index))
	other, err := nl.LinkByName("heir")
	must(t, err)
	must(t, nl.LinkSetNsFd(other, int(h.NS)))
	h.Run(t, fmt.Sprintf("ip link set heir name eth0; ip link set eth0 up; ip address add %v/24 dev eth0; ip route add default via %s", h.ip, n.gateway()))
	return h
}

// given: pods that end and whose addresses, and links, others get; then these are what their
// own namespaces say, at once. Pods that give themselves the addresses of others, or none,
// change nothing, also for an agent that has just started. When no pod has an egress IP any
// more, then nothing is checked.
//
// Mutants killed: addresses-stay-bound, claims-are-believed, former-links-are-forgotten,
// one-without-an-address-is-free, waiting-agent-leaves-links, links-are-attended-for-ever.
func TestAddressesStayWithTheirLinks(t *testing.T) {
	w := newWorld(t, 1, ownTable())
	n := w.nodes[0]
	n.Run(t, "sysctl -qw net.ipv4.conf.all.rp_filter=2 net.ipv4.conf.default.rp_filter=2")
	n.cfg.AwayAfter = testenv.Stretch(2 * time.Second)
	n.start(t)
	first, plain := n.addPod(t, "first", 2), n.addPod(t, "plain", 3)
	n.host(eip1, 7)
	first.set(local(eip1, 7))
	plain.set(Pod{Kind: Node})
	n.apply(t)
	first.leaves(t, eip1)
	foreign := testenv.Addr("172.30.1.1")

	second := n.addPod(t, "second", 4)
	second.set(local(eip1, 7))
	heir := first.heir(t)
	heir.set(Pod{Kind: Node})
	n.apply(t)
	heir.leaves(t, n.ip.String())
	second.leaves(t, eip1)
	heir.sendsAs(t, foreign, 9011)
	w.arrives(t, 9011, foreign.String())

	// Pods with NET_ADMIN.
	w.seen.only(9101)
	w.seen.only(9102)
	plain.Run(t, fmt.Sprintf("sysctl -qw net.ipv4.conf.all.arp_ignore=8 net.ipv4.conf.all.arp_announce=2; ip address add %v/32 dev eth0; ip address add 10.244.1.5/32 dev eth0", second.ip))
	second.Run(t, fmt.Sprintf("ip address add %v/32 dev eth0", foreign))
	for range 2 {
		n.apply(t)
		plain.sendsAs(t, second.ip, 9101)
		second.sendsAs(t, foreign, 9102)
		second.leaves(t, eip1)
		n.stop(t)
		n.start(t)
	}
	plain.Run(t, fmt.Sprintf("ip address delete %v/32 dev eth0", second.ip))
	second.Run(t, fmt.Sprintf("ip route flush dev eth0; ip address delete %v/24 dev eth0; ip route add %s dev eth0; ip route add default via %[2]s", second.ip, n.gateway()))
	n.apply(t)
	second.sendsAs(t, foreign, 9102)
	w.drain(t)

	// Two have it, and it is not known who was first: nobody suffers.
	third := n.addPod(t, "third", 5)
	third.set(local(eip1, 7))
	n.apply(t)
	third.leaves(t, eip1)
	n.dp.links.unbound[third.ip] -= unboundFor
	if text := warning.Lines(n.apply(t).Warnings); !strings.Contains(text, "SourcesUnchecked (pod 10.244.1.5)") || !strings.Contains(text, "leads to cni0") {
		t.Errorf("warnings: %s", text)
	}
	plain.Run(t, "ip address delete 10.244.1.5/32 dev eth0")
	if text := warning.Lines(n.apply(t).Warnings); text != "" {
		t.Errorf("warnings: %s", text)
	}
	w.seen.only(9103)
	plain.sendsAs(t, third.ip, 9103)
	w.drain(t)

	// One that waits for the API server keeps new links from having them, and one that is
	// gone for long does not.
	late := n.addPod(t, "late", 6)
	n.stop(t)
	n.start(t)
	w.seen.only(9104)
	ends := time.Now().Add(n.cfg.AwayAfter + 200*time.Millisecond)
	testenv.UntilWithin(t, patience, "time passes", func() bool {
		n.Do(t, func() { must(t, n.dp.StayPresent()) })
		late.sendsAs(t, second.ip, 9104)
		return time.Now().After(ends)
	})
	w.drain(t)
	testenv.UntilWithin(t, patience, "a new link may have an address", func() bool {
		late.sendsAs(t, second.ip, 9014)
		return w.seen.total(9014) > 0
	})

	second.set(Pod{Kind: Node})
	third.set(Pod{Kind: Node})
	n.apply(t)
	n.settled(t)
	if left := n.Run(t, "nft list tables"); strings.Contains(left, "links") || strings.Contains(left, "bridge") {
		t.Errorf("without egress IPs:\n%s", left)
	}
	third.sendsAs(t, foreign, 9013)
	w.arrives(t, 9013, foreign.String())
}

// given: a kernel that does not let the agent check sources; then a warning says so, and all
// else works. When it does, then there is no warning, and sources are checked.
//
// Mutants killed: unchecked-sources-fail.
func TestSourcesThatCannotBeChecked(t *testing.T) {
	w := newWorld(t, 1, ownTable())
	n := w.nodes[0]
	here := n.addPod(t, "here", 2)
	n.host(eip1, 7)
	here.set(local(eip1, 7))
	var other *nftables.Driver
	n.Do(t, func() {
		var err error
		other, err = nftables.Open(true)
		must(t, err)
		must(t, other.PutLinks(nftables.Links{Sources: map[int][]netip.Addr{99: {here.ip}}}, 0))
	})
	if text := warning.Lines(n.warns(t)); !strings.Contains(text, "SourcesUnchecked (nftables)") || !strings.Contains(text, "another process owns the table") {
		t.Errorf("warnings: %s", text)
	}
	here.leaves(t, eip1)
	must(t, other.Close()) // its tables go with it
	n.warnsNoMore(t)
	w.seen.only(9101)
	here.sendsAs(t, testenv.Addr("172.30.1.1"), 9101)
	here.leaves(t, eip1)
	w.drain(t)
}
