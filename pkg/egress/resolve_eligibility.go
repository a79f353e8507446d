package egress

import (
	"net/netip"
	"slices"
)

// room tells which automatic hosts have room for an egress IP. It looks
// addresses up by prefix, so that thousands of hosts with one range cost as
// much as one.
type room struct {
	*index
	// ranges are all ranges of automatic hosts, whether the host can take
	// anything or not.
	ranges map[netip.Prefix]bool
	// open are the hosts that can take one more address from a range, as far
	// as the host's network holds it.
	open map[netip.Prefix][]int
}

func newRoom(x *index) *room {
	r := &room{index: x, ranges: make(map[netip.Prefix]bool), open: make(map[netip.Prefix][]int)}
	for h, host := range x.Hosts {
		for _, prefix := range host.Ranges {
			r.ranges[prefix] = true
		}
		if x.canTake(h) && (host.Capacity == 0 || len(host.Claims) < host.Capacity) {
			for _, prefix := range effectiveRanges(host) {
				r.open[prefix] = append(r.open[prefix], h)
			}
		}
	}
	return r
}

// canTake tells whether the controller may assign anything to the host.
func (x *index) canTake(h int) bool {
	host := x.Hosts[h]
	return host.Automatic && host.Online && !host.Closed && !host.Evacuating && x.badHost(h) == ""
}

// effectiveRanges are the host's ranges as far as its network holds them: of
// two CIDRs one holds the other, or they have nothing in common.
func effectiveRanges(host Host) []netip.Prefix {
	if !host.Network.IsValid() {
		return host.Ranges
	}
	var effective []netip.Prefix
	for _, prefix := range host.Ranges {
		switch {
		case within(prefix, host.Network):
			effective = append(effective, prefix)
		case within(host.Network, prefix):
			effective = append(effective, host.Network)
		}
	}
	return effective
}

// covered tells whether a range of any automatic host holds the address.
func (r *room) covered(ip netip.Addr) bool {
	for prefix := range prefixesOf(ip) {
		if r.ranges[prefix] {
			return true
		}
	}
	return false
}

// fits tells whether a host could be given the address now.
func (r *room) fits(ip netip.Addr, namespace int) bool {
	for prefix := range prefixesOf(ip) {
		for _, h := range r.open[prefix] {
			if reason, _ := r.unfitOn(h, ip); reason == "" && !r.claimsSibling(h, namespace) {
				return true
			}
		}
	}
	return false
}

// claimsSibling tells whether the host claims any egress IP of the namespace.
func (r *room) claimsSibling(h, namespace int) bool {
	for _, ip := range r.Namespaces[namespace].Requests {
		if slices.Contains(r.addresses[ip].hosts, h) {
			return true
		}
	}
	return false
}

// prefixesOf yields every CIDR that holds the IPv4 address, widest first.
func prefixesOf(ip netip.Addr) func(yield func(netip.Prefix) bool) {
	return func(yield func(netip.Prefix) bool) {
		for bits := 0; bits <= ip.BitLen(); bits++ {
			prefix, err := ip.Prefix(bits)
			if err != nil || !yield(prefix) {
				return
			}
		}
	}
}
