package dataplane

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// nudge has pods of this host say a word on each of the given TCP connections, which
// the kernel has just forgotten: what they say is answered by a reset, so that one that
// only waits for data need not wait for its keep-alive.
//
// They get a segment from the other end that lies outside of any window, and carries
// nothing. TCP answers such a segment with where it stands, and is otherwise not touched
// by it (RFC 9293, section 3.10.7.4). It is put on the pod's own link, past connection
// tracking, which would take it for the beginning of a connection of the other end's.
//
// A pod whose link-layer address is not known gets none.
func nudge(h *netlink.Handle, flows []flow) (err error) {
	if len(flows) == 0 {
		return nil
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open a packet socket: %w", err)
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	links := make(map[netip.Addr]*unix.SockaddrLinklayer)
	var errs []error
	for _, f := range flows {
		to, known := links[f.source]
		if !known {
			if to, err = linkOf(h, f.source); err != nil {
				errs = append(errs, err)
			}
			links[f.source] = to
		}
		if to == nil {
			continue
		}
		// Of two that are half of the sequence space apart, one at least is outside.
		at := rand.Uint32()
		for _, sequence := range []uint32{at, at + 1<<31} {
			if err := unix.Sendto(fd, bareSegment(netip.AddrPortFrom(f.dest, f.destPort), netip.AddrPortFrom(f.source, f.sourcePort), sequence), 0, to); err != nil {
				errs = append(errs, fmt.Errorf("send to pod %v: %w", f.source, err))
				break
			}
		}
	}
	return errors.Join(errs...)
}

// linkOf is where a pod of this host is; nil where its link-layer address is not known.
func linkOf(h *netlink.Handle, pod netip.Addr) (*unix.SockaddrLinklayer, error) {
	routes, err := h.RouteGet(pod.AsSlice())
	if err != nil {
		return nil, fmt.Errorf("find the way to pod %v: %w", pod, err)
	}
	if len(routes) == 0 {
		return nil, nil
	}
	neighbours, err := h.NeighList(routes[0].LinkIndex, netlink.FAMILY_V4)
	if err != nil {
		return nil, fmt.Errorf("find the link of pod %v: %w", pod, err)
	}
	for _, n := range neighbours {
		if addrFromNet(n.IP) != pod || len(n.HardwareAddr) != 6 || n.State&(netlink.NUD_FAILED|netlink.NUD_INCOMPLETE) != 0 {
			continue
		}
		to := &unix.SockaddrLinklayer{Protocol: bigEndian16(unix.ETH_P_IP), Ifindex: routes[0].LinkIndex, Halen: 6}
		copy(to.Addr[:], n.HardwareAddr)
		return to, nil
	}
	return nil, nil
}

// bareSegment is an IPv4 packet with a TCP segment without data.
func bareSegment(from, to netip.AddrPort, sequence uint32) []byte {
	const ipHeader, tcpHeader, ttl = 20, 20, 64
	tcp := binary.BigEndian.AppendUint16(nil, from.Port())
	tcp = binary.BigEndian.AppendUint16(tcp, to.Port())
	tcp = binary.BigEndian.AppendUint32(tcp, sequence)
	tcp = append(tcp, 0, 0, 0, 0, tcpHeader/4<<4, 0x10 /* ACK */, 0, 0, 0, 0, 0, 0)
	pseudo := append(from.Addr().AsSlice(), to.Addr().AsSlice()...)
	pseudo = append(pseudo, 0, unix.IPPROTO_TCP, 0, tcpHeader)
	binary.BigEndian.PutUint16(tcp[16:], internetChecksum(pseudo, tcp))
	ip := []byte{0x45, 0, 0, ipHeader + tcpHeader, 0, 0, 0x40 /* DF */, 0, ttl, unix.IPPROTO_TCP, 0, 0}
	ip = append(append(ip, from.Addr().AsSlice()...), to.Addr().AsSlice()...)
	binary.BigEndian.PutUint16(ip[10:], internetChecksum(ip))
	return append(ip, tcp...)
}

// internetChecksum is that of RFC 1071, over parts of even length.
func internetChecksum(parts ...[]byte) uint16 {
	var sum uint32
	for _, b := range parts {
		for ; len(b) >= 2; b = b[2:] {
			sum += uint32(binary.BigEndian.Uint16(b))
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
