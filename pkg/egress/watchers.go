package egress

import (
	"cmp"
	"hash/fnv"
	"net/netip"
	"slices"
)

// witnesses is how many hosts on each side of an egress host watch it, in addition to
// those whose pods use it. With two on each side, a host that dies together with one of
// them is still found dead by a majority.
const witnesses = 2

// Peer is a host whose health another one watches.
type Peer struct {
	Name string
	IP   netip.Addr
}

// ServingHosts are the hosts whose health matters to others, in order of name: those
// that have egress IPs, and the automatic ones, which may get some at any moment.
func ServingHosts(c Cluster, r Resolution) []Peer {
	var peers []Peer
	for h, host := range c.Hosts {
		if host.IP.Is4() && isEgressHost(c, r, h) {
			peers = append(peers, Peer{Name: host.Name, IP: host.IP})
		}
	}
	return peers
}

// isEgressHost looks at hosts that have the same position in c and in r, as
// Resolve leaves them.
func isEgressHost(c Cluster, r Resolution, h int) bool {
	return c.Hosts[h].Automatic ||
		h < len(r.Hosts) && slices.ContainsFunc(r.Hosts[h].Claims, ClaimResult.Assigned)
}

// Watched are the hosts, other than the host itself, whose health its agent
// watches, in order of name:
//
//   - those that have egress IPs of namespaces with pods on the host: its packets go
//     there;
//   - egress hosts whose witness it is, so that a host used only by its own pods is
//     still watched;
//   - if it is an egress host, its own witnesses, by which it finds out that it is cut
//     off itself.
//
// Hosts form a ring, ordered by a hash of their names, so that neighbours there are
// seldom neighbours in a rack. Witnesses are the next hosts on both sides.
func Watched(c Cluster, r Resolution, host string, pods []Pod) []Peer {
	here := make(map[string]bool)
	for _, pod := range pods {
		here[pod.Namespace] = true
	}
	names := make(map[string]bool)
	for _, namespace := range r.Namespaces {
		if !here[namespace.Name] {
			continue
		}
		for _, request := range namespace.Requests {
			if request.State == Active || request.State == Standby || request.State == HostOffline {
				names[request.Host] = true
			}
		}
	}
	for _, h := range neighbours(c, host) {
		self, known := findHost(c.Hosts, host)
		if isEgressHost(c, r, h) || known && isEgressHost(c, r, self) {
			names[c.Hosts[h].Name] = true
		}
	}
	delete(names, host)
	var peers []Peer
	for _, h := range c.Hosts {
		if names[h.Name] && h.IP.Is4() {
			peers = append(peers, Peer{Name: h.Name, IP: h.IP})
		}
	}
	return peers
}

// neighbours are the positions of the next hosts on both sides in the ring.
func neighbours(c Cluster, host string) []int {
	type place struct {
		hash uint64
		host int
	}
	ring := make([]place, 0, len(c.Hosts))
	for h, other := range c.Hosts {
		if other.IP.Is4() {
			ring = append(ring, place{hash: ringHash(other.Name), host: h})
		}
	}
	slices.SortFunc(ring, func(a, b place) int {
		return cmp.Or(cmp.Compare(a.hash, b.hash), cmp.Compare(a.host, b.host))
	})
	at := slices.IndexFunc(ring, func(p place) bool { return c.Hosts[p.host].Name == host })
	if at < 0 {
		return nil
	}
	near := make(map[int]bool)
	for distance := 1; distance <= witnesses && distance < len(ring); distance++ {
		near[ring[(at+distance)%len(ring)].host] = true
		near[ring[(at-distance+len(ring))%len(ring)].host] = true
	}
	list := make([]int, 0, len(near))
	for _, p := range ring {
		if near[p.host] && c.Hosts[p.host].Name != host {
			list = append(list, p.host)
		}
	}
	return list
}

func ringHash(name string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name)) // a hash never fails
	return h.Sum64()
}
