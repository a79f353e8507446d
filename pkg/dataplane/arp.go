package dataplane

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Operations of ARP (RFC 826).
const (
	arpRequest = 1
	arpReply   = 2
)

// arpFrameLen is the length of an ARP packet for IPv4 with its Ethernet header.
const arpFrameLen = 14 + 28

// arpMessage is what an ARP packet says.
type arpMessage struct {
	op        uint16
	senderMAC net.HardwareAddr
	senderIP  netip.Addr
	targetMAC net.HardwareAddr
	targetIP  netip.Addr
}

func broadcastMAC() net.HardwareAddr {
	return net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
}

// frame is the Ethernet frame of the message, broadcast.
func (m arpMessage) frame() []byte {
	b := make([]byte, 0, arpFrameLen)
	b = append(b, broadcastMAC()...)
	b = append(b, m.senderMAC...)
	b = binary.BigEndian.AppendUint16(b, unix.ETH_P_ARP)
	b = binary.BigEndian.AppendUint16(b, 1) // Ethernet
	b = binary.BigEndian.AppendUint16(b, unix.ETH_P_IP)
	b = append(b, 6, 4)
	b = binary.BigEndian.AppendUint16(b, m.op)
	b = append(b, m.senderMAC...)
	b = append(b, m.senderIP.AsSlice()...)
	b = append(b, m.targetMAC...)
	return append(b, m.targetIP.AsSlice()...)
}

// parseARP reads a frame; false where it is no ARP packet for IPv4.
func parseARP(b []byte) (arpMessage, bool) {
	if len(b) < arpFrameLen || binary.BigEndian.Uint16(b[12:]) != unix.ETH_P_ARP ||
		binary.BigEndian.Uint16(b[16:]) != unix.ETH_P_IP || b[18] != 6 || b[19] != 4 {
		return arpMessage{}, false
	}
	return arpMessage{
		op:        binary.BigEndian.Uint16(b[20:]),
		senderMAC: net.HardwareAddr(b[22:28]),
		senderIP:  netip.AddrFrom4([4]byte(b[28:32])),
		targetMAC: net.HardwareAddr(b[32:38]),
		targetIP:  netip.AddrFrom4([4]byte(b[38:42])),
	}, true
}

// arpSocket sends and receives ARP on one interface.
type arpSocket struct {
	fd   int
	link int
	mac  net.HardwareAddr
}

// openARP opens a socket on the uplink. One without link-layer addresses, such
// as a tunnel, has no ARP: ok is false.
func openARP(u uplink) (s arpSocket, ok bool, err error) {
	attrs := u.link.Attrs()
	if len(attrs.HardwareAddr) != 6 || attrs.RawFlags&unix.IFF_NOARP != 0 {
		return arpSocket{}, false, nil
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(bigEndian16(unix.ETH_P_ARP)))
	if err != nil {
		return arpSocket{}, false, fmt.Errorf("open ARP socket on %s: %w", u.name, err)
	}
	s = arpSocket{fd: fd, link: attrs.Index, mac: attrs.HardwareAddr}
	if err := unix.Bind(fd, s.address()); err != nil {
		return arpSocket{}, false, errors.Join(fmt.Errorf("bind ARP socket to %s: %w", u.name, err), s.close())
	}
	return s, true, nil
}

func (s arpSocket) address() *unix.SockaddrLinklayer {
	return &unix.SockaddrLinklayer{Protocol: bigEndian16(unix.ETH_P_ARP), Ifindex: s.link}
}

func (s arpSocket) close() error { return unix.Close(s.fd) }

func (s arpSocket) send(m arpMessage) error {
	return unix.Sendto(s.fd, m.frame(), 0, s.address())
}

