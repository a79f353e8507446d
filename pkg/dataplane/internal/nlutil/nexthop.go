package nlutil

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// NextHop is one of several next hops of a route.
type NextHop struct {
	// Link is the index of the interface, Gateway the machine there; the zero Addr if the
	// route leads to neighbours.
	Link    int
	Gateway netip.Addr
	// Flags are those of the kernel, such as RTNH_F_DEAD.
	Flags uint32
}

// EachNextHop calls do for each next hop in a value of RTA_MULTIPATH. Malformed ones end it.
func EachNextHop(b []byte, do func(NextHop)) {
	for len(b) >= unix.SizeofRtNexthop {
		length := int(binary.NativeEndian.Uint16(b))
		if length < unix.SizeofRtNexthop || length > len(b) {
			return
		}
		h := NextHop{Flags: uint32(b[2]), Link: int(binary.NativeEndian.Uint32(b[4:]))}
		EachAttr(b[unix.SizeofRtNexthop:length], func(typ uint16, value []byte) {
			if gateway, ok := Gateway(typ, value); ok {
				h.Gateway = gateway
			}
		})
		do(h)
		b = b[min(len(b), (length+3)&^3):]
	}
}

// Gateway returns the gateway that an attribute of a route names: one of the route's family, or of
// another one, as routes of IPv4 by a router of IPv6 have it.
func Gateway(typ uint16, value []byte) (netip.Addr, bool) {
	switch {
	case typ == unix.RTA_GATEWAY:
		return netip.AddrFromSlice(value)
	case typ == unix.RTA_VIA && len(value) > 2: // struct rtvia: its family comes first
		return netip.AddrFromSlice(value[2:])
	}
	return netip.Addr{}, false
}
