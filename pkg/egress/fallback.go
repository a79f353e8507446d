package egress

import (
	"maps"
	"slices"
)

// Reach is which hosts one host reaches, by its own probes alone.
type Reach struct {
	// Host is the host itself; Withdrawn says that it is cut off and has no egress IPs.
	Host      string
	Withdrawn bool
	// Silent are the hosts that do not answer. Held are those of them that answer
	// again, and whose hold-down is not over.
	Silent, Held map[string]bool
}

// ResolveFrom is the resolution that the packets of a host's own pods follow: what the
// cluster has settled, but with hosts that are not silent preferred, and among silent
// ones those that have just come back preferred to dead ones. It takes no namespace's
// last egress IP (see KeepLastEgressIP), except for those of a host that is withdrawn
// itself.
func ResolveFrom(c Cluster, settled Resolution, r Reach) Resolution {
	paths, silent := settled, maps.Clone(r.Silent)
	if r.Withdrawn {
		self := map[string]bool{r.Host: true}
		paths = Resolve(WithOffline(c, self))
		maps.Copy(self, silent)
		silent = self
	}
	if len(r.Silent) == 0 {
		return paths
	}
	if len(r.Held) > 0 {
		dead := maps.Clone(silent)
		maps.DeleteFunc(dead, func(name string, _ bool) bool { return r.Held[name] })
		paths = KeepLastEgressIP(Resolve(WithOffline(c, dead)), paths)
	}
	return KeepLastEgressIP(Resolve(WithOffline(c, silent)), paths)
}

// WithOffline returns the cluster with the named hosts considered offline, without
// doubt.
func WithOffline(c Cluster, offline map[string]bool) Cluster {
	if len(offline) == 0 {
		return c
	}
	c.Hosts = slices.Clone(c.Hosts)
	for i := range c.Hosts {
		if offline[c.Hosts[i].Name] {
			c.Hosts[i].Online, c.Hosts[i].Doubtful = false, false
		}
	}
	return c
}

// KeepLastEgressIP chooses for each namespace between two views of one cluster:
// probed, where hosts that did not answer are considered offline, and settled, where
// they are not. A probe may be wrong, so it may choose another egress IP, but it may
// not take the last one of a family: a namespace that probed would drop keeps what settled
// gives it. If the host is dead indeed, its packets are lost either way; if not, they are
// not lost.
func KeepLastEgressIP(probed, settled Resolution) Resolution {
	probed.Groups = slices.Clone(probed.Groups)
	for i, group := range probed.Groups {
		if !group.Dropped {
			continue
		}
		if kept, found := settled.Group(group.Name); found {
			probed.Groups[i] = kept.except(&group)
		}
	}
	return probed
}
