package controllers

import (
	"net/netip"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// claimHistory remembers where the claims of automatic hosts come from. Those that a
// user wrote, or a restore, may be there before the NetNamespaces that request them,
// and before the lists of other hosts.
type claimHistory struct {
	// retention is how long such claims are awaited; 0 for not at all.
	retention time.Duration
	// known are the claims seen last, by UID of the HostSubnet.
	known map[types.UID]map[netip.Addr]origin
}

// origin is where a claim comes from.
type origin struct {
	// since is when the claim was first seen.
	since time.Time
	// settled: the controller wrote the claim, or a namespace has had the address
	// there. If it is not requested any more, a user has removed the request.
	settled bool
}

// awaited returns the claims of automatic hosts that are kept for now, by host. A claim
// is awaited from when it was first seen; after a start of the controller, from then.
func (c *claimHistory) awaited(v view, now time.Time) map[string][]netip.Addr {
	if c.retention == 0 {
		return nil
	}
	requested, listed := make(map[netip.Addr]bool), make(map[netip.Addr]int)
	for _, n := range v.requesters() {
		for _, ip := range parsed(n.egressIPs) {
			requested[ip] = true
		}
	}
	for _, h := range v.hosts {
		for _, ip := range parsed(h.AllEgressIPs()) {
			listed[ip]++
		}
	}
	all := make(map[string][]netip.Addr)
	known := make(map[types.UID]map[netip.Addr]origin, len(v.hosts))
	var had map[[2]string]bool
	for _, h := range v.hosts {
		if len(h.EgressCIDRs) == 0 || len(h.EgressIPs) == 0 {
			continue
		}
		claims := make(map[netip.Addr]origin, len(h.EgressIPs))
		for _, ip := range parsed(h.EgressIPs) {
			claim, ok := c.known[h.UID][ip]
			if !ok {
				if had == nil {
					had = v.assignedBefore()
				}
				claim = origin{since: now, settled: had[[2]string{h.Name, ip.String()}]}
			}
			claim.settled = claim.settled || (requested[ip] && listed[ip] == 1)
			claims[ip] = claim
			if c.waits(claim, now) {
				all[h.Name] = append(all[h.Name], ip)
			}
		}
		known[h.UID] = claims
	}
	c.known = known
	return all
}

func (c *claimHistory) waits(claim origin, now time.Time) bool {
	return !claim.settled && now.Sub(claim.since) < c.retention
}

// wrote remembers the list that the controller has written to a HostSubnet.
func (c *claimHistory) wrote(uid types.UID, claims []string) {
	if c.retention == 0 {
		return
	}
	if c.known[uid] == nil {
		if c.known == nil {
			c.known = make(map[types.UID]map[netip.Addr]origin)
		}
		c.known[uid] = make(map[netip.Addr]origin)
	}
	for _, ip := range parsed(claims) {
		if _, ok := c.known[uid][ip]; !ok {
			c.known[uid][ip] = origin{settled: true}
		}
	}
}

// next is when the next claim is awaited no longer, from now; at most limit.
func (c *claimHistory) next(now time.Time, limit time.Duration) time.Duration {
	for _, claims := range c.known {
		for _, claim := range claims {
			if c.waits(claim, now) {
				limit = min(limit, claim.since.Add(c.retention).Sub(now))
			}
		}
	}
	return limit
}

// assignedBefore are the addresses that a namespace has had on a host according to any
// status, as host and address.
func (v *view) assignedBefore() map[[2]string]bool {
	had := make(map[[2]string]bool)
	for _, n := range v.requesters() {
		for _, request := range n.status {
			if assigned(request.State) {
				had[[2]string{request.Host, request.IP}] = true
			}
		}
	}
	for _, h := range v.hosts {
		for _, claim := range h.Status.EgressIPs {
			if claim.Namespace != "" || claim.EgressIP != "" {
				had[[2]string{h.Name, claim.IP}] = true
			}
		}
	}
	return had
}

// parsed are those of the values that are addresses, with or without prefix length.
func parsed(written []string) []netip.Addr {
	ips := make([]netip.Addr, 0, len(written))
	for _, text := range written {
		if ip, err := netip.ParseAddr(text); err == nil {
			ips = append(ips, ip)
		} else if prefix, err := netip.ParsePrefix(text); err == nil {
			ips = append(ips, prefix.Addr())
		}
	}
	return ips
}
