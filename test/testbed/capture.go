package testbed

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Packet is a frame that a Capture saw.
type Packet struct {
	At time.Time
	// Outgoing is true where the place itself sent it.
	Outgoing bool
	// MAC of the sender.
	MAC net.HardwareAddr
	// Hops is how many more routers the packet may pass: TTL, or hop limit. Every place
	// begins with 64.
	Hops uint8
	// Protocol is the IP protocol: unix.IPPROTO_TCP and so on; 0 for ARP.
	Protocol uint8
	// Source and Destination have port 0 where the protocol has none, and in
	// fragments. Of an ARP packet they are sender's and target's address.
	Source, Destination netip.AddrPort
	// ARP is the operation, 1 request or 2 reply; 0 for IP.
	ARP uint16
	// TCPFlags: 1 FIN, 2 SYN, 4 RST, 8 PSH, 16 ACK.
	TCPFlags uint8
	// Length of the IP packet, in bytes.
	Length int
	// Payload is what follows the UDP or TCP header, or the ICMP packet, up to
	// some 200 bytes.
	Payload []byte
}

// Capture is a running capture. It belongs to the process that started it, and
// keeps what it saw in memory.
type Capture struct {
	fd     int
	cancel context.CancelFunc
	done   chan struct{}

	mu      sync.Mutex
	packets []Packet
	err     error
}

// snapLength is how much of each frame is captured.
const snapLength = 256

// Capture records every IP and ARP packet on a device of a place, both ways,
// from when it returns until Stop, or until ctx ends. keep says which are
// kept; nil keeps all.
func (c *Cluster) Capture(ctx context.Context, place, device string, keep func(Packet) bool) (*Capture, error) {
	var fd int
	err := inNetns(c.netns(place), func() error {
		link, err := net.InterfaceByName(device)
		if err != nil {
			return err
		}
		all := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ALL))
		// No protocol until it is bound, so that no packet of another device
		// gets in.
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return err
		}
		if err := errors.Join(
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20),
			unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: link.Index}),
		); err != nil {
			return errors.Join(err, unix.Close(fd))
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("capture on %s of %s: %w", device, place, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	k := &Capture{fd: fd, cancel: cancel, done: make(chan struct{})}
	go k.read(ctx, keep)
	return k, nil
}

// Stop ends the capture and returns all packets that arrived before. It fails
// if the kernel had to leave some out.
func (k *Capture) Stop() ([]Packet, error) {
	k.cancel()
	<-k.done
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.packets, k.err
}

// Packets returns those seen so far.
func (k *Capture) Packets() []Packet {
	k.mu.Lock()
	defer k.mu.Unlock()
	return append([]Packet(nil), k.packets...)
}

func (k *Capture) read(ctx context.Context, keep func(Packet) bool) {
	defer close(k.done)
	defer unix.Close(k.fd)
	buffer := make([]byte, snapLength)
	for {
		// What had arrived when the capture was stopped still counts: look at
		// ctx first, then read until there is nothing left.
		ended := ctx.Err() != nil
		k.drain(buffer, keep)
		if ended {
			break
		}
		// Half a moment is soon enough to notice the end.
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(k.fd), Events: unix.POLLIN}}, 50)
		if err != nil && !errors.Is(err, unix.EINTR) {
			k.fail(err)
			return
		}
	}
	stats, err := unix.GetsockoptTpacketStats(k.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil {
		k.fail(err)
	} else if stats.Drops > 0 {
		k.fail(fmt.Errorf("capture: %d packets were lost", stats.Drops))
	}
}

func (k *Capture) drain(buffer []byte, keep func(Packet) bool) {
	for {
		n, from, err := unix.Recvfrom(k.fd, buffer, unix.MSG_TRUNC)
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.ENETDOWN) {
			continue // ENETDOWN: reported once when the device goes down
		}
		if errors.Is(err, unix.EAGAIN) {
			return
		}
		if err != nil {
			k.fail(err)
			return
		}
		p, ok := parse(buffer[:min(n, len(buffer))])
		if !ok {
			continue
		}
		p.At = time.Now()
		if link, ok := from.(*unix.SockaddrLinklayer); ok {
			p.Outgoing = link.Pkttype == unix.PACKET_OUTGOING
		}
		if keep == nil || keep(p) {
			k.mu.Lock()
			k.packets = append(k.packets, p)
			k.mu.Unlock()
		}
	}
}

