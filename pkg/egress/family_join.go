package egress

import (
	"net/netip"
	"slices"
)

// resolveEach resolves each family, and joins what becomes of both.
func (c Cluster) resolveEach(resolve func(view Cluster) Resolution) Resolution {
	ipv4 := resolve(c.of(IPv4))
	if !c.WithIPv6 {
		return ipv4
	}
	return c.join(ipv4, resolve(c.of(IPv6)))
}

// join returns one resolution of those of both families, which have the same objects. An
// object with egress IPs of one family has the result of that.
func (c Cluster) join(ipv4, ipv6 Resolution) Resolution {
	joined := Resolution{
		Groups: make([]GroupResult, len(c.Groups)),
		Hosts:  make([]HostResult, len(c.Hosts)),
	}
	for i := range c.Groups {
		joined.Groups[i] = c.Groups[i].join(ipv4.Groups[i], ipv6.Groups[i])
	}
	for i := range c.Hosts {
		joined.Hosts[i] = c.Hosts[i].join(ipv4.Hosts[i], ipv6.Hosts[i])
	}
	return joined
}

func (n *Group) join(ipv4, ipv6 GroupResult) GroupResult {
	if !n.has(IPv6) {
		return ipv4
	}
	joined := ipv6
	if n.has(IPv4) {
		joined.Requests = n.inListOrder(ipv4.Requests, ipv6.Requests)
		joined.Active = slices.Concat(ipv4.Active, ipv6.Active)
		joined.Dropped = ipv4.Dropped || ipv6.Dropped
		worst := ipv4
		if ipv6.Ready.rank() < ipv4.Ready.rank() {
			worst = ipv6
		}
		joined.Ready, joined.Reason, joined.Message = worst.Ready, worst.Reason, bothMessages(ipv4.Message, ipv6.Message)
	}
	joined.Drops = [2]bool{n.drops(IPv4, len(ipv4.Active) > 0), n.drops(IPv6, len(ipv6.Active) > 0)}
	return joined
}

// rank orders by how much is wrong.
func (r Readiness) rank() int {
	return slices.Index([]Readiness{ReadyFalse, ReadyUnknown, ReadyTrue}, r)
}

// inListOrder puts the results of both families in the order of the namespace's list: those
// of usable requests, then the others.
func (n *Group) inListOrder(ipv4, ipv6 []RequestResult) []RequestResult {
	rest := [2][]RequestResult{IPv4: ipv4, IPv6: ipv6}
	joined := make([]RequestResult, 0, len(ipv4)+len(ipv6))
	next := func(f Family) {
		joined, rest[f] = append(joined, rest[f][0]), rest[f][1:]
	}
	for _, ip := range n.Requests {
		next(FamilyOf(ip))
	}
	for _, written := range n.Invalid {
		next(RequestFamily(written))
	}
	return joined
}

func (h *Host) join(ipv4, ipv6 HostResult) HostResult {
	switch {
	case !h.has(IPv6):
		return ipv4
	case !h.has(IPv4):
		return ipv6
	}
	joined := ipv4
	if ipv6.rank() < ipv4.rank() {
		joined.Ready, joined.Reason = ipv6.Ready, ipv6.Reason
	}
	joined.Message = bothMessages(ipv4.Message, ipv6.Message)
	joined.Claims = slices.Concat(ipv4.Claims, ipv6.Claims)
	joined.Invalid = h.Invalid
	return joined
}

// rank orders by how much an administrator must know.
func (r *HostResult) rank() int {
	switch {
	case !r.Ready:
		return 0
	case r.Reason == ReasonEvacuated:
		return 1
	case r.Reason == ReasonAssigned:
		return 2
	}
	return 3
}

func bothMessages(ipv4, ipv6 string) string {
	if ipv4 == ipv6 {
		return ipv4
	}
	return "IPv4: " + ipv4 + " IPv6: " + ipv6
}

// join returns one allocation of those of both families, of the same hosts.
func (a Allocation) join(ipv6 Allocation) Allocation {
	joined := Allocation{
		Released: slices.Concat(a.Released, ipv6.Released),
		Unplaced: slices.Concat(a.Unplaced, ipv6.Unplaced),
	}
	for i, h := range a.Hosts {
		other := &ipv6.Hosts[i]
		joined.Hosts = append(joined.Hosts, HostClaims{
			Host: h.Host, Automatic: h.Automatic,
			Claims: slices.Concat(h.Claims, other.Claims), Assigned: slices.Concat(h.Assigned, other.Assigned),
		})
	}
	return joined
}

// except returns the result with what another one says about the families that it does not
// drop.
func (r GroupResult) except(other *GroupResult) GroupResult {
	for _, f := range []Family{IPv4, IPv6} {
		if other.Drops[f] || r.Drops[f] && len(onlyActive(other.Active, f)) == 0 {
			continue
		}
		r.Drops[f] = false
		r.Active = slices.Concat(onlyActive(r.Active, f.other()), onlyActive(other.Active, f))
		slices.SortStableFunc(r.Active, func(a, b Assignment) int { return int(FamilyOf(a.IP)) - int(FamilyOf(b.IP)) })
		r.Requests = slices.Clone(r.Requests)
		for i := range r.Requests {
			if textOf(f, r.Requests[i].IP) {
				r.Requests[i] = other.Requests[i]
			}
		}
	}
	return r
}

func onlyActive(active []Assignment, f Family) []Assignment {
	return only(active, func(a Assignment) bool { return FamilyOf(a.IP) == f })
}

// activeOf are the assignments in use of the address's family.
func (r *GroupResult) activeOf(ip netip.Addr) []Assignment {
	return onlyActive(r.Active, FamilyOf(ip))
}
