package egress

import (
	"net/netip"
	"slices"
)

// Peer is a host whose health another one watches.
type Peer struct {
	Name string
	IP   netip.Addr
	// Overlay: its kernel answers probes that come over the overlay.
	Overlay bool
}

// ServingHosts are the hosts whose health matters to others, in order of name: those
// that have egress IPs, and the automatic ones, which may get some at any moment.
func ServingHosts(c Cluster, r Resolution) []Peer {
	var peers []Peer
	for h := range c.Hosts {
		host := &c.Hosts[h]
		if host.IP.IsValid() && isEgressHost(c, r, h) {
			peers = append(peers, Peer{Name: host.Name, IP: host.IP, Overlay: host.AnswersOverlay})
		}
	}
	return peers
}

// ProbedHosts are the hosts that a controller probes from an address, in order of name: those
// that serve, and their witnesses, but for those of the other family than the address, which
// are out of its reach. Without an address it probes from one of IPv4.
func ProbedHosts(c Cluster, r Resolution, from netip.Addr) []Peer {
	names := make(map[string]bool)
	for h := range c.Hosts {
		host := &c.Hosts[h]
		if !isEgressHost(c, r, h) {
			continue
		}
		names[host.Name] = true
		for _, name := range host.Witnesses {
			names[name] = true
		}
	}
	return slices.DeleteFunc(c.peers(names), func(p Peer) bool { return HostFamily(p.IP) != HostFamily(from) })
}

// peers are the hosts of these names that have an address, in order of name.
func (c Cluster) peers(names map[string]bool) []Peer {
	if len(names) == 0 {
		return nil
	}
	peers := make([]Peer, 0, len(names))
	for i := range c.Hosts {
		h := &c.Hosts[i]
		if names[h.Name] && h.IP.IsValid() {
			peers = append(peers, Peer{Name: h.Name, IP: h.IP, Overlay: h.AnswersOverlay})
		}
	}
	return peers
}

// isEgressHost looks at hosts that have the same position in c and in r, as
// Resolve leaves them.
func isEgressHost(c Cluster, r Resolution, h int) bool {
	return c.Hosts[h].Managed ||
		h < len(r.Hosts) && slices.ContainsFunc(r.Hosts[h].Claims, ClaimResult.Assigned)
}

// Witnessed names the hosts whose published witnesses contain the host, in order of
// name: those on whose health its agent votes.
func Witnessed(c Cluster, host string) []string {
	var names []string
	for i := range c.Hosts {
		h := &c.Hosts[i]
		if h.Name != host && slices.Contains(h.Witnesses, host) {
			names = append(names, h.Name)
		}
	}
	return names
}

// Watched are the hosts, other than the host itself, whose health its agent
// watches, in order of name:
//
//   - those that have egress IPs of namespaces with pods on the host: its packets go
//     there;
//   - those whose witness it is (Witnessed);
//   - if it is an egress host, its own witnesses, by which it finds out that it is cut
//     off itself. If none are published, as before a controller has seen the host,
//     those that a hash of the names picks of all hosts take their place.
func Watched(c Cluster, r Resolution, host string, pods []Pod) []Peer {
	names := usedHosts(r, pods)
	for _, name := range Witnessed(c, host) {
		names[name] = true
	}
	for _, name := range ownWitnesses(c, r, host) {
		names[name] = true
	}
	delete(names, host)
	return c.inReach(host, c.peers(names))
}

// inReach are those peers to which the overlay leads from a host.
func (c Cluster) inReach(host string, peers []Peer) []Peer {
	self, known := c.Host(host)
	return slices.DeleteFunc(peers, func(p Peer) bool { return known && !self.reaches(p.IP) })
}

// reaches reports whether the overlay leads from the host to one with an address: only if that
// is of the family of its own. Of a host without an address that is not known.
func (h *Host) reaches(ip netip.Addr) bool {
	return !h.IP.IsValid() || FamilyOf(ip) == FamilyOf(h.IP)
}

// OutOfReach names the hosts to which the overlay does not lead from one, in order, because
// their hostIPs are of another family.
func (c Cluster) OutOfReach(host string) []string {
	self, known := c.Host(host)
	if !known {
		return nil
	}
	var names []string
	for i := range c.Hosts {
		if h := &c.Hosts[i]; h.IP.IsValid() && !self.reaches(h.IP) {
			names = append(names, h.Name)
		}
	}
	return names
}

// usedHosts names the hosts that the packets of the pods may take.
func usedHosts(r Resolution, pods []Pod) map[string]bool {
	names := make(map[string]bool)
	seen := make(map[string]bool)
	for _, pod := range pods {
		if seen[pod.group()] {
			continue
		}
		seen[pod.group()] = true
		group, _ := r.Group(pod.group())
		for _, request := range group.Requests {
			if request.State == Active || request.State == Standby || request.State == HostOffline {
				names[request.Host] = true
			}
		}
	}
	return names
}

// ownWitnesses are the hosts by which an egress host finds out that it is cut off.
func ownWitnesses(c Cluster, r Resolution, host string) []string {
	self, known := findHost(c.Hosts, host)
	if !known || !isEgressHost(c, r, self) {
		return nil
	}
	if published := c.Hosts[self].Witnesses; len(published) > 0 {
		return published
	}
	all := make([]Witness, 0, len(c.Hosts))
	for i := range c.Hosts {
		h := &c.Hosts[i]
		if h.IP.IsValid() && c.Hosts[self].reaches(h.IP) {
			all = append(all, Witness{Name: h.Name})
		}
	}
	return Panels([]Witness{{Name: host}}, all)[host]
}
