package egress

import (
	"maps"
	"net/netip"
	"slices"
)

// Displaced are egress IPs that were released while a namespace still requests them, and that
// no host has claimed since, as far as one controller knows: what a former one released it does
// not. Their namespaces may have no other egress IP, so writes that concern them come first. The
// zero value is of no use; make one. It is not for concurrent use.
type Displaced map[netip.Addr]bool

// Wrote notes that a list of claims was written. released are the releases of the host in the
// allocation.
func (d Displaced) Wrote(before, now []string, released []Release) {
	for _, release := range released {
		if ip := release.IP.String(); release.urgent() && slices.Contains(before, ip) && !slices.Contains(now, ip) {
			d[release.IP] = true
		}
	}
	for _, text := range now {
		delete(d, parsed(text))
	}
}

// Keep forgets those that no namespace requests any more. What waits for its former host, or
// has no other yet, stays.
func (d Displaced) Keep(a Allocation) {
	if len(d) == 0 {
		return
	}
	still := make(map[netip.Addr]bool)
	for _, host := range a.Hosts {
		for _, ip := range host.All() {
			still[ip] = true
		}
	}
	for _, request := range a.Unplaced {
		still[request.IP] = true
	}
	maps.DeleteFunc(d, func(ip netip.Addr, _ bool) bool { return !still[ip] })
}

// Moves reports whether to write a list of claims moves an egress IP: it claims one that is
// displaced, or releases one that is still requested. What follows from that is decided once
// it is written.
func (d Displaced) Moves(wanted []string, released []Release) bool {
	return slices.ContainsFunc(wanted, func(text string) bool { return d[parsed(text)] }) ||
		slices.ContainsFunc(released, Release.urgent)
}

// urgent reports whether the address is needed elsewhere.
func (r Release) urgent() bool { return r.Reason != ReasonNotRequested }

// parsed is the address that a controller wrote; the zero Addr for what it did not write.
func parsed(text string) netip.Addr {
	ip, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Addr{}
	}
	return ip
}
