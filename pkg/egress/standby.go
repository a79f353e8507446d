package egress

import (
	"net/netip"
	"slices"
)

// What is looked ahead for. Beyond that, a host that takes over prepares when it
// is told to, which costs some tens of milliseconds more.
const (
	// maxStandbyHosts bounds the automatic hosts: each host's death is played
	// through.
	maxStandbyHosts = 16
	// maxStandbyClaims bounds what those hosts claim altogether.
	maxStandbyClaims = 256
)

// standbys are the egress IPs that the allocation would give to a host if one of
// the other automatic hosts died, in order of address.
func standbys(c Cluster, host string) []HostedIP {
	self, known := findHost(c.Hosts, host)
	if !known || !c.Hosts[self].Automatic || !c.Hosts[self].Online {
		return nil
	}
	var others []int
	claims := 0
	for h, other := range c.Hosts {
		if other.Automatic {
			claims += len(other.Claims)
			if h != self && other.Online && len(other.Claims) > 0 {
				others = append(others, h)
			}
		}
	}
	if len(others) >= maxStandbyHosts || claims > maxStandbyClaims {
		return nil
	}
	found := make(map[netip.Addr]bool)
	for _, dead := range others {
		after := c
		after.Hosts = slices.Clone(c.Hosts)
		// As the controller finds it when it places what the host has lost.
		after.Hosts[dead].Online, after.Hosts[dead].Claims = false, nil
		for _, claims := range Allocate(after).Hosts {
			if claims.Host != host {
				continue
			}
			for _, ip := range claims.Claims {
				if slices.Contains(c.Hosts[dead].Claims, ip) {
					found[ip] = true
				}
			}
		}
	}
	var list []HostedIP
	for _, n := range c.Namespaces {
		for _, ip := range n.Requests {
			if found[ip] {
				list = append(list, HostedIP{IP: ip, NetID: n.NetID, Namespace: n.Name})
				delete(found, ip)
			}
		}
	}
	slices.SortFunc(list, func(a, b HostedIP) int { return a.IP.Compare(b.IP) })
	return list
}
