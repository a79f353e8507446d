package egress

import (
	"cmp"
	"slices"
)

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
