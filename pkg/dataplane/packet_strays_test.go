package dataplane

import (
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/conntrack"
)

// given: connections of a pod on the egress host and of one on another node, by TCP and UDP;
// when the egress IP leaves the host, the servers send, and it returns to the host, then the
// connections go on: the server sees the ports that it knows, and what it sent by TCP arrives.
// What others track that was asked of that address, and is led elsewhere, stays.
//
// Mutants killed: strays-stay, strays-of-others-go.
func TestEgressIPReturnsAfterItsServersSent(t *testing.T) {
	for _, rules := range slices.Concat(someRules(), rulesOfIPv6()) {
		t.Run(rules.name, func(t *testing.T) {
			w := newWorld(t, 2, rules)
			n1, n2 := w.nodes[0], w.nodes[1]
			here, there := n1.addPod(t, "here", 2), n2.addPod(t, "there", 2)
			serve := func(served bool) {
				t.Helper()
				n1.unhost(w.eip(1))
				here.set(Pod{Kind: Drop})
				there.set(Pod{Kind: Drop})
				if served {
					n1.host(w.eip(1), 7)
					here.set(local(w.eip(1), 7))
					there.set(remote(7, n1))
				}
				w.applyAll(t)
			}
			serve(true)
			open := []*conversation{
				w.converse(t, here, 7001), w.converse(t, there, 7002),
				w.converseUDP(t, here, 7003), w.converseUDP(t, there, 7004),
			}
			serve(false)
			foreign := netip.AddrPortFrom(testenv.Addr(w.eip(1)), 8443)
			n1.trackLed(t, foreign, here.ip)
			for _, c := range open {
				c.serverSends(t)
				testenv.UntilWithin(t, patience, "the host tracks what the server sent", func() bool {
					return n1.tracks(t, func(f conntrack.Flow) bool { return f.Asked == c.client && f.SourcePort == c.port })
				})
			}
			serve(true)
			for _, c := range open {
				c.goesOn(t)
			}
			if !n1.tracks(t, func(f conntrack.Flow) bool { return f.Asked == foreign }) {
				t.Error("a connection that others have led elsewhere was forgotten")
			}
			w.applySettled(t)
		})
	}
}

// conversation is a connection of which a test has both ends.
type conversation struct {
	pod    net.Conn
	server io.ReadWriter
	// client is the pod's end as the server sees it, port is that of the server.
	client netip.AddrPort
	port   uint16
}

// converse opens a TCP connection from a pod to the bastion.
func (w *world) converse(t *testing.T, p *podMachine, port uint16) *conversation {
	t.Helper()
	var l net.Listener
	w.bastion.Do(t, func() {
		var c net.ListenConfig
		var err error
		l, err = c.Listen(t.Context(), w.bastion.over("tcp"), ":"+strconv.Itoa(int(port)))
		must(t, err)
	})
	t.Cleanup(func() { _ = l.Close() })
	c := &conversation{pod: p.dial(t, p.over("tcp"), p.outside(int(port))), port: port}
	server, err := l.Accept()
	must(t, err)
	t.Cleanup(func() { _ = server.Close() })
	c.server, c.client = server, addrPort(t, server.RemoteAddr())
	c.goesOn(t)
	return c
}

// converseUDP is converse for UDP. Its server answers whoever sent last.
func (w *world) converseUDP(t *testing.T, p *podMachine, port uint16) *conversation {
	t.Helper()
	server := &udpServer{}
	w.bastion.Do(t, func() {
		var c net.ListenConfig
		var err error
		server.PacketConn, err = c.ListenPacket(t.Context(), w.bastion.over("udp"), ":"+strconv.Itoa(int(port)))
		must(t, err)
	})
	t.Cleanup(func() { _ = server.Close() })
	c := &conversation{pod: p.dial(t, p.over("udp"), p.outside(int(port))), server: server, port: port}
	c.goesOn(t)
	c.client = addrPort(t, server.last)
	return c
}

// udpServer is a server with one client at a time.
type udpServer struct {
	net.PacketConn
	last net.Addr
}

func (s *udpServer) Read(b []byte) (n int, err error) {
	n, s.last, err = s.ReadFrom(b)
	return n, err
}

func (s *udpServer) Write(b []byte) (int, error) { return s.WriteTo(b, s.last) }

func addrPort(t *testing.T, a net.Addr) netip.AddrPort {
	t.Helper()
	end, err := netip.ParseAddrPort(a.String())
	must(t, err)
	return netip.AddrPortFrom(end.Addr().Unmap(), end.Port())
}

// serverSends has the server send what no host can bring to the pod now.
func (c *conversation) serverSends(t *testing.T) {
	t.Helper()
	_, err := c.server.Write([]byte("s"))
	must(t, err)
}

// goesOn expects that the pod's next byte reaches the server from the port that it knows, and
// that the server's answer comes back, after all that it has sent before.
func (c *conversation) goesOn(t *testing.T) {
	t.Helper()
	by := time.Now().Add(testenv.Stretch(patience))
	for _, end := range []any{c.pod, c.server} {
		must(t, end.(interface{ SetDeadline(time.Time) error }).SetDeadline(by))
	}
	got := make([]byte, 1)
	if _, err := c.pod.Write([]byte("p")); err != nil {
		t.Fatalf("port %d: the pod cannot send: %v", c.port, err)
	}
	if _, err := c.server.Read(got); err != nil || got[0] != 'p' {
		t.Fatalf("port %d: the server got %q: %v", c.port, got, err)
	}
	if s, ok := c.server.(*udpServer); ok && c.client.IsValid() && addrPort(t, s.last) != c.client {
		t.Fatalf("port %d: the server knows %v, and sees %v", c.port, c.client, s.last)
	}
	if _, err := c.server.Write([]byte("e")); err != nil {
		t.Fatalf("port %d: the server cannot answer: %v", c.port, err)
	}
	for got[0] != 'e' {
		if _, err := c.pod.Read(got); err != nil {
			t.Fatalf("port %d: no answer: %v", c.port, err)
		}
	}
}

// tracks reports whether the node's kernel tracks a connection that matches.
func (n *node) tracks(t *testing.T, match func(conntrack.Flow) bool) (found bool) {
	t.Helper()
	n.Do(t, func() {
		entries, err := conntrack.Find(match)
		must(t, err)
		found = len(entries) > 0
	})
	return found
}

// trackLed makes the node's kernel track a connection that the bastion has asked for at an
// address, and others have led to a pod.
func (n *node) trackLed(t *testing.T, asked netip.AddrPort, pod netip.Addr) {
	t.Helper()
	client, family := testenv.Addr(bastionIP), netlink.InetFamily(netlink.FAMILY_V4)
	if pod.Is6() {
		client, family = testenv.Addr(bastionIP6), netlink.FAMILY_V6
	}
	must(t, n.Handle(t).ConntrackCreate(netlink.ConntrackTable, family, &netlink.ConntrackFlow{
		FamilyType: uint8(family),
		Forward:    netlink.IPTuple{Protocol: unix.IPPROTO_UDP, SrcIP: client.AsSlice(), DstIP: asked.Addr().AsSlice(), SrcPort: 5000, DstPort: asked.Port()},
		Reverse:    netlink.IPTuple{Protocol: unix.IPPROTO_UDP, SrcIP: pod.AsSlice(), DstIP: client.AsSlice(), SrcPort: 53, DstPort: 5000},
		TimeOut:    600,
	}))
}
