package egress

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
)

// CanonicalClaims returns claims in canonical form: a value such as
// "192.168.7.200/24" becomes "192.168.7.200", and a value that then is there twice is
// kept once. What is no address stays as written, for the user to correct. The order is
// kept; changed reports whether anything differs from claims.
func CanonicalClaims(claims []string) (canonical []string, changed bool) {
	canonical = make([]string, 0, len(claims))
	seen := make(map[string]bool, len(claims))
	for _, written := range claims {
		value := written
		if ip, ok := parseClaim(written); ok {
			value = ip.String()
		}
		if seen[value] {
			continue
		}
		seen[value] = true
		canonical = append(canonical, value)
	}
	return canonical, !slices.Equal(canonical, claims)
}

// parseClaim reads an address with or without a prefix length.
func parseClaim(written string) (netip.Addr, bool) {
	ip, err := netip.ParseAddr(written)
	if strings.Contains(written, "/") {
		var prefix netip.Prefix
		prefix, err = netip.ParsePrefix(written)
		ip = prefix.Addr()
	}
	if err != nil || ip.Is4In6() || ip.Zone() != "" {
		return netip.Addr{}, false
	}
	return ip, true
}

// invalidReason is why no host of any cluster can have ip as an egress IP; "" if ip is
// valid.
//
// A link-local address is refused although it is unicast: no router carries
// it, and the overlay has addresses of its own there.
func invalidReason(ip netip.Addr) string {
	switch {
	case !ip.IsValid():
		return "it is not an address"
	case ip.Is4In6():
		return "it is an IPv4 address in the form of IPv6"
	case ip.Zone() != "":
		return "it has a zone, which means something on one machine only"
	case ip.Is4() && ip.As4()[0] == 0:
		return "addresses that begin with 0 mean no host (RFC 1122)"
	case ip.IsLoopback():
		return "it is a loopback address"
	case ip.IsMulticast():
		return "it is a multicast address"
	case ip == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return "it is the broadcast address"
	case ip.IsLinkLocalUnicast():
		return "it is a link-local address"
	case ip.Is6() && ip.As16()[0] == 0:
		return "addresses that begin with 00 are reserved (RFC 4291)"
	}
	return ""
}

// usable4 reports whether a host or pod can have the address, of IPv4.
func usable4(ip netip.Addr) bool { return ip.Is4() && invalidReason(ip) == "" }

// usableHost reports whether a host can have the address as hostIP.
func usableHost(ip netip.Addr) bool { return invalidReason(ip) == "" }

// usablePod reports whether a pod can have the address.
func usablePod(ip netip.Addr) bool { return invalidReason(ip) == "" }

// invalidReasonIn is why no host can have ip in network; "" if ip is valid or the
// network is not known.
func invalidReasonIn(network netip.Prefix, ip netip.Addr) string {
	// A /31 or /32, or /127, has neither a network nor a broadcast address (RFC 3021, RFC 6164).
	if !network.IsValid() || network.Bits() > network.Addr().BitLen()-2 {
		return ""
	}
	switch {
	case ip == network.Addr() && ip.Is6():
		return "it is the address of all routers of " + network.String() + " (RFC 4291)"
	case ip == network.Addr():
		return "it is the network address of " + network.String()
	case ip.Is4() && ip == broadcast(network):
		return "it is the broadcast address of " + network.String()
	}
	return ""
}

func broadcast(network netip.Prefix) netip.Addr {
	bytes := network.Addr().As4()
	for bit := network.Bits(); bit < 32; bit++ {
		bytes[bit/8] |= 0x80 >> (bit % 8)
	}
	return netip.AddrFrom4(bytes)
}

// parseRange reads a CIDR. Host bits are cleared, and exact is false then.
func parseRange(written string) (masked netip.Prefix, exact, ok bool) {
	prefix, err := netip.ParsePrefix(written)
	if err != nil || prefix.Addr().Is4In6() {
		return netip.Prefix{}, false, false
	}
	return prefix.Masked(), prefix == prefix.Masked(), true
}

// parseNetwork4 reads an IPv4 CIDR. Host bits are cleared.
func parseNetwork4(written string) (netip.Prefix, bool) {
	masked, _, ok := parseRange(written)
	return masked, ok && masked.Addr().Is4()
}

// within reports whether inner lies wholly in outer.
func within(inner, outer netip.Prefix) bool {
	return inner.Bits() >= outer.Bits() && outer.Contains(inner.Addr())
}

// sortedUnique sorts the addresses in place and drops duplicates.
func sortedUnique(ips []netip.Addr) []netip.Addr {
	slices.SortFunc(ips, netip.Addr.Compare)
	return slices.Compact(ips)
}

// key is an IPv4 address as a number, which maps find faster.
func key(ip netip.Addr) uint32 {
	bytes := ip.As4()
	return binary.BigEndian.Uint32(bytes[:])
}

// addressOf returns the IPv4 address with that key.
func addressOf(key uint32) netip.Addr {
	var bytes [4]byte
	binary.BigEndian.PutUint32(bytes[:], key)
	return netip.AddrFrom4(bytes)
}
