package egress

import (
	"net/netip"
	"slices"
)

// ipv6Networks reads the IPv6 networks that the controller has published for a host.
func ipv6Networks(published []string) []netip.Prefix {
	var networks []netip.Prefix
	for _, written := range published {
		// A network of everything would make all traffic inside traffic.
		if p, err := netip.ParsePrefix(written); err == nil && isIPv6(p.Addr()) && p.Bits() > 0 {
			networks = append(networks, p.Masked())
		}
	}
	slices.SortFunc(networks, netip.Prefix.Compare)
	return slices.Compact(networks)
}

func isIPv6(ip netip.Addr) bool { return ip.Is6() && !ip.Is4In6() }

// podNetworks6 are the networks of the host's pods, addresses6 its own addresses.
func (h *Host) podNetworks6() []netip.Prefix {
	return slices.DeleteFunc(slices.Clone(h.IPv6), netip.Prefix.IsSingleIP)
}

func (h *Host) addresses6() []netip.Prefix {
	return slices.DeleteFunc(slices.Clone(h.IPv6), func(p netip.Prefix) bool { return !p.IsSingleIP() })
}

// strayIPv6 returns an IPv6 address of a pod that is dropped outside the cluster and is in
// none of its known networks; invalid if there is none. Such a pod cannot reach others
// like it.
func strayIPv6(plan Plan) netip.Addr {
	for _, p := range plan.Pods {
		if p.IP.Is4() || p.Kind == PathNode {
			continue
		}
		if !slices.ContainsFunc(plan.Inside, func(n netip.Prefix) bool { return n.Contains(p.IP) }) {
			return p.IP
		}
	}
	return netip.Addr{}
}

// withPodNetworks returns the pod networks of a host, and of each family in which it has
// none, those of the cluster: any address there may be one of its own.
func withPodNetworks(own, cluster []netip.Prefix) []netip.Prefix {
	all := slices.Clone(own)
	for _, p := range cluster {
		sameFamily := func(o netip.Prefix) bool { return o.Addr().Is4() == p.Addr().Is4() }
		if !slices.ContainsFunc(own, sameFamily) {
			all = append(all, p)
		}
	}
	return all
}
