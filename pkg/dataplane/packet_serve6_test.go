package dataplane

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/warning"
)

// Egress IPs of IPv6.
const (
	eip61 = "fd00:7::201"
	eip62 = "fd00:7::202"
)

// way6 gives a pod's IPv6 address its way in its node's state.
func (p *podMachine) way6(way Pod) {
	way.IP = p.ip6
	p.unset6()
	p.node.state.Pods = append(p.node.state.Pods, way)
}

// echoesLarge6 expects that the bastion's echo at port 7000 answers by IPv6: by TCP, and by UDP with
// packets that fit and with those that do not.
func (p *podMachine) echoesLarge6(t *testing.T) {
	t.Helper()
	const echo = "[" + bastionIP6 + "]:7000"
	echoes(t, p.dial(t, "tcp6", echo), 3<<20)
	echoes(t, p.dial(t, "udp6", echo), 1000)
	// In fragments. The first may be larger than the overlay carries, and the pod is told so.
	fragments := p.dial(t, "udp6", echo)
	testenv.UntilWithin(t, patience, "a large packet of "+p.Name+" passes", func() bool {
		return tryEcho(fragments, 4000, testenv.Stretch(200*time.Millisecond)) == nil
	})
}

// leaves6 expects that a machine's connection to the bastion by IPv6 comes from want.
func (m *machine) leaves6(t *testing.T, want string) {
	t.Helper()
	got, err := m.whoami(t, "["+bastionIP6+"]:8080")
	if err != nil || got != want {
		t.Fatalf("%s left by IPv6 as %q (%v), expected %s", m.Name, got, err, want)
	}
}

// world of both families, in which namespace 7 has its egress IP of IPv4 on the first node,
// and that of IPv6 on the second.
type dualWorld struct {
	world6
	n1, n2, n3                       *node
	here, there, third, plain, shunt *podMachine
}

func newDualWorld(t *testing.T, rules rulesOf) dualWorld {
	t.Helper()
	w := dualWorld{world6: newWorld(t, 3, rules).withIPv6(t)}
	w.n1, w.n2, w.n3 = w.nodes[0], w.nodes[1], w.nodes[2]
	w.here, w.there, w.third = w.n1.addPod6(t, "here", 2), w.n2.addPod6(t, "there", 2), w.n3.addPod6(t, "third", 2)
	w.plain, w.shunt = w.n2.addPod6(t, "plain", 3), w.n3.addPod6(t, "shunt", 3)
	w.bastion.serveWhoami(t, "["+bastionIP6+"]:8080")
	w.n1.host(eip1, 7)
	w.n2.host(eip61, 7)
	w.here.set(local(eip1, 7))
	w.there.set(remote(7, w.n1))
	w.third.set(remote(7, w.n1))
	w.here.way6(remote(7, w.n2))
	w.there.way6(local(eip61, 7))
	w.third.way6(remote(7, w.n2))
	w.plain.set(Pod{Kind: Node})
	w.plain.way6(Pod{Kind: Node})
	w.shunt.set(Pod{Kind: Drop})
	w.shunt.way6(Pod{Kind: Refuse})
	for _, n := range w.nodes {
		n.state.Strict = true
	}
	return w
}

// members are the pods of namespace 7.
func (w dualWorld) members() []*podMachine { return []*podMachine{w.here, w.there, w.third} }