// receive waits for an ARP packet until ctx ends; false where none came.
func (s arpSocket) receive(ctx context.Context) (arpMessage, bool, error) {
	buffer := make([]byte, 128)
	for ctx.Err() == nil {
		left := arpProbeWait
		if deadline, ok := ctx.Deadline(); ok {
			left = max(0, min(left, time.Until(deadline)))
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLIN}}, int(left.Milliseconds())+1)
		if errors.Is(err, unix.EINTR) || (err == nil && n == 0) {
			continue
		}
		if err != nil {
			return arpMessage{}, false, fmt.Errorf("wait for ARP: %w", err)
		}
		n, _, err = unix.Recvfrom(s.fd, buffer, 0)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return arpMessage{}, false, fmt.Errorf("receive ARP: %w", err)
		}
		if m, ok := parseARP(buffer[:n]); ok {
			return m, true, nil
		}
	}
	return arpMessage{}, false, nil
}

// announce tells the segment of the uplink that the addresses are here now: a
// gratuitous reply and a gratuitous request for each, since some switches and
// hosts heed one and some the other.
func announce(u uplink, ips []netip.Addr) (err error) {
	if len(ips) == 0 {
		return nil
	}
	s, ok, err := openARP(u)
	if err != nil || !ok {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	var errs []error
	for _, ip := range ips {
		for _, op := range []uint16{arpReply, arpRequest} {
			m := arpMessage{op: op, senderMAC: s.mac, senderIP: ip, targetMAC: broadcastMAC(), targetIP: ip}
			if op == arpRequest {
				m.targetMAC = make(net.HardwareAddr, 6)
			}
			if err := s.send(m); err != nil {
				errs = append(errs, fmt.Errorf("announce %v on %s: %w", ip, u.name, err))
			}
		}
	}
	return errors.Join(errs...)
}

// Probing for another owner of an address follows RFC 5227 in kind, with less
// patience: addresses move in a failover too.
const (
	arpProbes     = 3
	arpProbeEvery = 60 * time.Millisecond
	// arpProbeWait is how long the last one waits for its answer.
	arpProbeWait = 80 * time.Millisecond
)

// foreignOwners asks the segment of the uplink who else has the addresses, all
// at once, in about 0.2 s. It gives the MAC of each address that answers.
func foreignOwners(ctx context.Context, u uplink, ips []netip.Addr) (_ map[netip.Addr]net.HardwareAddr, err error) {
	owners := map[netip.Addr]net.HardwareAddr{}
	if len(ips) == 0 {
		return owners, nil
	}
	s, ok, err := openARP(u)
	if err != nil || !ok {
		return owners, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	asked := make(map[netip.Addr]bool, len(ips))
	for _, ip := range ips {
		asked[ip] = true
	}
	for round := range arpProbes {
		for _, ip := range ips {
			// Sender 0.0.0.0: a probe must not change anybody's cache.
			probe := arpMessage{
				op: arpRequest, senderMAC: s.mac, senderIP: netip.IPv4Unspecified(),
				targetMAC: make(net.HardwareAddr, 6), targetIP: ip,
			}
			if err := s.send(probe); err != nil {
				return owners, fmt.Errorf("probe for another owner of %v on %s: %w", ip, u.name, err)
			}
		}
		wait := arpProbeEvery
		if round == arpProbes-1 {
			wait = arpProbeWait
		}
		if err := s.collect(ctx, wait, asked, owners); err != nil {
			return owners, err
		}
		if len(owners) == len(asked) {
			break
		}
	}
	return owners, nil
}

// collect notes for a while who answers for the asked addresses.
func (s arpSocket) collect(ctx context.Context, wait time.Duration, asked map[netip.Addr]bool, owners map[netip.Addr]net.HardwareAddr) error {
	waiting, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	for len(owners) < len(asked) {
		m, ok, err := s.receive(waiting)
		if err != nil {
			return err
		}
		if !ok {
			return ctx.Err()
		}
		if asked[m.senderIP] && !bytes.Equal(m.senderMAC, s.mac) {
			owners[m.senderIP] = slices.Clone(m.senderMAC)
		}
	}
	return nil
}

// bigEndian16 is a number whose bytes in memory are v's in network order.
func bigEndian16(v uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v))
}
