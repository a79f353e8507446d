package egress

import (
	"cmp"
	"net/netip"
	"slices"
)

// FurtherNetwork is a network of a host at another interface than the uplink, in which egress
// IPs of the host may be.
type FurtherNetwork struct {
	Interface string
	// CIDR is the network, without host bits.
	CIDR netip.Prefix
	// Gateway is the way to all else, of IPv6 perhaps where CIDR is of IPv4; the zero Addr if the
	// host's routes have none.
	Gateway netip.Addr
}

// MaxFurtherNetworks is the greatest number of these that a host publishes, and that are read
// of one.
const MaxFurtherNetworks = 32

// isNetwork reports whether there can be several machines in a network, and egress IPs.
func isNetwork(p netip.Prefix) bool {
	return !invalidNetwork(p) && p.Bits() > 0 && !p.IsSingleIP()
}

func sortFurther(networks []FurtherNetwork) []FurtherNetwork {
	slices.SortFunc(networks, func(a, b FurtherNetwork) int {
		return cmp.Or(a.CIDR.Compare(b.CIDR), cmp.Compare(a.Interface, b.Interface), a.Gateway.Compare(b.Gateway))
	})
	return slices.CompactFunc(networks, func(a, b FurtherNetwork) bool { return a.CIDR == b.CIDR && a.Interface == b.Interface })
}

// furtherFor returns the network at another interface that an egress IP belongs in: if no
// network of the uplink contains it, the most specific that does; of two, that of the first
// interface by name.
func (h *Host) furtherFor(ip netip.Addr) (found FurtherNetwork, further bool) {
	if len(h.FurtherNetworks) == 0 || slices.ContainsFunc(h.Networks, func(n netip.Prefix) bool { return n.Contains(ip) }) {
		return FurtherNetwork{}, false
	}
	for _, n := range h.FurtherNetworks { // in order of CIDR and interface
		if n.CIDR.Contains(ip) && (!further || n.CIDR.Bits() > found.CIDR.Bits()) {
			found, further = n, true
		}
	}
	return found, further
}

// allNetworks are those of the uplink and of other interfaces.
func (h *Host) allNetworks() []netip.Prefix {
	if len(h.FurtherNetworks) == 0 {
		return h.Networks
	}
	networks := slices.Clone(h.Networks)
	for _, n := range h.FurtherNetworks {
		if !slices.Contains(networks, n.CIDR) {
			networks = append(networks, n.CIDR)
		}
	}
	return networks
}

// describeNetworks names the networks of a family for messages, those of other interfaces with
// these.
func (h *Host) describeNetworks(f Family) string {
	text := prefixList(h.networksOf(f))
	for _, n := range h.FurtherNetworks {
		if FamilyOf(n.CIDR.Addr()) != f {
			continue
		}
		if text != "" {
			text += ", "
		}
		text += n.CIDR.String() + " at " + n.Interface
	}
	return text
}

// invalidAt is why an egress IP cannot be in a network of another interface; "" if it can.
func (n FurtherNetwork) invalidAt(ip netip.Addr) string {
	if ip == n.Gateway {
		return "it is the gateway of " + n.CIDR.String()
	}
	return invalidReasonIn(n.CIDR, ip)
}

// gatewayFor returns by which gateway an egress IP of a group leaves a network of another
// interface: by that of the host's routes, or else by that of the group, if it can be in a
// network of the interface and is not an address of the host.
func (n FurtherNetwork) gatewayFor(self *Host, g *Group, ip netip.Addr) netip.Addr {
	if n.Gateway.IsValid() {
		return n.Gateway
	}
	gateway := g.Gateways[FamilyOf(ip)]
	own := gateway == ip || gateway == self.IP || slices.Contains(self.Addresses, gateway)
	reached := gateway.IsLinkLocalUnicast() || slices.ContainsFunc(self.FurtherNetworks, func(other FurtherNetwork) bool {
		return other.Interface == n.Interface && other.CIDR.Contains(gateway) && invalidReasonIn(other.CIDR, gateway) == ""
	})
	if own || !reached {
		return netip.Addr{}
	}
	return gateway
}

// publishFurther are those of the networks that the kernel has which are published: none that
// has pods in it.
func publishFurther(c Cluster, networks []FurtherNetwork) []FurtherNetwork {
	var pods []netip.Prefix
	for i := range c.Hosts {
		pods = slices.Concat(pods, c.Hosts[i].Subnets, c.Hosts[i].podNetworks6())
	}
	kept := only(networks, func(n FurtherNetwork) bool {
		return isNetwork(n.CIDR) && !slices.ContainsFunc(pods, n.CIDR.Overlaps)
	})
	kept = sortFurther(slices.Clone(kept))
	return kept[:min(len(kept), MaxFurtherNetworks)]
}
