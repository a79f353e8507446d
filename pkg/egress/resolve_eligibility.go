package egress

import (
	"iter"
	"math/bits"
	"net/netip"
	"slices"
)

// eligibility is which hosts that the controller assigns to can take an egress IP. It looks addresses up by
// prefix, so that thousands of hosts with one range cost as much as one.
type eligibility struct {
	*index
	// ranges are all ranges of hosts for what NetNamespaces, and for what EgressIPs request,
	// whether the host can take anything or not.
	ranges  [2]map[netip.Prefix]bool
	lengths prefixLengths
	// open are the hosts that can take one more address from a range, as far as the
	// host's network contains it.
	open [2]map[netip.Prefix][]int
	// siblings is the last answer of siblingsOf, for namespace siblingsFor: all requests
	// of a namespace are looked at in a row.
	siblings    map[int]bool
	siblingsFor int
}

func newEligibility(x *index) *eligibility {
	r := &eligibility{index: x}
	for kind := range r.ranges {
		r.ranges[kind], r.open[kind] = make(map[netip.Prefix]bool), make(map[netip.Prefix][]int)
	}
	for h := range x.Hosts {
		host := &x.Hosts[h]
		open := (x.canTake(h) || x.canTakeInDoubt(h)) && (host.Capacity == 0 || len(host.Claims) < host.Capacity)
		for _, prefix := range host.Ranges {
			r.ranges[forNamespaces][prefix] = true
			r.lengths.add(prefix)
		}
		for kind, ranges := range rangesOf(host, x.ofEgressIPs) {
			for _, prefix := range ranges {
				r.ranges[kind][prefix] = true
				r.lengths.add(prefix)
				if open {
					r.open[kind][prefix] = append(r.open[kind][prefix], h)
				}
			}
		}
	}
	return r
}

// Who requests what a range of a host is for.
const (
	forNamespaces = iota
	forEgressIPs
)

func kindOf(g *Group) int {
	if g.ofEgressIP() {
		return forEgressIPs
	}
	return forNamespaces
}

// rangesOf are the addresses that the host is one for, as far as its network contains them, by
// who requests them. Those for EgressIPs are left out where there are none.
func rangesOf(host *Host, egressIPs bool) [2][]netip.Prefix {
	var ranges [2][]netip.Prefix
	if host.Automatic {
		ranges[forNamespaces] = effectiveRanges(host)
	}
	if egressIPs {
		ranges[forEgressIPs] = ranges[forNamespaces]
		if host.Assignable {
			ranges[forEgressIPs] = host.masked()
		}
	}
	return ranges
}

// masked are the host's networks, and what its ranges add to them.
func (h *Host) masked() []netip.Prefix {
	ranges := make([]netip.Prefix, 0, len(h.Networks)+len(h.FurtherNetworks))
	for _, network := range h.allNetworks() {
		ranges = append(ranges, network.Masked())
	}
	if len(h.networksOf(IPv4)) == 0 || len(h.networksOf(IPv6)) == 0 {
		ranges = append(ranges, effectiveRanges(h)...) // of a family whose network is not known
	}
	slices.SortFunc(ranges, netip.Prefix.Compare)
	return slices.Compact(ranges)
}

// canTake reports whether the controller may assign anything to the host: what is not
// known to work is given nothing.
func (x *index) canTake(h int) bool { return x.Hosts[h].Online && x.suits(h) }

// canTakeInDoubt reports whether the controller may assign to the host what no other
// host can take.
func (x *index) canTakeInDoubt(h int) bool { return x.Hosts[h].Doubtful && x.suits(h) }

// suits reports whether the controller may assign anything to the host, apart from who
// is online.
func (x *index) suits(h int) bool {
	host := &x.Hosts[h]
	return (host.Automatic || host.Assignable) && !host.Closed && !host.Evacuating && host.Confirmed && host.AgentReady && x.bad[h] == ""
}

// effectiveRanges are the host's ranges as far as its networks contain them: of two
// CIDRs one contains the other, or they have nothing in common.
func effectiveRanges(host *Host) []netip.Prefix {
	networks := host.allNetworks()
	if len(networks) == 0 {
		return host.Ranges
	}
	var effective []netip.Prefix
	for _, prefix := range host.Ranges {
		if prefix.Addr().Is4() && !host.network().IsValid() {
			effective = append(effective, prefix)
		}
		for _, network := range networks {
			switch {
			case within(prefix, network):
				effective = append(effective, prefix)
			case within(network, prefix):
				effective = append(effective, network)
			}
		}
	}
	return effective
}

// covered reports whether any host is one for the address, as the group requests it.
func (r *eligibility) covered(ip netip.Addr, group int) bool {
	ranges := r.ranges[kindOf(&r.Groups[group])]
	for prefix := range r.lengths.of(ip) {
		if ranges[prefix] {
			return true
		}
	}
	return false
}

// fits reports whether a host could be given the address now.
func (r *eligibility) fits(ip netip.Addr, group int) bool {
	siblings, open := r.siblingsOf(group), r.open[kindOf(&r.Groups[group])]
	for prefix := range r.lengths.of(ip) {
		for _, h := range open[prefix] {
			if reason, _ := r.invalidOn(h, ip); reason == "" && !r.Hosts[h].Failing[ip] && !siblings[h] && r.Groups[group].mayBeOn(&r.Hosts[h]) {
				return true
			}
		}
	}
	return false
}

// siblingsOf are the hosts that claim any egress IP of the namespace.
func (r *eligibility) siblingsOf(group int) map[int]bool {
	if r.siblings == nil || r.siblingsFor != group {
		r.siblings, r.siblingsFor = make(map[int]bool), group
		for _, a := range r.requested[group] {
			for _, h := range a.hosts {
				r.siblings[h] = true
			}
		}
	}
	return r.siblings
}

// prefixLengths are the lengths that any of some CIDRs has: bit 24 stands for /24. Most
// clusters have one or two.
type prefixLengths [3]uint64

func (l *prefixLengths) add(prefix netip.Prefix) { l[prefix.Bits()/64] |= 1 << (prefix.Bits() % 64) }

// of yields every CIDR of these lengths that contains the address, widest first.
func (l *prefixLengths) of(ip netip.Addr) iter.Seq[netip.Prefix] {
	return func(yield func(netip.Prefix) bool) {
		for length := l.next(0); length <= ip.BitLen(); length = l.next(length + 1) {
			prefix, err := ip.Prefix(length)
			if err != nil || !yield(prefix) {
				return
			}
		}
	}
}

// next returns the least length from the given one on; more than any has if there is none.
func (l *prefixLengths) next(length int) int {
	word := length / 64
	rest := l[word] >> (length % 64) << (length % 64)
	for rest == 0 {
		if word++; word == len(l) {
			return 64 * len(l)
		}
		rest = l[word]
	}
	return 64*word + bits.TrailingZeros64(rest)
}
