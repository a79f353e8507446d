package egress

import (
	"net/netip"
	"slices"

	"github.com/egressip-operator/egressip-operator/pkg/online"
)

// LastResort gives the verdict on those of the given hosts, offline for their
// hold-down alone, without which a namespace has no egress IP at all: they claim one,
// or would be given one if they were online. A hold-down chooses between hosts; where
// there is no choice, it would only prolong an outage. A namespace that is served and
// lacks a spare has a choice. The result is by name, and empty for hosts that are not
// needed.
func LastResort(c Cluster, held map[string]bool) map[string]online.Verdict {
	needed := make(map[string]online.Verdict)
	serve := func(h int) {
		needed[c.Hosts[h].Name] = online.LastResort(c.Hosts[h].Closed)
	}
	dropped := make(map[string]bool)
	for _, namespace := range Resolve(c).Namespaces {
		if !namespace.Dropped {
			continue
		}
		dropped[namespace.Name] = true
		for _, request := range namespace.Requests {
			if request.State == HostOffline && held[request.Host] {
				if h, ok := findHost(c.Hosts, request.Host); ok {
					serve(h)
				}
			}
		}
	}
	missing := make(map[netip.Addr]bool)
	for _, request := range Allocate(c).Unplaced {
		if dropped[request.Namespace] {
			missing[request.IP] = true
		}
	}
	if len(missing) == 0 {
		return needed
	}
	// What they would be given tells more than their ranges: there is room, the
	// network fits, and of several hosts no more are taken than it needs.
	online := c
	online.Hosts = slices.Clone(c.Hosts)
	for h := range online.Hosts {
		if held[online.Hosts[h].Name] {
			online.Hosts[h].Online = true
		}
	}
	for _, claims := range Allocate(online).Hosts {
		if held[claims.Host] && slices.ContainsFunc(claims.Claims, func(ip netip.Addr) bool { return missing[ip] }) {
			if h, ok := findHost(c.Hosts, claims.Host); ok {
				serve(h)
			}
		}
	}
	return needed
}
