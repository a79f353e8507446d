package egress

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
)

// Peer is a host whose health another one watches.
type Peer struct {
	Name string
	IP   netip.Addr
}

// Watched are the hosts whose health decides which way the pods of a host go:
// those, other than the host itself, that bear egress IPs of a namespace which
// has pods there and egress IPs on more than one host. In order of name.
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
		var hosts []string
		for _, request := range namespace.Requests {
			if request.State == Active || request.State == Standby || request.State == HostOffline {
				hosts = append(hosts, request.Host)
			}
		}
		if len(hosts) < 2 {
			continue
		}
		for _, name := range hosts {
			names[name] = name != host
		}
	}
	var peers []Peer
	for _, h := range c.Hosts {
		if names[h.Name] && h.IP.Is4() {
			peers = append(peers, Peer{Name: h.Name, IP: h.IP})
		}
	}
	slices.SortFunc(peers, func(a, b Peer) int { return strings.Compare(a.Name, b.Name) })
	return peers
}

// Unreachable gives the cluster as it looks from where the named hosts cannot be
// reached: they count as offline.
func Unreachable(c Cluster, offline map[string]bool) Cluster {
	if len(offline) == 0 {
		return c
	}
	c.Hosts = slices.Clone(c.Hosts)
	for i := range c.Hosts {
		c.Hosts[i].Online = c.Hosts[i].Online && !offline[c.Hosts[i].Name]
	}
	return c
}

// Prefer chooses for each namespace between two views of one cluster: probed,
// where hosts that did not answer count as offline, and settled, where they do
// not. A probe may err, and so it may choose another egress IP, but it may not
// take the last one: a namespace that probed would drop keeps what settled gives
// it. If the host is dead indeed, its packets are lost one way or the other; if
// not, they are not.
func Prefer(probed, settled Resolution) Resolution {
	probed.Namespaces = slices.Clone(probed.Namespaces)
	for i, namespace := range probed.Namespaces {
		if !namespace.Dropped {
			continue
		}
		j, found := slices.BinarySearchFunc(settled.Namespaces, namespace.Name,
			func(n NamespaceResult, name string) int { return cmp.Compare(n.Name, name) })
		if found {
			probed.Namespaces[i] = settled.Namespaces[j]
		}
	}
	return probed
}
