package dataplane

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/internal/nlutil"
	"github.com/egressip-operator/egressip-operator/pkg/probe"
)

// probesVNI is that of probes, which means nothing; network 7 is one that hosts serve here.
const probesVNI = 0xffffff

// overlaid is a message in a packet of the overlay, as it is on the way from host to host.
type overlaid struct {
	outer, inner struct{ from, to netip.AddrPort }
	message      probe.Message
}

// tapOverlay calls a function for each message of probes that a node sends over the overlay, until
// the test ends.
func (w *world) tapOverlay(t *testing.T, n *node, each func(overlaid)) {
	t.Helper()
	var fd int
	w.lan.Do(t, func() {
		link, err := w.lan.Handle(t).LinkByName("p-" + n.Name)
		must(t, err)
		// All protocols: a bridge takes packets before those who ask for one see them.
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, int(nlutil.BigEndian16(unix.ETH_P_ALL)))
		must(t, err)
		tv := unix.NsecToTimeval(50_000_000)
		must(t, unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv))
		must(t, unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: nlutil.BigEndian16(unix.ETH_P_ALL), Ifindex: link.Attrs().Index}))
	})
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 2048)
		for {
			select {
			case <-stop:
				return
			default:
			}
			size, from, err := unix.Recvfrom(fd, b, 0)
			if ll, ok := from.(*unix.SockaddrLinklayer); err != nil || ok && ll.Pkttype == unix.PACKET_OUTGOING {
				continue
			}
			if o, ok := readOverlaid(b[:size]); ok {
				each(o)
			}
		}
	}()
	t.Cleanup(func() {
		close(stop)
		<-done
		must(t, unix.Close(fd))
	})
}

// readOverlaid reads a packet: UDP to the overlay's port, VXLAN, Ethernet, IP, UDP, message.
func readOverlaid(b []byte) (o overlaid, ok bool) {
	const vxlan, ethernet = 8, 14
	var rest []byte
	if o.outer.from, o.outer.to, rest, ok = readDatagram(b); !ok || o.outer.to.Port() != 9789 || len(rest) < vxlan+ethernet {
		return o, false
	}
	if o.inner.from, o.inner.to, rest, ok = readDatagram(rest[vxlan+ethernet:]); !ok {
		return o, false
	}
	m, err := probe.Parse(rest)
	o.message = m
	return o, err == nil
}

// readDatagram reads a UDP packet of either family, without options.
func readDatagram(b []byte) (from, to netip.AddrPort, payload []byte, ok bool) {
	var src, dst netip.Addr
	switch {
	case len(b) >= 28 && b[0] == 0x45 && b[9] == unix.IPPROTO_UDP:
		src, dst, b = netip.AddrFrom4([4]byte(b[12:])), netip.AddrFrom4([4]byte(b[16:])), b[20:]
	case len(b) >= 48 && b[0]>>4 == 6 && b[6] == unix.IPPROTO_UDP:
		src, dst, b = netip.AddrFrom16([16]byte(b[8:])), netip.AddrFrom16([16]byte(b[24:])), b[40:]
	default:
		return from, to, nil, false
	}
	return netip.AddrPortFrom(src, binary.BigEndian.Uint16(b)), netip.AddrPortFrom(dst, binary.BigEndian.Uint16(b[2:])), b[8:], true
}

// overlay sends a message as a packet of the overlay, in a VNI.
func (f forger) overlay(vni uint32, o overlaid) {
	f.udp(o.outer.from, o.outer.to, vxlan(vni, o.inner.from, o.inner.to, o.message.Append(nil)))
}

// between is a message from one address to another inside the overlay, whose outer addresses are
// given too.
func between(outerFrom, outerTo netip.Addr, from, to netip.AddrPort, m probe.Message) (o overlaid) {
	o.outer.from, o.outer.to = netip.AddrPortFrom(outerFrom, 45678), netip.AddrPortFrom(outerTo, 9789)
	o.inner.from, o.inner.to, o.message = from, to, m
	return o
}

// heard are the tokens of answers that a host has sent, and to which outer addresses.
type heard struct {
	mu sync.Mutex
	to map[uint64][]netip.Addr
}

func (h *heard) note(o overlaid) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if o.message.Kind == probe.Answer {
		h.to[o.message.Token] = append(h.to[o.message.Token], o.outer.to.Addr())
	}
}

func (h *heard) of(token uint64) []netip.Addr {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Compact(slices.Clone(h.to[token]))
}

// asked is the question of a forger: what it sends, and which address the host may answer.
type asked struct {
	what   string
	by     *machine
	packet overlaid
	may    []netip.Addr
}

