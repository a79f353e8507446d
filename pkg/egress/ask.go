package egress

import (
	"net/netip"
	"slices"
	"strings"
)

// Ask is what would become of an address if one more namespace requested it, and it alone.
// result.Host is the host that claims it, or that the controller would assign it to.
//
// A request of its own takes nothing from others but the address itself: if a group requests that
// already, both are dropped, as the result says.
func Ask(c Cluster, ip netip.Addr) (result RequestResult) {
	const name = "(one more namespace)" // no namespace is called so
	taken := make(map[uint32]bool, len(c.Groups))
	for i := range c.Groups {
		taken[c.Groups[i].NetID] = true
	}
	id, _ := NextNetID(name, func(id uint32) bool { return taken[id] })
	asking := Group{Name: name, NetID: id, Requests: []netip.Addr{ip}}
	i, _ := slices.BinarySearchFunc(c.Groups, name, func(g Group, name string) int { return strings.Compare(g.Name, name) })
	c.Groups = slices.Insert(slices.Clone(c.Groups), i, asking)
	c.WithIPv6 = c.WithIPv6 || ip.Is6()
	group, _ := Resolve(c).Group(name)
	if len(group.Requests) == 0 {
		return RequestResult{}
	}
	result = group.Requests[0]
	if result.State != Unassigned {
		return result
	}
	for _, h := range Allocate(c).Hosts {
		if slices.Contains(h.All(), ip) {
			result.Host = h.Host
		}
	}
	return result
}
