package egress

import (
	"cmp"
	"net/netip"
	"slices"
)

// MaxAddresses is the greatest number of addresses that a host publishes in addition to
// its hostIP, and that are read of one.
const MaxAddresses = 32

// LinkLocal returns the network that is inside everywhere (RFC 3927): what has such an
// address, as node-local DNS and the metadata service of a cloud do, is that of the node
// itself or of its segment, and no router may carry packets to it.
func LinkLocal() netip.Prefix { return netip.PrefixFrom(netip.AddrFrom4([4]byte{169, 254}), 16) }

// insideNetworks are the networks of pods, those of link-local addresses, hosts' IPv6
// addresses, and those given. self is the planned host.
func insideNetworks(c Cluster, self string, given []netip.Prefix) []netip.Prefix {
	networks := make([]netip.Prefix, 0, len(c.Hosts)+len(given)+1)
	networks = append(networks, LinkLocal())
	for i := range c.Hosts {
		host := &c.Hosts[i]
		networks = append(networks, host.Subnets...)
		networks = append(networks, host.podNetworks6()...)
		// As with IPv4, see hostAddresses.
		if host.Confirmed || host.Name == self {
			networks = append(networks, host.addresses6()...)
		}
	}
	for _, prefix := range given {
		if prefix.IsValid() {
			networks = append(networks, prefix.Masked())
		}
	}
	slices.SortFunc(networks, netip.Prefix.Compare)
	return slices.Compact(networks)
}

// inclusive adds to networks those further networks, such as those of single addresses, that
// none of them contains. Both lists are in order.
func inclusive(networks, further []netip.Prefix) []netip.Prefix {
	known := newNetworkSet(networks)
	for _, p := range further {
		if !known.has(p) {
			networks = append(networks, p)
		}
	}
	slices.SortFunc(networks, netip.Prefix.Compare)
	return networks
}

// networkSet finds the network that something is in. It looks by length, of which there
// are few: each host has a network, may have dozens of addresses, and has dozens of pods.
type networkSet struct {
	networks map[netip.Prefix]bool
	lengths  map[int]bool
}

func newNetworkSet(networks []netip.Prefix) networkSet {
	s := networkSet{make(map[netip.Prefix]bool, len(networks)), make(map[int]bool)}
	for _, network := range networks {
		s.networks[network.Masked()], s.lengths[network.Bits()] = true, true
	}
	return s
}

// has reports whether a network is in one of the set.
func (s networkSet) has(p netip.Prefix) bool {
	for bits := range s.lengths {
		if network, err := p.Addr().Prefix(bits); err == nil && bits <= p.Bits() && s.networks[network] {
			return true
		}
	}
	return false
}

// nodeAddresses are the addresses of hosts that are inside in addition to their hostIPs.
//
// A host's agent alone is not believed, and neither is its Node: whoever has broken into
// one of them could name the address of a server outside, and all pods would send to it
// with their nodes' addresses. An address counts if the agent has seen it, and
//
//   - the Node lists it, which is another party's word; or
//   - it is on the segment of the host and at least one other, as both their agents say.
//     There a machine can take over any address by ARP anyway. A virtual IP, which no
//     Node lists, is of this kind.
//
// An egress IP never counts.
func nodeAddresses(c Cluster) []netip.Prefix {
	if !slices.ContainsFunc(c.Hosts, func(h Host) bool { return len(h.Addresses) > 0 }) {
		return nil
	}
	shares := sharedSegments(c.Hosts)
	believed := make(map[netip.Addr]bool)
	for i := range c.Hosts {
		host := &c.Hosts[i]
		if !host.Confirmed || host.Gone || host.Shadowed {
			continue
		}
		shared := shares(host)
		for _, ip := range host.Addresses {
			if shared && host.network().Contains(ip) || slices.Contains(host.Listed, ip) {
				believed[ip] = true
			}
		}
	}
	withoutEgressIPs(c, believed)
	addresses := make([]netip.Prefix, 0, len(believed))
	for ip := range believed {
		addresses = append(addresses, netip.PrefixFrom(ip, ip.BitLen()))
	}
	slices.SortFunc(addresses, netip.Prefix.Compare)
	return addresses
}

// withoutEgressIPs deletes all requested and claimed addresses.
func withoutEgressIPs(c Cluster, ips map[netip.Addr]bool) {
	for i := range c.Groups {
		for _, ip := range c.Groups[i].Requests {
			delete(ips, ip)
		}
	}
	for i := range c.Hosts {
		for _, ip := range c.Hosts[i].Claims {
			delete(ips, ip)
		}
	}
}

// toPublish returns which of the kernel's addresses a host publishes: all that are not
// inside for another reason, up to MaxAddresses, those on the uplink's segment first. It also
// returns how many are left out. The list kernel does not contain the egress IPs that we
// configured. An address of the host's own that a namespace requests is therefore published
// as well: see findFurther.
func toPublish(self Host, networks []netip.Prefix, kernel []netip.Addr) (addresses []netip.Addr, omitted int) {
	left := make(map[netip.Addr]bool, len(kernel))
	for _, ip := range kernel {
		within := func(p netip.Prefix) bool { return p.Contains(ip) }
		if usable4(ip) && ip != self.IP && !slices.ContainsFunc(networks, within) {
			left[ip] = true
		}
	}
	for ip := range left {
		addresses = append(addresses, ip)
	}
	elsewhere := func(ip netip.Addr) int {
		if self.network().Contains(ip) {
			return 0
		}
		return 1
	}
	slices.SortFunc(addresses, func(a, b netip.Addr) int { return cmp.Or(elsewhere(a)-elsewhere(b), a.Compare(b)) })
	if len(addresses) > MaxAddresses {
		addresses, omitted = addresses[:MaxAddresses], len(addresses)-MaxAddresses
	}
	slices.SortFunc(addresses, netip.Addr.Compare)
	return addresses, omitted
}

// readAddresses reads a list of a HostSubnet's status. What is no usable address, or
// beyond the bound, does not count.
func readAddresses(written []string) []netip.Addr {
	if len(written) == 0 {
		return nil
	}
	addresses := make([]netip.Addr, 0, min(len(written), MaxAddresses))
	for _, text := range written[:min(len(written), MaxAddresses)] {
		if ip, err := netip.ParseAddr(text); err == nil && usable4(ip) {
			addresses = append(addresses, ip)
		}
	}
	return sortedUnique(addresses)
}
