package egress

import "net/netip"

// LastResort gives the verdict on those of the given hosts, offline for their
// hold-down alone, without which a namespace has no egress IP: they claim one, or
// could bear one that no other host can take. A hold-down chooses between hosts; where
// there is no choice, it would only prolong an outage. The result is by name, and
// empty for hosts that are not needed.
func LastResort(c Cluster, held map[string]bool) map[string]Verdict {
	needed := make(map[string]Verdict)
	for _, namespace := range Resolve(c).Namespaces {
		if !namespace.Dropped {
			continue
		}
		for _, request := range namespace.Requests {
			if request.State == HostOffline && held[request.Host] {
				needed[request.Host] = lastResort()
			}
		}
	}
	var unplaced []netip.Addr
	for _, request := range Allocate(c).Unplaced {
		unplaced = append(unplaced, request.IP)
	}
	for _, host := range c.Hosts {
		if !host.Automatic || !held[host.Name] {
			continue
		}
		for _, ip := range unplaced {
			if inRanges(host, ip) {
				needed[host.Name] = lastResort()
				break
			}
		}
	}
	return needed
}
