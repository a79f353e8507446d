package dataplane

import (
	"net/netip"
	"slices"
)

// digest is what follows from the hosts and the networks of a State alone, of which there
// are thousands in a large cluster: the kernel has them as sets, and only those that it
// can hold. It must not be changed.
type digest struct {
	// givenHosts and givenInside are what it was made of, overIPv6 is that of the State.
	givenHosts  []netip.Addr
	givenInside []netip.Prefix
	overIPv6    bool
	// hosts and networks are those that can be used, hostSet and inside the same as the
	// sets have them: all hosts are inside, those of hostSet are known to the overlay.
	hosts    []netip.Addr
	networks []netip.Prefix
	hostSet  map[netip.Addr]struct{}
	inside   map[netip.Prefix]struct{}
}

// digested returns the digest of a State: the former one, where that holds. former may be
// nil.
func digested(s State, former *digest) *digest {
	if former != nil && former.overIPv6 == s.overIPv6() && slices.Equal(former.givenHosts, s.Hosts) && slices.Equal(former.givenInside, s.Inside) {
		return former
	}
	d := &digest{
		givenHosts: slices.Clone(s.Hosts), givenInside: slices.Clone(s.Inside), overIPv6: s.overIPv6(),
		hosts: only(s.Hosts, isAddress), networks: masked(s.Inside),
	}
	d.hostSet = make(map[netip.Addr]struct{}, len(d.hosts))
	d.inside = make(map[netip.Prefix]struct{}, len(d.hosts)+len(d.networks))
	for _, p := range d.networks {
		d.inside[p] = struct{}{}
	}
	for _, h := range d.hosts {
		if h.Is6() == d.overIPv6 {
			d.hostSet[h] = struct{}{}
		}
		d.inside[netip.PrefixFrom(h, h.BitLen())] = struct{}{}
	}
	return d
}
