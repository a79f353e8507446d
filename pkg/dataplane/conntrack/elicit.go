package conntrack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/internal/nlutil"
)

// ElicitACK makes the source of each TCP connection, a pod of this host, send an
// ACK. Where the kernel has forgotten the connection, a rule can answer that ACK by
// a reset: a pod that only waits for data then need not wait for its keep-alive.
//
// The pod gets a segment from the other end whose sequence number is outside of the
// window. TCP answers such a segment with an ACK, and is otherwise not affected
// (RFC 9293, section 3.10.7.4). The segment is sent on the pod's own link, past
// connection tracking, which would take it for the beginning of a connection by the
// other end.
//
// The segment has a byte of data: of those without, Linux answers one in 500 ms on each
// connection (net.ipv4.tcp_invalid_ratelimit), and may just have answered another, such as
// a keep-alive or a repeated SYN-ACK. The odds that it is the byte that the pod waits for
// are one in 2^31: the pod would then read a zero before its reset.
//
// A pod whose link-layer address is not known gets none.
func ElicitACK(h *netlink.Handle, flows []Flow) (err error) {
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
		to, known := links[f.Source]
		if !known {
			if to, err = linkOf(h, f.Source); err != nil {
				errs = append(errs, err)
			}
			links[f.Source] = to
		}
		if to == nil {
			continue
		}
		// Of two that are half of the sequence space apart, one at least is outside.
		at := rand.Uint32()
		for _, sequence := range []uint32{at, at + 1<<31} {
			if err := unix.Sendto(fd, oneByte(netip.AddrPortFrom(f.Dest, f.DestPort), netip.AddrPortFrom(f.Source, f.SourcePort), sequence), 0, to); err != nil {
				errs = append(errs, fmt.Errorf("send to pod %v: %w", f.Source, err))
				break
			}
		}
	}
	return errors.Join(errs...)
}

// linkOf returns the link-layer address of a pod of this host; nil where it is not known.
func linkOf(h *netlink.Handle, pod netip.Addr) (*unix.SockaddrLinklayer, error) {
	routes, err := h.RouteGet(pod.AsSlice())
	if err != nil {
		return nil, fmt.Errorf("look up the route to pod %v: %w", pod, err)
	}
	if len(routes) == 0 {
		return nil, nil
	}
	protocol, family := uint16(unix.ETH_P_IP), netlink.FAMILY_V4
	if pod.Is6() {
		protocol, family = unix.ETH_P_IPV6, netlink.FAMILY_V6
	}
	neighbours, err := h.NeighList(routes[0].LinkIndex, family)
	if err != nil {
		return nil, fmt.Errorf("list neighbours of pod %v: %w", pod, err)
	}
	for _, n := range neighbours {
		if addrFromNet(n.IP) != pod || len(n.HardwareAddr) != 6 || n.State&(netlink.NUD_FAILED|netlink.NUD_INCOMPLETE) != 0 {
			continue
		}
		to := &unix.SockaddrLinklayer{Protocol: nlutil.BigEndian16(protocol), Ifindex: routes[0].LinkIndex, Halen: 6}
		copy(to.Addr[:], n.HardwareAddr)
		return to, nil
	}
	return nil, nil
}

// oneByte is an IP packet with a TCP segment that has one byte of data.
func oneByte(from, to netip.AddrPort, sequence uint32) []byte {
	const ipHeader, tcpHeader, data, ttl = 20, 20, 1, 64
	addresses := append(from.Addr().AsSlice(), to.Addr().AsSlice()...)
	tcp := binary.BigEndian.AppendUint16(nil, from.Port())
	tcp = binary.BigEndian.AppendUint16(tcp, to.Port())
	tcp = binary.BigEndian.AppendUint32(tcp, sequence)
	tcp = append(tcp, 0, 0, 0, 0, tcpHeader/4<<4, 0x10 /* ACK */, 0, 0, 0, 0, 0, 0)
	// The sum over the pseudo headers of both families is the same. The data is zero, and
	// adds nothing.
	binary.BigEndian.PutUint16(tcp[16:], internetChecksum(addresses, []byte{0, unix.IPPROTO_TCP, 0, tcpHeader + data}, tcp))
	tcp = append(tcp, make([]byte, data)...)
	if to.Addr().Is6() {
		ip := []byte{0x60, 0, 0, 0, 0, tcpHeader + data, unix.IPPROTO_TCP, ttl}
		return append(append(ip, addresses...), tcp...)
	}
	ip := []byte{0x45, 0, 0, ipHeader + tcpHeader + data, 0, 0, 0x40 /* DF */, 0, ttl, unix.IPPROTO_TCP, 0, 0}
	ip = append(ip, addresses...)
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

func addrFromNet(ip net.IP) netip.Addr {
	addr, _ := netip.AddrFromSlice(ip)
	return addr.Unmap()
}