// given: a host that serves an egress IP and answers probes, as those of a host show; when a
// machine on the LAN or outside asks it, or a pod of its own node or of another one, as itself or
// as the node that its packets seem to come from, then nobody gets an answer. When a machine on
// the LAN asks in the name of a host, then that host may be answered, and nobody else is, whatever
// address is inside; an answer is not answered. Nothing of all that leaves the host as a packet
// with an egress IP, or is tracked as one.
//
// Mutants killed: strangers-ask, pods-ask, answers-are-answered, any-source-is-a-host,
// questions-for-others-are-answered.
func TestForgedQuestionsGetNoAnswer(t *testing.T) {
	// In iptables, that pods cannot send as hosts is up to the kernel's reverse path filter, and
	// IPv6 has none.
	for _, rules := range append(someRules(), ownTable().withoutIPv4()) {
		t.Run(rules.name, func(t *testing.T) {
			w, host, other, stranger := newForgedWorld(t, rules)
			near, far := host.addPod(t, "near", 2), other.addPod(t, "far", 2)
			near.set(Pod{Kind: Node})
			far.set(Pod{Kind: Node})
			w.applyAll(t)
			host.answers(t, true, time.Hour)
			answers := &heard{to: map[uint64][]netip.Addr{}}
			w.tapOverlay(t, host, answers.note)
			got := map[string]*capture{}
			for _, m := range []*machine{stranger.machine, near.machine, far.machine} {
				got[m.Name] = newCaptureOf(t, m, "eth0", rules.ethertype())
			}

			lan, bastion, self := stranger.ip, netip.MustParseAddrPort(w.bastion.outside(9009)), netip.AddrPortFrom(host.ip, probePort)
			question := func(outer, inner netip.Addr) overlaid {
				return between(outer, host.ip, netip.AddrPortFrom(inner, 40000), self, probe.Message{Kind: probe.Question})
			}
			changed := func(change func(*overlaid)) overlaid {
				o := question(other.ip, other.ip)
				change(&o)
				return o
			}
			list := []asked{
				{"a machine on the LAN", stranger.machine, question(lan, lan), nil},
				{"a machine outside", w.bastion, question(bastion.Addr(), bastion.Addr()), nil},
				{"a pod of the host", near.machine, question(near.ip, near.ip), nil},
				{"a pod of the host, as the host", near.machine, question(near.ip, host.ip), nil},
				{"a pod of the host, as a host", near.machine, question(other.ip, other.ip), nil},
				{"a pod elsewhere", far.machine, question(far.ip, far.ip), nil},
				{"a pod elsewhere, as its node", far.machine, question(far.ip, other.ip), nil},
				{"a pod elsewhere, with its node's address", far.machine, question(other.ip, other.ip), nil},
				{"the LAN as a host", stranger.machine, question(other.ip, other.ip), []netip.Addr{other.ip}},
				{"the LAN as a host, with its own address inside", stranger.machine, question(other.ip, lan), nil},
				{"the LAN as a host, for another one", stranger.machine, changed(func(o *overlaid) { o.inner.to = netip.AddrPortFrom(other.ip, probePort) }), nil},
				{"the LAN as a host, with an answer", stranger.machine, changed(func(o *overlaid) { o.message.Kind = probe.Answer }), nil},
				{"the LAN as a host, with an answer to the outside", stranger.machine, changed(func(o *overlaid) {
					o.message.Kind, o.inner.from, o.inner.to = probe.Answer, netip.AddrPortFrom(other.ip, probePort), bastion
				}), nil},
			}
			w.seen.only(9009)
			for i, a := range list {
				f := newForger(t, a.by, host.ip)
				a.packet.message.Token = uint64(i + 1)
				for _, vni := range []uint32{probesVNI, 7} {
					f.overlay(vni, a.packet)
					f.overlay(vni, a.packet)
				}
			}
			// A host is answered: the test would see it.
			last, control := uint64(100), newForger(t, other.machine, host.ip)
			testenv.UntilWithin(t, patience, "a host is answered", func() bool {
				o := question(other.ip, other.ip)
				o.message.Token = last
				control.overlay(probesVNI, o)
				return slices.Equal(answers.of(last), []netip.Addr{other.ip})
			})
			w.linger(t)
			for i, a := range list {
				if to := answers.of(uint64(i + 1)); !slices.Equal(to, a.may) {
					t.Errorf("%s: answered to %v, want %v", a.what, to, a.may)
				}
			}
			for name, c := range got {
				if n := c.sentBy(host.ip); n > 0 {
					t.Errorf("%s got %d packets from the host", name, n)
				}
			}
			for _, n := range w.nodes {
				n.Do(t, func() {
					if of, err := n.dp.countUsages(); err != nil || len(of) > 0 {
						t.Errorf("%s: packets count for egress IPs: %+v, %v", n.Name, of, err)
					}
				})
			}
			w.applySettled(t)
		})
	}
}

// lanMachine is a machine on the LAN that is no host.
type lanMachine struct {
	*machine
	ip netip.Addr
}

// newForgedWorld is a world of hosts that answer probes, one of which has an egress IP, with a
// machine on the LAN that knows its way to pods.
func newForgedWorld(t *testing.T, rules rulesOf) (w *world, host, other *node, stranger lanMachine) {
	t.Helper()
	w = newWorld(t, 3, rules)
	host, other = w.nodes[0], w.nodes[1]
	for _, n := range w.nodes {
		n.cfg.ProbePort = probePort
		n.start(t)
	}
	host.host(w.eip(1), 7)
	address, length, router := "192.168.7.66", "/24", "192.168.7.1"
	if rules.six {
		address, length, router = "fd00:7::66", "/64 nodad", "fd00:7::1"
	}
	stranger = lanMachine{newMachine(t, "stranger"), testenv.Addr(address)}
	stranger.six = rules.six
	// It asks for neighbours with its link-local address, which would not be ready for a second.
	stranger.Run(t, "sysctl -qw net.ipv6.conf.default.accept_dad=0")
	w.plug(t, stranger.machine, address+length)
	stranger.Run(t, "ip route add default via "+router)
	return w, host, other, stranger
}

// sentBy counts all packets that came from a source.
func (c *capture) sentBy(source netip.Addr) (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, of := range c.count {
		n += of[source]
	}
	return n
}
