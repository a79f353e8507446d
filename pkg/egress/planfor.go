package egress

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// PlanFor returns what the kernel of one host must do. pods are the host's own
// pods; inside are networks of the cluster in addition to the pod CIDRs of the
// hosts, such as service CIDRs. It returns false where there is no such host.
//
// A pod of a Namespace without a NetNamespace, and of no other group, is not in the plan: it is not known
// whether it may leave with the node's address. Strict classification drops the
// traffic of unknown pods, unless the caller adds a path for them.
//
// Two live pods may share an address for a moment, when one has gone and the other
// got its address. Where their paths differ, the traffic of the address is dropped:
// any path would be wrong for one of them.
func PlanFor(c Cluster, r Resolution, host string, pods []Pod, inside []netip.Prefix) (Plan, bool) {
	self, ok := c.Host(host)
	if !ok {
		return Plan{}, false
	}
	plan := Plan{
		Host:    host,
		HostIP:  self.IP,
		Subnets: slices.Concat(self.Subnets, self.podNetworks6()),
		Inside:  inclusive(inclusive(insideNetworks(c, host, inside), foundPodNetworks(c)), nodeAddresses(c)),
		Hosts:   hostAddresses(c, host),
		Hosted:  hosted(c, r, host),
		Standby: standbys(c, host),
	}
	plan.Orphans = orphans(c, plan.Hosted)
	excluder := newExcluder(c)
	plan.Pods = paths{Resolution: r, host: host, hosts: plan.Hosts, excluder: excluder}.of(pods)
	plan.NotExcluded = slices.Sorted(maps.Keys(excluder.tooMany))
	return plan, true
}

// hostAddresses are those of the host itself and of all hosts whose agents see them on
// their uplinks. A Node may say anything about its addresses: one that named the address
// of a server outside would make traffic to it leave with the node's address.
func hostAddresses(c Cluster, self string) []netip.Addr {
	addresses := make([]netip.Addr, 0, len(c.Hosts))
	for i := range c.Hosts {
		host := &c.Hosts[i]
		if host.IP.IsValid() && (host.Confirmed || host.Name == self) {
			addresses = append(addresses, host.IP)
		}
	}
	return sortedUnique(addresses)
}

func hosted(c Cluster, r Resolution, host string) []HostedIP {
	self, _ := c.Host(host)
	result, _ := r.Host(host)
	var ips []HostedIP
	for _, claim := range result.Claims {
		if claim.Assigned() {
			ips = append(ips, c.placed(&self, HostedIP{IP: claim.IP, NetID: claim.NetID, Group: claim.Group}))
		}
	}
	return ips
}

// placed returns an egress IP of a host with the interface that it belongs on, and its gateway.
func (c Cluster) placed(self *Host, h HostedIP) HostedIP {
	n, further := self.furtherFor(h.IP)
	if !further {
		return h
	}
	h.Interface, h.Gateway = n.Interface, n.Gateway
	if i, found := slices.BinarySearchFunc(c.Groups, h.Group, func(g Group, name string) int { return strings.Compare(g.Name, name) }); found {
		h.Gateway = n.gatewayFor(self, &c.Groups[i], h.IP)
	}
	return h
}

func orphans(c Cluster, hosted []HostedIP) []netip.Addr {
	count := 0
	for i := range c.Groups {
		count += len(c.Groups[i].Requests)
	}
	for i := range c.Hosts {
		count += len(c.Hosts[i].Claims)
	}
	keys := make([]uint32, 0, count) // sorted much faster than addresses
	var v6 []netip.Addr
	add := func(list []netip.Addr) {
		for _, ip := range list {
			if ip.Is4() {
				keys = append(keys, key(ip))
			} else {
				v6 = append(v6, ip)
			}
		}
	}
	for i := range c.Groups {
		add(c.Groups[i].Requests)
	}
	for i := range c.Hosts {
		add(c.Hosts[i].Claims)
	}
	slices.Sort(keys)
	keys = slices.Compact(keys)
	ips := make([]netip.Addr, 0, len(keys)+len(v6))
	for _, k := range keys {
		ips = append(ips, addressOf(k))
	}
	ips = append(ips, sortedUnique(v6)...)
	return slices.DeleteFunc(ips, func(ip netip.Addr) bool {
		_, ours := slices.BinarySearchFunc(hosted, ip, func(h HostedIP, ip netip.Addr) int { return h.IP.Compare(ip) })
		return ours
	})
}

// paths are those of a host's pods.
type paths struct {
	Resolution
	host string
	// hosts are the addresses of all hosts.
	hosts    []netip.Addr
	excluder excluder
}

func (p paths) of(pods []Pod) []PodPath {
	pods = slices.Clone(pods)
	slices.SortFunc(pods, func(a, b Pod) int {
		return cmp.Or(
			a.IP.Compare(b.IP),
			strings.Compare(a.Namespace, b.Namespace),
			strings.Compare(a.Name, b.Name),
			strings.Compare(a.UID, b.UID),
		)
	})
	var list []PodPath
	for rest := pods; len(rest) > 0; {
		ip := rest[0].IP
		sharing := 1
		for sharing < len(rest) && rest[sharing].IP == ip {
			sharing++
		}
		// A host's address is that of its host-network pods, which have no
		// path of their own.
		_, isHost := slices.BinarySearchFunc(p.hosts, ip, netip.Addr.Compare)
		if (ip.Is4() || isIPv6(ip)) && !isHost {
			if path, known := p.shared(rest[:sharing]); known {
				list = append(list, path)
			}
		}
		rest = rest[sharing:]
	}
	return list
}

// shared returns the path of an address that one or more pods have.
func (p paths) shared(pods []Pod) (PodPath, bool) {
	first, known := p.path(pods[0])
	for _, pod := range pods[1:] {
		path, alsoKnown := p.path(pod)
		if known != alsoKnown || !samePath(first, path) {
			return PodPath{IP: pods[0].IP, Kind: PathDrop, Namespace: pods[0].Namespace, Name: pods[0].Name}, true
		}
	}
	return first, known
}

func samePath(a, b PodPath) bool {
	return a.Kind == b.Kind && a.EgressIP == b.EgressIP && slices.Equal(a.Via, b.Via) && slices.Equal(a.Excluded, b.Excluded) &&
		(a.Kind != PathRemote || a.NetID == b.NetID)
}

func (p paths) path(pod Pod) (PodPath, bool) {
	group, known := p.Group(pod.group())
	if !known {
		return PodPath{}, false
	}
	path := PodPath{IP: pod.IP, NetID: group.NetID, Namespace: pod.Namespace, Name: pod.Name}
	active := group.activeOf(pod.IP)
	drops := group.Drops[FamilyOf(pod.IP)]
	if drops || len(active) > 0 {
		path.Excluded = p.excluder.of(&pod)
	}
	switch {
	case drops:
		path.Kind = PathRefuse
		if group.requests(FamilyOf(pod.IP)) {
			path.Kind = PathDrop
		}
		return path, true
	case len(active) == 0:
		path.Kind = PathNode
		return path, true
	}
	path.Kind = PathRemote
	for _, assignment := range active {
		// A host that has one of the egress IPs uses that one: it is the shortest
		// path, and one host less can fail.
		if assignment.Host == p.host {
			path.Kind, path.EgressIP, path.Via, path.Sources = PathLocal, assignment.IP, nil, nil
			return path, true
		}
		path.Via = append(path.Via, assignment.HostIP)
		path.Sources = append(path.Sources, assignment.IP)
	}
	return path, true
}