// given: a namespace with egress IPs of both families, each on a host of its own; then its
// pods leave with these, whatever they send and however large; the host itself and other
// pods do not, nor do pods that have none; and inside the cluster each is seen as itself. It
// stays so where a router advertises a network at the uplink.
//
// Mutants killed: vni-has-one-family, ipv6-keeps-its-source, ipv6-forward-stays-closed,
// neighbours-ipv6-address-passes, unmarked-ipv6-is-not-refused, discovery-goes-outside.
func TestPodsLeaveWithTheirEgressIPsOfBothFamilies(t *testing.T) {
	for _, rules := range servingIPv6() {
		t.Run(rules.name, func(t *testing.T) {
			w := newDualWorld(t, rules)
			for _, n := range w.nodes {
				r := n.apply(t)
				if r.IPv6.Reason != "" || !slices.Equal(r.IPv6.Networks, []netip.Prefix{netip.MustParsePrefix("fd00:7::/64")}) {
					t.Errorf("%s reports %+v", n.Name, r.IPv6)
				}
			}
			w.bastion.serveEchoOf(t, "6", 7000)
			for _, p := range w.members() {
				p.serve6(t, p.ip6.String())
			}
			check := func() {
				t.Helper()
				for _, p := range w.members() {
					p.leaves(t, eip1)
					p.leaves6(t, eip61)
				}
				w.plain.leaves6(t, w.plain.ip6.String())
				for _, n := range w.nodes {
					n.leaves6(t, n.ip6())
				}
				if err := w.shunt.ask6(t, bastionIP6); !errors.Is(err, unix.ECONNREFUSED) {
					t.Errorf("a pod without a way to the outside: %v", err)
				}
			}
			check()
			w.applySettled(t)
			for _, p := range w.members() {
				p.echoesLarge6(t)
				p.ping6(t, 88)
				// Inside, and from the outside, each is itself.
				for _, o := range w.members() {
					if o != p {
						p.reaches6(t, o.ip6.String())
					}
				}
				w.bastion.reaches6(t, p.ip6.String())
			}
			w.shunt.reaches6(t, w.here.ip6.String())
			w.shunt.reaches6(t, w.third.ip6.String())
			w.there.ping6(t, 1500)
			w.third.ping6(t, 1450)
			testenv.UntilWithin(t, patience, "the pod learns the path MTU of the overlay", func() bool {
				return errors.Is(w.third.tryPing6(t, bastionIP6, 1451, testenv.Stretch(50*time.Millisecond)), unix.EMSGSIZE)
			})

			// Another pod of the host sends with the address of one that has an egress IP there.
			w.seen6.only(9201)
			w.plain.sendsAs(t, w.there.ip6, 9201)
			w.plain.sendsAs(t, w.plain.ip6, 9202)
			testenv.UntilWithin(t, patience, "packets of the other pod itself", func() bool { return w.seen6.from(9202, w.plain.ip6.String()) > 0 })

			// Nothing leaves in the name of neighbour discovery.
			for _, p := range []*podMachine{w.shunt, w.third} {
				p.solicits(t, bastionIP6)
				w.drain6(t)
				if n := w.seen6.from(0, p.ip6.String()); n > 0 {
					t.Errorf("%d solicitations of %s came outside", n, p.Name)
				}
			}

			// The host's chain FORWARD drops what it does not know.
			w.n2.Run(t, strings.ReplaceAll("IP -A FORWARD -i cni0 -j ACCEPT; IP -A FORWARD -o cni0 -j ACCEPT; IP -P FORWARD DROP", "IP", rules.ofIPv6().iptablesOfFamily()))
			w.n2.start(t)
			w.n2.apply(t)
			w.third.leaves6(t, eip61)
			w.n2.settled(t)

			// A router advertises the network, and another one.
			w.n2.Run(t, "sysctl -qw net.ipv6.conf.eth0.accept_ra=2 net.ipv6.conf.eth0.autoconf=1 net.ipv6.conf.eth0.use_tempaddr=2")
			testenv.UntilWithin(t, patience, "the host takes an advertised and a temporary address", func() bool {
				w.router.advertise(t, "fd00:7::/64", "fd00:77::/64")
				return strings.Contains(w.n2.Run(t, "ip -6 address show dev eth0 scope global temporary"), "fd00:77:")
			})
			if r := w.n2.apply(t); len(r.IPv6.Networks) != 2 {
				t.Errorf("networks %v", r.IPv6.Networks)
			}
			for _, p := range w.members() {
				p.leaves6(t, eip61)
			}
			if from, err := w.n2.whoami(t, "["+bastionIP6+"]:8080"); from == eip61 {
				t.Errorf("the host itself has the egress IP: %v", err)
			}
			w.n2.settled(t)
		})
	}
}

