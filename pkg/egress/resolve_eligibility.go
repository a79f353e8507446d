package egress

import (
	"iter"
	"math/bits"
	"net/netip"
)

// eligibility is which automatic hosts can take an egress IP. It looks addresses up by
// prefix, so that thousands of hosts with one range cost as much as one.
type eligibility struct {
	*index
	// ranges are all ranges of automatic hosts, whether the host can take anything
	// or not.
	ranges  map[netip.Prefix]bool
	lengths prefixLengths
	// open are the hosts that can take one more address from a range, as far as the
	// host's network contains it.
	open map[netip.Prefix][]int
	// siblings is the last answer of siblingsOf, for namespace siblingsFor: all requests
	// of a namespace are looked at in a row.
	siblings    map[int]bool
	siblingsFor int
}

func newEligibility(x *index) *eligibility {
	r := &eligibility{index: x, ranges: make(map[netip.Prefix]bool), open: make(map[netip.Prefix][]int)}
	for h := range x.Hosts {
		host := &x.Hosts[h]
		for _, prefix := range host.Ranges {
			r.ranges[prefix] = true
			r.lengths.add(prefix)
		}
		if (x.canTake(h) || x.canTakeInDoubt(h)) && (host.Capacity == 0 || len(host.Claims) < host.Capacity) {
			for _, prefix := range effectiveRanges(host) {
				r.open[prefix] = append(r.open[prefix], h)
				r.lengths.add(prefix)
			}
		}
	}
	return r
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
	return host.Automatic && !host.Closed && !host.Evacuating && host.Confirmed && host.AgentReady && x.bad[h] == ""
}

// effectiveRanges are the host's ranges as far as its network contains them: of two
// CIDRs one contains the other, or they have nothing in common.
func effectiveRanges(host *Host) []netip.Prefix {
	if len(host.Networks) == 0 {
		return host.Ranges
	}
	var effective []netip.Prefix
	for _, prefix := range host.Ranges {
		if prefix.Addr().Is4() && !host.network().IsValid() {
			effective = append(effective, prefix)
		}
		for _, network := range host.Networks {
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

// covered reports whether a range of any automatic host contains the address.
func (r *eligibility) covered(ip netip.Addr) bool {
	for prefix := range r.lengths.of(ip) {
		if r.ranges[prefix] {
			return true
		}
	}
	return false
}

// fits reports whether a host could be given the address now.
func (r *eligibility) fits(ip netip.Addr, group int) bool {
	siblings := r.siblingsOf(group)
	for prefix := range r.lengths.of(ip) {
		for _, h := range r.open[prefix] {
			if reason, _ := r.invalidOn(h, ip); reason == "" && !r.Hosts[h].Failing[ip] && !siblings[h] {
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
