package egress

import (
	"net/netip"
	"slices"
)

// The limits of looking ahead. Beyond them, a host prepares when it takes over, which
// costs some tens of milliseconds more.
const (
	// maxStandbyHosts bounds the automatic hosts: the death of each is simulated.
	maxStandbyHosts = 16
	// maxStandbyClaims bounds the claims of all these hosts.
	maxStandbyClaims = 256
)

// standbys are the egress IPs that the allocation would give to a host if one of the
// other automatic hosts died, in order of address.
func standbys(c Cluster, host string) []HostedIP {
	self, known := findHost(c.Hosts, host)
	if !known || !c.Hosts[self].Managed || !c.Hosts[self].Online {
		return nil
	}
	found := make(map[netip.Addr]bool)
	for _, dead := range mayDie(c, self) {
		for _, ip := range takenOver(c, host, dead) {
			found[ip] = true
		}
	}
	var list []HostedIP
	for _, n := range c.Groups {
		for _, ip := range n.Requests {
			if found[ip] {
				list = append(list, c.placed(&c.Hosts[self], HostedIP{IP: ip, NetID: n.NetID, Group: n.Name}))
				delete(found, ip)
			}
		}
	}
	slices.SortFunc(list, func(a, b HostedIP) int { return a.IP.Compare(b.IP) })
	return list
}

// mayDie are the automatic hosts, other than the host itself, whose death would move
// egress IPs; none in a cluster that is too large to look ahead.
func mayDie(c Cluster, self int) []int {
	var others []int
	claims := 0
	for h, other := range c.Hosts {
		if !other.Managed {
			continue
		}
		claims += len(other.Claims)
		if h != self && other.Online && len(other.Claims) > other.byHand() {
			others = append(others, h)
		}
	}
	if len(others) >= maxStandbyHosts || claims > maxStandbyClaims {
		return nil
	}
	return others
}

// takenOver are the egress IPs that the host would be given if the other one died.
func takenOver(c Cluster, host string, dead int) []netip.Addr {
	lost := slices.DeleteFunc(slices.Clone(c.Hosts[dead].Claims), func(ip netip.Addr) bool { return !c.Hosts[dead].manages(ip) })
	c.Hosts = slices.Clone(c.Hosts)
	// As the controller finds it when it places what the host has lost.
	c.Hosts[dead].Online, c.Hosts[dead].Assigned = false, nil
	c.Hosts[dead].Claims = slices.DeleteFunc(slices.Clone(c.Hosts[dead].Claims), func(ip netip.Addr) bool { return slices.Contains(lost, ip) })
	var taken []netip.Addr
	for _, claims := range Allocate(c).Hosts {
		if claims.Host != host {
			continue
		}
		for _, ip := range claims.All() {
			if slices.Contains(lost, ip) {
				taken = append(taken, ip)
			}
		}
	}
	return taken
}
