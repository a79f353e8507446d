package dataplane

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/internal/nlutil"
)

// packet is what a capture notes of a packet.
type packet struct {
	src, dst netip.Addr
	proto    uint8
	dport    uint16
	flags    uint8 // of TCP
	during   string
}

// capture notes every packet of one family that comes in at a device, and judges each
// by what its receiver expects: one wrong source among thousands of packets is
// a failure.
type capture struct {
	mu sync.Mutex
	// expect are the sources that packets to a port may have; where a port has
	// none set, any is fine.
	expect map[uint16][]netip.Addr
	// count of packets by port and source.
	count map[uint16]map[netip.Addr]int
	wrong []packet
	// during is what the test does now, for its report.
	during string
}

// newCapture captures packets of IPv4 until the test ends, and fails the test for each
// packet with a wrong source.
func newCapture(t *testing.T, m *machine, device string) *capture {
	t.Helper()
	return newCaptureOf(t, m, device, unix.ETH_P_IP)
}

// newCaptureOf is newCapture for any protocol of Ethernet.
func newCaptureOf(t *testing.T, m *machine, device string, ethertype uint16) *capture {
	t.Helper()
	c := &capture{expect: map[uint16][]netip.Addr{}, count: map[uint16]map[netip.Addr]int{}}
	var fd int
	m.Do(t, func() {
		link, err := m.Handle(t).LinkByName(device)
		must(t, err)
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, int(nlutil.BigEndian16(ethertype)))
		must(t, err)
		must(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20))
		tv := unix.NsecToTimeval(50_000_000)
		must(t, unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv))
		must(t, unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: nlutil.BigEndian16(ethertype), Ifindex: link.Attrs().Index}))
	})
	var stop atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		buffer := make([]byte, 256)
		for !stop.Load() {
			n, from, err := unix.Recvfrom(fd, buffer, 0)
			if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
				continue
			}
			if err != nil {
				return
			}
			if ll, ok := from.(*unix.SockaddrLinklayer); ok && ll.Pkttype == unix.PACKET_OUTGOING {
				continue
			}
			c.note(buffer[:n])
		}
	}()
	t.Cleanup(func() {
		stop.Store(true)
		<-done
		stats, err := unix.GetsockoptTpacketStats(fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
		if err != nil || stats.Drops != 0 {
			t.Errorf("the capture lost packets: %+v, %v", stats, err)
		}
		must(t, unix.Close(fd))
		c.mu.Lock()
		defer c.mu.Unlock()
		for i, p := range c.wrong {
			if i == 10 {
				t.Errorf("and %d more", len(c.wrong)-i)
				break
			}
			t.Errorf("%s: wrong source: packet of protocol %d (flags %#x) from %v to %v port %d", p.during, p.proto, p.flags, p.src, p.dst, p.dport)
		}
	})
	return c
}

// The types of ICMPv6 that are of neighbour discovery.
const neighbourDiscovery, neighbourDiscoveryEnd = 133, 137

func (c *capture) note(b []byte) {
	var p packet
	var header int
	var fragment bool
	switch {
	case len(b) >= 40 && b[0]>>4 == 6:
		p = packet{src: netip.AddrFrom16([16]byte(b[8:24])), dst: netip.AddrFrom16([16]byte(b[24:40])), proto: b[6]}
		header = 40
		if p.proto == unix.IPPROTO_DSTOPTS && len(b) >= header+8 {
			p.proto, header = b[header], header+8*(int(b[header+1])+1)
		}
		onLink := b[7] == 255 // else somebody has forwarded it
		if onLink && p.proto == unix.IPPROTO_ICMPV6 && len(b) > header && b[header] >= neighbourDiscovery && b[header] <= neighbourDiscoveryEnd {
			return // as ARP, which is no packet of IPv4
		}
	case len(b) >= 20 && b[0]>>4 == 4:
		p = packet{src: netip.AddrFrom4([4]byte(b[12:16])), dst: netip.AddrFrom4([4]byte(b[16:20])), proto: b[9]}
		header = int(b[0]&0x0f) * 4
		fragment = binary.BigEndian.Uint16(b[6:])&0x1fff != 0
	default:
		return
	}
	if (p.proto == unix.IPPROTO_TCP || p.proto == unix.IPPROTO_UDP) && !fragment && len(b) >= header+4 {
		p.dport = binary.BigEndian.Uint16(b[header+2:])
	}
	if p.proto == unix.IPPROTO_TCP && len(b) >= header+14 {
		p.flags = b[header+13]
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.count[p.dport] == nil {
		c.count[p.dport] = map[netip.Addr]int{}
	}
	c.count[p.dport][p.src]++
	if want, judged := c.expect[p.dport]; judged && !slices.Contains(want, p.src) {
		p.during = c.during
		c.wrong = append(c.wrong, p)
	}
}

// only says which sources packets to a port may have from now on; with none,
// no packet may come at all.
func (c *capture) only(port uint16, sources ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.expect[port] = []netip.Addr{}
	for _, s := range sources {
		c.expect[port] = append(c.expect[port], testenv.Addr(s))
	}
}

// from counts the packets to a port that came from a source.
func (c *capture) from(port uint16, source string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.count[port][testenv.Addr(source)]
}

// total counts all packets to a port.
func (c *capture) total(port uint16) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for _, of := range c.count[port] {
		n += of
	}
	return n
}

// drain waits until the capture has seen all that was sent before.
func (w *world) drain(t *testing.T) {
	t.Helper()
	w.drains(t, w.seen, w.bastion.over("udp"), w.bastion.outside(discard))
}

// discard is a port at which nothing listens.
const discard = 9

// drains waits until a capture has a packet to the bastion that is sent now.
func (w *world) drains(t *testing.T, seen *capture, network, to string) {
	t.Helper()
	before := seen.total(discard)
	c := w.router.dial(t, network, to)
	testenv.UntilWithin(t, patience, "the capture catches up", func() bool {
		// One may be lost while the router looks for its neighbour. Errors are the bastion's
		// answers to those before: nothing listens there.
		_, _ = c.Write([]byte("x"))
		return seen.total(discard) > before
	})
}

// says what the test does now.
func (c *capture) says(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.during = what
}