// given: pods that send without a pause by IPv6; when their egress IP moves to another host,
// becomes another one, goes, and comes again, then no packet ever has a source but the two
// of that moment; a connection whose source changes is reset, and one whose egress IP only
// moves goes on. An agent that starts again changes nothing.
//
// Mutants killed: pending-ipv6-is-reset, ipv6-resets-are-not-noted.
func TestEgressIPsOfIPv6Change(t *testing.T) {
	for _, rules := range servingIPv6() {
		t.Run(rules.name, func(t *testing.T) {
			w := newDualWorld(t, rules)
			for _, n := range w.nodes {
				n.cfg.ResetConnections = true
				n.start(t)
			}
			w.applyAll(t)
			w.bastion.serveEchoOf(t, "6", 7000)
			port := w.membersSend(t)
			flow := func(source string) {
				t.Helper()
				for p, to := range port {
					before := w.seen6.from(to, source)
					testenv.UntilWithin(t, patience, fmt.Sprintf("packets of %s from %s", p.Name, source), func() bool { return w.seen6.from(to, source) > before+20 })
				}
			}
			may := func(what string, sources ...string) {
				w.seen6.says(what)
				for _, to := range port {
					w.seen6.only(to, sources...)
				}
			}
			flow(eip61)
			kept, cut := w.third.dial(t, "tcp6", "["+bastionIP6+"]:7000"), w.here.dial(t, "tcp6", "["+bastionIP6+"]:7000")
			echoes(t, kept, 1000)
			echoes(t, cut, 1000)

			w.seen6.says("an agent starts again")
			for _, n := range w.nodes {
				n.start(t)
				if r := n.apply(t); r.Changes != 0 {
					t.Errorf("a restarted agent on %s made %d changes", n.Name, r.Changes)
				}
			}

			may("the egress IP moves", eip61)
			w.n2.unhost(eip61)
			w.there.way6(remote(7, w.n1))
			w.n2.apply(t)
			w.n1.host(eip61, 7)
			w.here.way6(local(eip61, 7))
			w.n1.apply(t)
			w.third.way6(remote(7, w.n1))
			w.n3.apply(t)
			flow(eip61)
			echoes(t, kept, 1000)

			may("another egress IP", eip61, eip62)
			w.n1.unhost(eip61)
			w.n1.host(eip62, 7)
			w.here.way6(local(eip62, 7))
			for _, p := range []*podMachine{w.there, w.third} {
				way := remote(7, w.n1)
				way.Sources = []netip.Addr{testenv.Addr(eip62)}
				p.way6(way)
			}
			w.applyAll(t)
			w.drain6(t)
			may("after another egress IP", eip62)
			flow(eip62)
			w.seen6.only(7000) // it is not the other end that resets it
			if err := tryEcho(cut, 10, testenv.Stretch(patience)); !errors.Is(err, unix.ECONNRESET) {
				t.Errorf("a connection whose source has changed: %v", err)
			}
			w.applySettled(t)

			may("dropped", eip62)
			for _, p := range w.members() {
				p.way6(Pod{Kind: Drop})
			}
			w.n1.unhost(eip62)
			w.applyAll(t)
			w.drain6(t)
			may("after it was dropped")
			w.linger(t)
			w.applySettled(t)
			w.here.leaves(t, eip1)
		})
	}
}

// membersSend has these pods send without a pause by IPv6, each to a port of its own, and expects
// their egress IP as source.
func (w dualWorld) membersSend(t *testing.T) map[*podMachine]uint16 {
	t.Helper()
	port := map[*podMachine]uint16{w.here: 9101, w.there: 9102, w.third: 9103}
	for p, to := range port {
		w.seen6.only(to, eip61)
		p.sendsAll6(t, to)
	}
	return port
}

