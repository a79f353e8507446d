package egress

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
)

// Rival is a host that bears one of several egress IPs of a namespace.
type Rival struct {
	Name string
	IP   netip.Addr
}

// Rivals are the hosts whose health decides which way the pods of a host go:
// those, other than the host itself, that bear egress IPs of a namespace which
// has pods there and egress IPs on more than one host. In order of name.
func Rivals(c Cluster, r Resolution, host string, pods []Pod) []Rival {
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
	var rivals []Rival
	for _, h := range c.Hosts {
		if names[h.Name] && h.IP.Is4() {
			rivals = append(rivals, Rival{Name: h.Name, IP: h.IP})
		}
	}
	slices.SortFunc(rivals, func(a, b Rival) int { return strings.Compare(a.Name, b.Name) })
	return rivals
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
