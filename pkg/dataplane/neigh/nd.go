package neigh

import (
	"encoding/binary"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Messages of neighbour discovery (RFC 4861), and their parts in a frame.
const (
	ndSolicitation  = 135
	ndAdvertisement = 136
	ndSourceMAC     = 1 // options
	ndTargetMAC     = 2
	ndRouter        = 0x80 // flags of an advertisement
	ndOverride      = 0x20

	// ndHopLimit is that of packets that no router has forwarded.
	ndHopLimit = 255

	ndNextHeader = 14 + 6
	ndHops       = 14 + 7
	ndSource     = 14 + 8
	ndType       = 14 + 40
	ndTarget     = ndType + 8
	ndOptions    = ndTarget + 16
)

// ndSocket sends and receives neighbour discovery on one interface.
type ndSocket struct{ packetSocket }

// openND opens a socket on a device that has link-layer addresses. It receives solicitations
// and advertisements of neighbours, and no other traffic of IPv6.
func openND(link netlink.Link) (s ndSocket, err error) {
	s.packetSocket, err = openPacket(link, unix.ETH_P_IPV6, ndFilter())
	return s, err
}

// ndFilter lets pass what parseND reads.
func ndFilter() []unix.SockFilter {
	const load, equal, give = unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, unix.BPF_RET | unix.BPF_K
	return []unix.SockFilter{
		{Code: load, K: ndNextHeader},
		{Code: equal, K: unix.IPPROTO_ICMPV6, Jf: 6},
		{Code: load, K: ndHops},
		{Code: equal, K: ndHopLimit, Jf: 4},
		{Code: load, K: ndType},
		{Code: equal, K: ndAdvertisement, Jt: 1},
		{Code: equal, K: ndSolicitation, Jf: 1},
		{Code: give, K: 1 << 16},
		{Code: give, K: 0},
	}
}

// parseND returns who says in a frame to have which address; false where it is something else.
// A solicitation without a source asks who else has its target, as probes do: it says
// nothing.
func parseND(b []byte) (c claim, ok bool) {
	if len(b) < ndOptions || binary.BigEndian.Uint16(b[12:]) != unix.ETH_P_IPV6 ||
		b[ndNextHeader] != unix.IPPROTO_ICMPV6 || b[ndHops] != ndHopLimit {
		return claim{}, false
	}
	option := byte(ndSourceMAC)
	c.ip = netip.AddrFrom16([16]byte(b[ndSource : ndSource+16]))
	switch b[ndType] {
	case ndAdvertisement:
		option, c.ip = ndTargetMAC, netip.AddrFrom16([16]byte(b[ndTarget:ndOptions]))
	case ndSolicitation:
	default:
		return claim{}, false
	}
	c.mac = net.HardwareAddr(b[6:12])
	for rest := b[ndOptions:]; len(rest) >= 8; {
		length := 8 * int(rest[1])
		if length == 0 || length > len(rest) {
			break
		}
		if rest[0] == option {
			c.mac = net.HardwareAddr(rest[2:8])
		}
		rest = rest[length:]
	}
	return c, !c.ip.IsUnspecified()
}

// probe asks who has an address, without a source: it must not change anyone's cache.
func (s ndSocket) probe(ip netip.Addr) []byte {
	to := ip.As16()
	group := [16]byte{0: 0xff, 1: 0x02, 11: 0x01, 12: 0xff, 13: to[13], 14: to[14], 15: to[15]}
	message := append([]byte{ndSolicitation, 0, 0, 0, 0, 0, 0, 0}, to[:]...)
	return s.frame(netip.IPv6Unspecified(), netip.AddrFrom16(group), message)
}

// announcement says that an address is here, to all. The host is a router, as it forwards
// pods' packets: that is what the kernel says, too.
func (s ndSocket) announcement(ip netip.Addr) []byte {
	message := append([]byte{ndAdvertisement, 0, 0, 0, ndRouter | ndOverride, 0, 0, 0}, ip.AsSlice()...)
	message = append(append(message, ndTargetMAC, 1), s.mac...)
	return s.frame(ip, netip.IPv6LinkLocalAllNodes(), message)
}

// frame is an Ethernet frame with a message of neighbour discovery to a group.
func (s ndSocket) frame(from, group netip.Addr, message []byte) []byte {
	to := group.As16()
	b := append([]byte{0x33, 0x33}, to[12:]...)
	b = append(b, s.mac...)
	b = binary.BigEndian.AppendUint16(b, unix.ETH_P_IPV6)
	b = append(b, 0x60, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(len(message))) //nolint:gosec // some dozen bytes
	b = append(b, unix.IPPROTO_ICMPV6, ndHopLimit)
	addresses := append(from.AsSlice(), to[:]...)
	binary.BigEndian.PutUint16(message[2:], ndChecksum(addresses, message))
	return append(append(b, addresses...), message...)
}

// ndChecksum is that of RFC 1071 over the pseudo header of IPv6 and a message of even length.
func ndChecksum(addresses, message []byte) uint16 {
	sum := uint32(len(message)) + unix.IPPROTO_ICMPV6 //nolint:gosec // some dozen bytes
	for _, b := range [][]byte{addresses, message} {
		for ; len(b) >= 2; b = b[2:] {
			sum += uint32(binary.BigEndian.Uint16(b))
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum) //nolint:gosec // folded
}