// drain6 waits until the capture has seen all that was sent by IPv6 before.
func (w dualWorld) drain6(t *testing.T) {
	t.Helper()
	w.drains(t, w.seen6, "udp6", net.JoinHostPort(bastionIP6, strconv.Itoa(discard)))
}

// sendsAll6 has a pod send to a port of the bastion by IPv6 until the test ends: by UDP from
// new ports and from one that stays, and by TCP.
func (p *podMachine) sendsAll6(t *testing.T, port uint16) {
	t.Helper()
	p.sends6(t, port)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var all sync.WaitGroup
	var long net.Conn
	all.Go(func() {
		until(ctx, p, time.Millisecond, func() {
			if long == nil {
				long, _ = net.Dial("udp6", net.JoinHostPort(bastionIP6, fmt.Sprint(port)))
				return
			}
			_, _ = long.Write([]byte("x"))
		})
	})
	t.Cleanup(func() {
		cancel()
		all.Wait()
		if long != nil {
			_ = long.Close()
		}
	})
}

// given: a node with a pod that has an egress IP of IPv6 elsewhere; when the node does not
// forward IPv6, then that is dropped there, as a warning reports, and IPv4 goes on; when its
// uplink is not found, then nothing is known.
//
// Mutants killed: no-ipv6-is-not-told, no-uplink-serves-ipv6.
func TestIPv6ThatANodeCannotServe(t *testing.T) {
	for _, rules := range servingIPv6() {
		t.Run(rules.name, func(t *testing.T) {
			w := newDualWorld(t, rules)
			w.applyAll(t)
			w.here.leaves6(t, eip61)
			w.n1.Run(t, "sysctl -qw net.ipv6.conf.all.forwarding=0")
			r := w.n1.apply(t)
			if warnings := warning.Lines(r.Warnings); !r.IPv6.Known || r.IPv6.Reason != errNoIPv6Forward.Error() || !strings.Contains(warnings, "IPv6NotServed (IPv6): ") {
				t.Errorf("reported are %+v, and warnings %s", r.IPv6, warnings)
			}
			if got, err := w.here.whoami(t, "["+bastionIP6+"]:8080"); err == nil {
				t.Errorf("left by IPv6 as %s", got)
			}
			w.here.leaves(t, eip1)
			w.n1.Run(t, "sysctl -qw net.ipv6.conf.all.forwarding=1")
			if r := w.n1.apply(t); !r.IPv6.Known || r.IPv6.Reason != "" || strings.Contains(warning.Lines(r.Warnings), "IPv6NotServed") {
				t.Errorf("reported are %+v, and warnings %v", r.IPv6, r.Warnings)
			}
			w.here.leaves6(t, eip61)
			w.n1.state.HostIP = netip.MustParseAddr("10.1.8.99")
			if r, err := w.n1.tryApply(t); err == nil || r.IPv6.Known {
				t.Errorf("without an uplink, reported are %+v, %v", r.IPv6, err)
			}
		})
	}
}

