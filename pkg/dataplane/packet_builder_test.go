package dataplane

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// ipPacket is a packet of the addresses' family.
func ipPacket(from, to netip.Addr, protocol byte, payload []byte) []byte {
	addresses := append(from.AsSlice(), to.AsSlice()...)
	if from.Is6() {
		b := binary.BigEndian.AppendUint16([]byte{0x60, 0, 0, 0}, uint16(len(payload)))
		return slices.Concat(b, []byte{protocol, 64}, addresses, payload)
	}
	b := binary.BigEndian.AppendUint16([]byte{0x45, 0}, uint16(20+len(payload)))
	b = slices.Concat(b, []byte{0, 1, 0, 0, 64, protocol, 0, 0}, addresses)
	binary.BigEndian.PutUint16(b[10:], checksum(b))
	return append(b, payload...)
}

// datagram is a UDP datagram. With addresses of IPv4 it has no checksum, as is allowed there.
func datagram(from, to netip.AddrPort, payload []byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, from.Port())
	b = binary.BigEndian.AppendUint16(b, to.Port())
	b = binary.BigEndian.AppendUint16(b, uint16(8+len(payload)))
	b = append(append(b, 0, 0), payload...)
	if from.Addr().Is6() {
		binary.BigEndian.PutUint16(b[6:], checksumOver(from.Addr(), to.Addr(), unix.IPPROTO_UDP, b))
	}
	return b
}

// udpPacket is a packet with a UDP datagram.
func udpPacket(from, to netip.AddrPort, payload []byte) []byte {
	return ipPacket(from.Addr(), to.Addr(), unix.IPPROTO_UDP, datagram(from, to, payload))
}

// vxlan is the payload of a packet of the overlay, with a UDP packet inside.
func vxlan(vni uint32, from, to netip.AddrPort, payload []byte) []byte {
	b := binary.BigEndian.AppendUint32([]byte{0x08, 0, 0, 0}, vni<<8)
	b = append(b, 2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2) // Ethernet
	if from.Addr().Is6() {
		b = append(b, 0x86, 0xdd)
	} else {
		b = append(b, 0x08, 0)
	}
	return append(b, udpPacket(from, to, payload)...)
}

// checksumOver is the checksum of a payload of IPv6, with the pseudo header.
func checksumOver(from, to netip.Addr, protocol byte, payload []byte) uint16 {
	pseudo := binary.BigEndian.AppendUint32(append(from.AsSlice(), to.AsSlice()...), uint32(len(payload)))
	return checksum(slices.Concat(pseudo, []byte{0, 0, 0, protocol}, payload, make([]byte, len(payload)%2)))
}

func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// forger sends packets of one family from a machine, with any source, for as long as the test
// runs.
type forger struct {
	fd int
}

// newForger returns one of the family of an address.
func newForger(t *testing.T, m *machine, of netip.Addr) forger {
	t.Helper()
	family := unix.AF_INET
	if of.Is6() {
		family = unix.AF_INET6
	}
	var f forger
	m.Do(t, func() {
		var err error
		f.fd, err = unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		must(t, err)
	})
	t.Cleanup(func() { must(t, unix.Close(f.fd)) })
	return f
}

// send sends a packet to where it says that it goes.
func (f forger) send(to netip.Addr, packet []byte) error {
	if to.Is6() {
		return unix.Sendto(f.fd, packet, 0, &unix.SockaddrInet6{Addr: to.As16()})
	}
	return unix.Sendto(f.fd, packet, 0, &unix.SockaddrInet4{Addr: to.As4()})
}

// udp sends a UDP packet. A rule of the machine may drop it.
func (f forger) udp(from, to netip.AddrPort, payload []byte) {
	_ = f.send(to.Addr(), udpPacket(from, to, payload))
}
