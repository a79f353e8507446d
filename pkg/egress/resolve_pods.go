package egress

import (
	"net/netip"
	"strings"
)

// podNetworks are the pod networks of hosts, with the host of each.
type podNetworks struct {
	hosts   map[netip.Prefix]int
	lengths prefixLengths
}

// findPodNetworks finds the pod networks in which no egress IP can be: packets to a pod's
// address are inside traffic, and another pod may have it.
//
// A network that contains the address of a host is not believed: pods do not have
// addresses there, and a Node that says so must not void the egress IPs of its segment.
func findPodNetworks(hosts []Host) podNetworks {
	p := podNetworks{hosts: make(map[netip.Prefix]int, len(hosts))}
	for h := range hosts {
		for _, subnet := range hosts[h].Subnets {
			if _, known := p.hosts[subnet]; !known {
				p.hosts[subnet] = h
				p.lengths.add(subnet)
			}
		}
	}
	for h := range hosts {
		if !hosts[h].Confirmed {
			continue
		}
		for prefix := range p.lengths.of(hosts[h].IP) {
			delete(p.hosts, prefix)
		}
	}
	return p
}

// find returns the host in whose pod network the address is; none if it is in none.
func (p *podNetworks) find(ip netip.Addr) int {
	for prefix := range p.lengths.of(ip) {
		if h, found := p.hosts[prefix]; found {
			return h
		}
	}
	return none
}

func prefixList(prefixes []netip.Prefix) string {
	list := make([]string, 0, len(prefixes))
	for _, prefix := range prefixes {
		list = append(list, prefix.String())
	}
	return strings.Join(list, ", ")
}
