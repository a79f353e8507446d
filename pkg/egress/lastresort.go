package egress

import (
	"net/netip"
	"slices"

	"github.com/egressip-operator/egressip-operator/pkg/online"
)

// LastResort picks hosts, of those that are offline only for their hold-down, that a
// namespace cannot do without: without them it has no egress IP at all, and they claim
// one, or would be given one if they were online. A hold-down chooses between hosts.
// Without a choice it would only prolong an outage. A namespace that is served and
// lacks a spare has a choice. The result is by name, without hosts that are not needed.
func LastResort(c Cluster, heldDown map[string]bool) map[string]online.Verdict {
	// A host that answers is better than one that does not.
	c = c.withoutDoubtful()
	needed := make(map[string]online.Verdict)
	serve := func(name string) {
		if h, ok := findHost(c.Hosts, name); ok {
			needed[name] = online.LastResort(c.Hosts[h].Closed)
		}
	}
	dropped := make(map[string][2]bool)
	for _, group := range Resolve(c).Groups {
		if !group.Dropped {
			continue
		}
		dropped[group.Name] = group.Drops
		for _, request := range group.Requests {
			if f, _ := familyOfText(request.IP); group.Drops[f] && request.State == HostOffline && heldDown[request.Host] {
				serve(request.Host)
			}
		}
	}
	missing := make(map[netip.Addr]bool)
	for _, request := range Allocate(c).Unplaced {
		if dropped[request.Group][FamilyOf(request.IP)] {
			missing[request.IP] = true
		}
	}
	if len(missing) == 0 {
		return needed
	}
	// An allocation considers more than ranges: there is capacity, the network fits,
	// and of several hosts no more are used than needed.
	for _, claims := range Allocate(c.withOnline(heldDown)).Hosts {
		if heldDown[claims.Host] && slices.ContainsFunc(claims.All(), func(ip netip.Addr) bool { return missing[ip] }) {
			serve(claims.Host)
		}
	}
	return needed
}

// withoutDoubtful returns the cluster with doubtful hosts considered offline.
func (c Cluster) withoutDoubtful() Cluster {
	c.Hosts = slices.Clone(c.Hosts)
	for h := range c.Hosts {
		c.Hosts[h].Doubtful = false
	}
	return c
}

// withOnline returns the cluster as it would be with these hosts online.
func (c Cluster) withOnline(hosts map[string]bool) Cluster {
	c.Hosts = slices.Clone(c.Hosts)
	for h := range c.Hosts {
		if hosts[c.Hosts[h].Name] {
			c.Hosts[h].Online = true
		}
	}
	return c
}