func (k *Capture) fail(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.err = errors.Join(k.err, err)
}

// parse reads an Ethernet frame; false for what is neither IP nor ARP, and for what keeps a
// link of IPv6 going, as ARP does that of IPv4: neighbour discovery and group membership.
func parse(frame []byte) (Packet, bool) {
	const ethernet = 14
	if len(frame) < ethernet {
		return Packet{}, false
	}
	p := Packet{MAC: append(net.HardwareAddr(nil), frame[6:12]...)}
	body := frame[ethernet:]
	switch binary.BigEndian.Uint16(frame[12:]) {
	case unix.ETH_P_ARP:
		if len(body) < 28 {
			return p, false
		}
		p.ARP = binary.BigEndian.Uint16(body[6:])
		p.Source = netip.AddrPortFrom(netip.AddrFrom4([4]byte(body[14:18])), 0)
		p.Destination = netip.AddrPortFrom(netip.AddrFrom4([4]byte(body[24:28])), 0)
		return p, true
	case unix.ETH_P_IP:
		return p, parseIP(&p, body)
	case unix.ETH_P_IPV6:
		return p, parseIPv6(&p, body)
	}
	return p, false
}

func parseIPv6(p *Packet, ip []byte) bool {
	const header = 40
	if len(ip) < header {
		return false
	}
	source, destination := netip.AddrFrom16([16]byte(ip[8:24])), netip.AddrFrom16([16]byte(ip[24:40]))
	p.Length = header + int(binary.BigEndian.Uint16(ip[4:]))
	p.Hops, p.Protocol = ip[7], ip[6]
	rest, first := ip[header:], true
	if p.Protocol == unix.IPPROTO_HOPOPTS {
		return false // group membership; nothing else in a test bed has such options
	}
	if p.Protocol == unix.IPPROTO_FRAGMENT && len(rest) >= 8 {
		p.Protocol, first = rest[0], binary.BigEndian.Uint16(rest[2:])&0xfff8 == 0
		rest = rest[8:]
	}
	// From the router solicitation, 133, to the redirect, 137.
	if first && p.Protocol == unix.IPPROTO_ICMPV6 && len(rest) > 0 && rest[0] >= 133 && rest[0] <= 137 {
		return false
	}
	p.transport(source, destination, rest, first)
	return true
}

func parseIP(p *Packet, ip []byte) bool {
	if len(ip) < 20 || len(ip) < int(ip[0]&0xf)*4 {
		return false
	}
	header := int(ip[0]&0xf) * 4
	p.Length = int(binary.BigEndian.Uint16(ip[2:]))
	p.Hops, p.Protocol = ip[8], ip[9]
	source, destination := netip.AddrFrom4([4]byte(ip[12:16])), netip.AddrFrom4([4]byte(ip[16:20]))
	p.transport(source, destination, ip[header:], binary.BigEndian.Uint16(ip[6:])&0x1fff == 0)
	return true
}

// transport reads what follows the IP header. Only the first fragment of a packet has ports.
func (p *Packet) transport(source, destination netip.Addr, rest []byte, first bool) {
	var ports [2]uint16
	switch {
	case first && p.Protocol == unix.IPPROTO_TCP && len(rest) >= 20:
		ports = [2]uint16{binary.BigEndian.Uint16(rest), binary.BigEndian.Uint16(rest[2:])}
		p.TCPFlags = rest[13]
		rest = rest[min(len(rest), int(rest[12]>>4)*4):]
	case first && p.Protocol == unix.IPPROTO_UDP && len(rest) >= 8:
		ports = [2]uint16{binary.BigEndian.Uint16(rest), binary.BigEndian.Uint16(rest[2:])}
		rest = rest[8:]
	}
	p.Source, p.Destination = netip.AddrPortFrom(source, ports[0]), netip.AddrPortFrom(destination, ports[1])
	p.Payload = append([]byte(nil), rest...)
}
