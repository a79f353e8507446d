package egress

import "fmt"

// parted are the hosts of a cluster by the family of their hostIP, as far as they have it: how many,
// and the first of each by name. The overlay does not lead from one family to the other.
type parted struct {
	hosts [2]int
	first [2]string
}

// partedHosts counts them for IPv6. IPv4 is not concerned: a host with a hostIP of IPv6 has no
// address of IPv4, and so no pods that leave by it.
func partedHosts(c Cluster) parted {
	var p parted
	if c.Family != IPv6 {
		return p
	}
	for i := range c.Hosts {
		host := &c.Hosts[i]
		if !host.IP.IsValid() || !host.Confirmed || host.Gone {
			continue
		}
		f := HostFamily(host.IP)
		if p.hosts[f]++; p.hosts[f] == 1 {
			p.first[f] = host.Name
		}
	}
	return p
}

// outOfReach returns the family by which hosts are known that reach none of a namespace's egress
// hosts, those in use and those that could be; false if there are none.
func (r *resolver) outOfReach(n int) (f Family, found bool) {
	reached := [2]bool{r.parted.hosts[IPv4] == 0, r.parted.hosts[IPv6] == 0}
	if reached == [2]bool{true, true} {
		return IPv4, false
	}
	for _, a := range r.requested[n] {
		if r.tier(a) != useless {
			reached[HostFamily(r.Hosts[a.hosts[0]].IP)] = true
		}
	}
	if !reached[IPv4] {
		return IPv4, true
	}
	return IPv6, !reached[IPv6]
}

// message says what that means for a namespace. Whether it has pods there is not known to whoever
// decides this.
func (p parted) message(f Family) string {
	return fmt.Sprintf("But the overlay does not lead there from %s, with a hostIP of %s, so that what pods there send by IPv6 is dropped: "+
		"give the namespace an egress IP on such a host, too.", countedHosts(p.first[f], p.hosts[f]), f)
}