// given: hosts that serve egress IPs of both families; when the egress IPs of IPv6 are taken
// away and the agent restarts, or when all is cleaned up, then nothing of IPv6 is left.
//
// Mutant killed: ipv6-addresses-stay.
func TestNothingOfIPv6IsLeft(t *testing.T) {
	for _, rules := range servingIPv6() {
		t.Run(rules.name, func(t *testing.T) {
			w := newDualWorld(t, rules)
			look := func(n *node) []string {
				return append(n.objects(t), strings.Split(n.Run(t, `ip -6 route show table all | grep -v 'fe80\|ff00\|anycast' | grep 'proto 77\|dev egress0' || true
			ip -6 -o address show dev eth0 | sed 's/^[0-9]*: //; s/valid_lft.*//' | grep -v fe80; nft list tables | grep egressip || true`), "\n")...)
			}
			var before [][]string
			for _, n := range w.nodes {
				before = append(before, look(n))
			}
			w.applyAll(t)
			w.third.leaves6(t, eip61)
			for i, n := range w.nodes {
				if i == 0 {
					// It serves on with IPv4 alone.
					n.state.Hosted = slices.DeleteFunc(n.state.Hosted, func(h Hosted) bool { return h.IP.Is6() })
					for _, p := range []*podMachine{w.here} {
						p.way6(Pod{Kind: Drop})
					}
					n.apply(t)
					n.start(t)
					n.apply(t)
					n.settled(t)
					if left := n.Run(t, "ip -6 route show table all | grep 'proto 77' || true; ip -6 rule | grep -E '^(8[89]|9[0-3]):' || true; ip -6 -o address | grep 'deprecated' || true"); left != "" {
						t.Errorf("without egress IPs of IPv6, there are\n%s", left)
					}
					w.here.leaves(t, eip1)
				}
				n.stop(t)
				n.clean(t)
				if diff := cmp.Diff(before[i], look(n)); diff != "" {
					t.Errorf("objects of %s (-before us +after us):\n%s", n.Name, diff)
				}
				n.start(t)
			}
		})
	}
}

// given: servers outside to which the way, or from which the way back over the overlay, takes
// smaller packets than the sender believes; then pods and servers learn that, although the
// errors are about packets with another address.
//
// Mutant killed: errors-of-ipv6-stay.
func TestPathMTUOfIPv6(t *testing.T) {
	for _, rules := range servingIPv6() {
		t.Run(rules.name, func(t *testing.T) {
			w := newDualWorld(t, rules)
			const far = "fd00:9::99"
			w.bastion.Run(t, `sysctl -qw net.ipv6.conf.all.forwarding=1; ip link add narrow type veth peer name end
		ip link set narrow mtu 1300 up; ip link set end up; ip -6 route add fd00:9::/64 dev narrow
		ip neigh replace `+far+` lladdr 02:00:00:00:00:99 dev narrow nud permanent`)
			w.router.Run(t, "ip -6 route add fd00:9::/64 via "+bastionIP6)
			w.applyAll(t)
			for _, p := range w.members() {
				testenv.UntilWithin(t, patience, p.Name+" learns the path MTU outside", func() bool {
					return errors.Is(p.tryPing6(t, far, 1400, testenv.Stretch(50*time.Millisecond)), unix.EMSGSIZE)
				})
			}
			server := w.bastion.udp6Server(t, 7000)
			raw, err := server.SyscallConn()
			must(t, err)
			must(t, raw.Control(func(fd uintptr) { must(t, unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_DONTFRAG, 1)) }))
			_, err = w.third.dial(t, "udp6", "["+bastionIP6+"]:7000").Write([]byte("x"))
			must(t, err)
			must(t, server.SetReadDeadline(time.Now().Add(testenv.Stretch(patience))))
			_, from, err := server.ReadFromUDPAddrPort(make([]byte, 1))
			must(t, err)
			if from.Addr().String() != eip61 {
				t.Fatalf("the pod is seen as %v", from)
			}
			testenv.UntilWithin(t, patience, "the server learns the path MTU of the overlay", func() bool {
				_, err := server.WriteToUDPAddrPort(make([]byte, 1452), from)
				return errors.Is(err, unix.EMSGSIZE)
			})
		})
	}
}

// udp6Server is a UDP socket at a port of the bastion's IPv6 address, until the test ends.
func (m *machine) udp6Server(t *testing.T, port int) (server *net.UDPConn) {
	t.Helper()
	m.Do(t, func() {
		var err error
		server, err = net.ListenUDP("udp6", &net.UDPAddr{IP: net.ParseIP(bastionIP6), Port: port})
		must(t, err)
	})
	t.Cleanup(func() { server.Close() })
	return server
}
