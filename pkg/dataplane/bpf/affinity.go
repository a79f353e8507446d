package bpf

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"
)

// FlowAffinity has the egress hosts that connections began with.
type FlowAffinity struct {
	four map[[16]byte]netip.Addr
	six  map[[40]byte]netip.Addr
}

// FlowAffinity returns the hosts that the connections of some pods began with. The
// programs replace them as soon as the pods' routes have changed.
func (m *Maps) FlowAffinity(pods map[netip.Addr]bool) (a FlowAffinity, err error) {
	if m.outer.six() {
		return affinity(m, bytes6(), pods)
	}
	return affinity(m, number(), pods)
}

// affinity is FlowAffinity with hosts in some form.
func affinity[H comparable](m *Maps, hosts form[H], pods map[netip.Addr]bool) (a FlowAffinity, err error) {
	var err4, err6 error
	a.four, err4 = flowsOf(m.ip4.flows, func(key [16]byte) netip.Addr { return netip.AddrFrom4([4]byte(key[:4])) }, hosts, pods)
	a.six, err6 = flowsOf(m.ip6.flows, func(key [40]byte) netip.Addr { return netip.AddrFrom16([16]byte(key[:16])) }, hosts, pods)
	return a, errors.Join(err4, err6)
}

// Host returns the egress host that a connection began with; false where it is not
// known. Ports are those of TCP and UDP, and ignored for other protocols.
func (a FlowAffinity) Host(protocol uint8, from, to netip.AddrPort) (netip.Addr, bool) {
	// A flow key, as the program writes it.
	key := append(from.Addr().AsSlice(), to.Addr().AsSlice()...)
	if protocol == unix.IPPROTO_TCP || protocol == unix.IPPROTO_UDP {
		key = binary.BigEndian.AppendUint16(key, from.Port())
		key = binary.BigEndian.AppendUint16(key, to.Port())
	} else {
		key = append(key, 0, 0, 0, 0)
	}
	key = append(key, protocol, 0, 0, 0)
	switch len(key) {
	case 16:
		host, known := a.four[[16]byte(key)]
		return host, known
	case 40:
		host, known := a.six[[40]byte(key)]
		return host, known
	}
	return netip.Addr{}, false
}
