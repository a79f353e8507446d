package egress

import (
	"net/netip"
	"slices"
)

// maxRounds bounds how often Settle writes: an evacuation moves one claim in a round.
const maxRounds = 4096

// Settle returns the cluster as the controller leaves it: it writes the claims that Allocate gives
// to hosts until nothing changes. rounds is how often it wrote something; settled is false if
// there was no end to it. What depends on time, such as claims that are awaited, stays as it is.
func Settle(c Cluster) (_ Cluster, rounds int, settled bool) {
	for rounds = range maxRounds {
		next, changed := writeOnce(c)
		if !changed {
			return c, rounds, true
		}
		c = next
	}
	return c, maxRounds, false
}

// writeOnce writes the claims of one allocation. changed reports whether any is another than before.
func writeOnce(c Cluster) (_ Cluster, changed bool) {
	allocation := Allocate(c)
	c.Hosts = slices.Clone(c.Hosts)
	for _, claims := range allocation.Hosts {
		if i, found := findHost(c.Hosts, claims.Host); found {
			changed = c.Hosts[i].write(claims) || changed
		}
	}
	return c, changed
}

// write gives the host the claims that the controller manages. It reports whether that changed
// anything. The lists of before are not changed.
func (h *Host) write(claims HostClaims) (changed bool) {
	var own []netip.Addr
	if claims.Automatic {
		own = claims.Claims
	} else {
		own = only(h.Claims, func(ip netip.Addr) bool { return !slices.Contains(h.Assigned, ip) })
	}
	all, assigned := sortedUnique(slices.Concat(own, claims.Assigned)), sortedUnique(slices.Clone(claims.Assigned))
	changed = !slices.Equal(all, h.Claims) || !slices.Equal(assigned, h.Assigned)
	h.Claims, h.Assigned = all, assigned
	return changed
}
