package egress

import (
	"net/netip"
	"slices"
)

// findFurther finds which addresses hosts have in addition to hostIP that no egress IP can
// be, see Host.Further and Host.SharesSegment. An address that some host has as an egress IP,
// as its agent reports, is none: whoever has broken into a node could take the egress IPs of
// others away otherwise, which not even a machine that answers ARP for them can do.
func findFurther(hosts []Host) {
	seen := make(map[netip.Addr]bool)
	for i := range hosts {
		for _, ip := range hosts[i].Addresses {
			seen[ip] = true
		}
	}
	if len(seen) == 0 {
		return
	}
	for i := range hosts {
		for ip, report := range hosts[i].Reports {
			if report.Configured {
				delete(seen, ip)
			}
		}
	}
	shares := sharedSegments(hosts)
	for i := range hosts {
		host := &hosts[i]
		if !host.Confirmed || host.Gone || host.Shadowed {
			continue
		}
		host.Further = only(host.Addresses, func(ip netip.Addr) bool { return seen[ip] })
		host.SharesSegment = shares(host)
	}
	findShared(hosts)
}

// findShared finds which networks at other interfaces several hosts are in, as the agents of all
// of them say.
func findShared(hosts []Host) {
	count := make(map[netip.Prefix]int)
	each := func(do func(*Host, netip.Prefix)) {
		for i := range hosts {
			var last netip.Prefix // in order: an interface may be in the network of another
			for _, n := range hosts[i].FurtherNetworks {
				if hosts[i].Confirmed && n.CIDR != last {
					do(&hosts[i], n.CIDR)
				}
				last = n.CIDR
			}
		}
	}
	each(func(_ *Host, cidr netip.Prefix) { count[cidr]++ })
	each(func(h *Host, cidr netip.Prefix) {
		if count[cidr] > 1 {
			h.SharedNetworks = append(h.SharedNetworks, cidr)
		}
	})
}

// sharedSegments returns what says whether the segment of a host is that of another one, too,
// as the agents of both say.
func sharedSegments(hosts []Host) func(*Host) bool {
	count := make(map[netip.Prefix]int)
	for i := range hosts {
		host := &hosts[i]
		if network := host.network(); host.Confirmed && network.IsValid() && !host.Cloud {
			count[network]++
		}
	}
	return func(host *Host) bool { return !host.Cloud && count[host.network()] > 1 }
}

// furtherOf are the hosts with each further address on a segment that they share. Their
// agents are believed there: any machine of the segment can take an address by ARP anyway,
// unless a host has it already. An address elsewhere counts for the host itself alone.
func furtherOf(hosts []Host) map[netip.Addr]int {
	var further map[netip.Addr]int
	for i := range hosts {
		host := &hosts[i]
		if !host.SharesSegment && len(host.SharedNetworks) == 0 {
			continue
		}
		for _, ip := range host.Further {
			onUplink := host.SharesSegment && host.network().Contains(ip)
			if !onUplink && !slices.ContainsFunc(host.SharedNetworks, func(n netip.Prefix) bool { return n.Contains(ip) }) {
				continue
			}
			if further == nil {
				further = make(map[netip.Addr]int)
			}
			if _, found := further[ip]; !found {
				further[ip] = i
			}
		}
	}
	return further
}

// hasItself reports whether the host has the address in addition to hostIP, not as an egress
// IP.
func (h *Host) hasItself(ip netip.Addr) bool {
	_, found := slices.BinarySearchFunc(h.Further, ip, netip.Addr.Compare)
	return found
}

// isHostIP reports whether the address is a host's own. What a Node alone says does
// not take an egress IP away from a namespace.
func (x *index) isHostIP(ip netip.Addr) bool {
	if _, found := x.further[ip]; found {
		return true
	}
	return slices.ContainsFunc(x.hostsByIP[ip], func(h int) bool { return x.Hosts[h].Confirmed })
}

func hostsByIP(hosts []Host) map[netip.Addr][]int {
	byIP := make(map[netip.Addr][]int, len(hosts))
	for h := range hosts {
		if ip := hosts[h].IP; ip.IsValid() {
			byIP[ip] = append(byIP[ip], h)
		}
	}
	for ip, same := range byIP {
		byIP[ip] = unlessGone(hosts, same)
	}
	return byIP
}

// unlessGone leaves out hosts whose Node is gone, if there are others. A machine that
// registered again under another name has the address of the former one, and what a
// user claims elsewhere since the Node went is meant to work.
func unlessGone(hosts []Host, positions []int) []int {
	if len(positions) < 2 {
		return positions
	}
	there := make([]int, 0, len(positions))
	for _, h := range positions {
		if !hosts[h].Gone {
			there = append(there, h)
		}
	}
	if len(there) == 0 {
		return positions
	}
	return there
}
