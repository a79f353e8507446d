package egress

import (
	"maps"
	"slices"
)

// Reach is whom one host reaches, by its own probes, with nobody's help.
type Reach struct {
	// Host is the host itself; Withdrawn says that it is cut off and bears no egress IPs.
	Host      string
	Withdrawn bool
	// Silent are the hosts that do not answer. Held are those of them that answer
	// again, and whose hold-down is not over.
	Silent, Held map[string]bool
}

// PathsFrom is the resolution that the packets of a host's own pods follow: what the
// cluster has settled, with hosts that are not silent preferred, and among those that are
// rather one that has just come back than one that is dead. It takes no namespace's
// last egress IP, see Prefer, but for those of a host that is withdrawn itself.
func PathsFrom(c Cluster, settled Resolution, r Reach) Resolution {
	paths, silent := settled, maps.Clone(r.Silent)
	if r.Withdrawn {
		self := map[string]bool{r.Host: true}
		paths = Resolve(Unreachable(c, self))
		maps.Copy(self, silent)
		silent = self
	}
	if len(r.Silent) == 0 {
		return paths
	}
	if len(r.Held) > 0 {
		dead := maps.Clone(silent)
		maps.DeleteFunc(dead, func(name string, _ bool) bool { return r.Held[name] })
		paths = Prefer(Resolve(Unreachable(c, dead)), paths)
	}
	return Prefer(Resolve(Unreachable(c, silent)), paths)
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
		if kept, found := settled.Namespace(namespace.Name); found {
			probed.Namespaces[i] = kept
		}
	}
	return probed
}
