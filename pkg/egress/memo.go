package egress

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/egressip-operator/egressip-operator/pkg/online"
)

// Decision is everything that is decided about a cluster.
type Decision struct {
	Cluster    Cluster
	Problems   []Problem
	Resolution Resolution
	Allocation Allocation
}

// Memo decides as Snapshot, Resolve and Allocate do, and remembers the decision: where a
// cluster has thousands of objects, and one of them changes, most of the next decision is
// the same. It changes how long a decision takes, and nothing else. The zero value is
// ready. It is not for concurrent use.
type Memo struct {
	groups map[string]*readGroup
	hosts  map[string]*readHost
	// reads counts how often objects were read.
	reads int
	// families are the memories of what was decided, by family.
	families [2]memory
}

// memory is what was decided about the egress IPs of one family.
type memory struct {
	// index is the index of the last decision; indexes counts how often one was made.
	index   *index
	indexes int
	// last is the last decision; decided is false before the first, and allocated if the
	// Allocation is not part of it.
	last               Decision
	decided, allocated bool
	// places is the Cluster that the Allocation is for, if that is another one.
	places *Cluster
}

// readGroup and readHost are what was read from one version of an object.
type readGroup struct {
	version  version
	group    Group
	problems []Problem
	// ipv6: it has egress IPs of IPv6.
	ipv6 bool
	// seen is the number of the last reading in which the object was there.
	seen int
}

type readHost struct {
	version  version
	given    given
	host     Host
	problems []Problem
	ipv6     bool
	seen     int
}

// version identifies the content of an object as the API server stored it.
type version struct{ uid, resourceVersion string }

// known is false for an object that no API server has stored.
func (v version) known() bool { return v.uid != "" && v.resourceVersion != "" }

// given is what Objects say about one host.
type given struct {
	verdict                              online.Verdict
	judged, evacuating, gone, unheard    bool
	allEvacuating, allGone, allNetworked bool
	assignable, allAssignable            bool
	capacity, ipv6Capacity               int
	defaultCapacity                      int
	limited                              bool
	awaited                              []netip.Addr
	failing                              map[netip.Addr]bool
	networks                             []netip.Prefix
}

// about returns what the objects say about a host.
func (o Objects) about(host string) given {
	g := given{
		evacuating: o.Evacuating[host], gone: o.Gone[host], unheard: o.Unheard[host],
		assignable: o.Assignable[host], allAssignable: o.Assignable != nil,
		allEvacuating: o.Evacuating != nil, allGone: o.Gone != nil, allNetworked: o.Networks != nil,
		defaultCapacity: o.DefaultCapacity, awaited: o.Awaited[host], failing: o.Failing[host], networks: o.Networks[host],
		ipv6Capacity: o.IPv6Capacity[host],
	}
	g.verdict, g.judged = o.Verdicts[host]
	g.capacity, g.limited = o.Capacity[host]
	return g
}

func (g given) equal(other given) bool {
	return slices.Equal(g.awaited, other.awaited) && maps.Equal(g.failing, other.failing) &&
		g.verdict == other.verdict && g.judged == other.judged &&
		g.assignable == other.assignable && g.allAssignable == other.allAssignable &&
		g.evacuating == other.evacuating && g.gone == other.gone && g.unheard == other.unheard &&
		g.allEvacuating == other.allEvacuating && g.allGone == other.allGone && g.allNetworked == other.allNetworked &&
		g.capacity == other.capacity && g.defaultCapacity == other.defaultCapacity && g.limited == other.limited &&
		slices.Equal(g.networks, other.networks) && g.ipv6Capacity == other.ipv6Capacity
}

// Decide decides about the objects.
func (m *Memo) Decide(objects Objects) Decision {
	cluster, problems := m.Snapshot(objects)
	d := Decision{Cluster: cluster, Problems: problems}
	d.Resolution, d.Allocation = m.families[IPv4].decide(cluster.of(IPv4), nil)
	if cluster.WithIPv6 {
		places := cluster.leftBy(d.Allocation)
		resolution, allocation := m.families[IPv6].decide(cluster.of(IPv6), &places)
		d.Resolution, d.Allocation = cluster.join(d.Resolution, resolution), d.Allocation.join(allocation)
	}
	return d
}

// decide decides about one family. The Allocation is for the cluster places, which differs
// in capacities only; nil for the same.
func (m *memory) decide(cluster Cluster, places *Cluster) (Resolution, Allocation) {
	x, same := m.next(cluster)
	next := Decision{Cluster: cluster, Resolution: m.resolve(x, same)}
	if places != nil && sameCapacities(places, &cluster) {
		places = nil
	}
	switch {
	case same != nil && same.allocation && m.allocated && sameCapacities(m.places, places):
		next.Allocation = m.last.Allocation
	case places != nil:
		next.Allocation = Allocate(*places)
	case x != nil:
		next.Allocation = allocate(x)
	default:
		next.Allocation = Allocate(cluster)
	}
	m.last, m.decided, m.allocated, m.places = next, true, true, places
	return next.Resolution, next.Allocation
}

// sameCapacities compares clusters that differ in nothing else.
func sameCapacities(a, b *Cluster) bool {
	if a == nil || b == nil {
		return a == b
	}
	return slices.EqualFunc(a.Hosts, b.Hosts, func(g, h Host) bool { return g.Capacity == h.Capacity })
}

// Resolve is Resolve. The receiver may be nil.
func (m *Memo) Resolve(c Cluster) Resolution {
	if m == nil {
		return Resolve(c)
	}
	return c.resolveEach(func(view Cluster) Resolution { return m.families[view.Family].decideWithoutPlaces(view) })
}

// decideWithoutPlaces is decide without an Allocation.
func (m *memory) decideWithoutPlaces(cluster Cluster) Resolution {
	x, same := m.next(cluster)
	m.last = Decision{Cluster: cluster, Resolution: m.resolve(x, same)}
	m.decided, m.allocated = true, false
	return m.last.Resolution
}

// next compares a cluster with the last one; same is nil if there is none. There is no
// index if nothing differs. The index is valid until the next call.
func (m *memory) next(c Cluster) (x *index, same *likeness) {
	if m.decided {
		l := compare(m.last.Cluster, c)
		same = &l
	}
	switch {
	case same == nil || m.index == nil || !same.aligned || m.index.wasteful():
		m.index = newIndex(c)
		m.indexes++
	case same.all:
		return nil, same
	default:
		m.index.patch(c, same.changed)
	}
	return m.index, same
}

func (m *memory) resolve(x *index, same *likeness) Resolution {
	switch {
	case same == nil:
		return resolve(x, nil)
	case same.all:
		return m.last.Resolution
	}
	return resolve(x, &earlier{likeness: *same, resolution: m.last.Resolution})
}

// Snapshot is Snapshot. The receiver may be nil.
func (m *Memo) Snapshot(objects Objects) (Cluster, []Problem) {
	if m == nil {
		m = new(Memo)
	}
	cluster := Cluster{
		Groups: make([]Group, 0, len(objects.NetNamespaces)+len(objects.EgressIPs)),
		Hosts:  make([]Host, 0, len(objects.HostSubnets)), Included: objects.Included,
	}
	var all reader
	if m.groups == nil {
		m.groups = make(map[string]*readGroup, len(objects.NetNamespaces)+len(objects.EgressIPs))
		m.hosts = make(map[string]*readHost, len(objects.HostSubnets))
	}
	m.reads++
	add := func(name string, now version, read func(*reader) Group) {
		group := m.group(name, now, read)
		cluster.Groups = append(cluster.Groups, group.group)
		if egressIP, ok := NameOfEgressIP(name); ok {
			cluster.Groups[len(cluster.Groups)-1].OnlyOn = objects.OnlyOn[egressIP]
		}
		cluster.WithIPv6 = cluster.WithIPv6 || group.ipv6
		all.problems = append(all.problems, group.problems...)
	}
	for i := range objects.NetNamespaces {
		object := &objects.NetNamespaces[i]
		add(object.Name, version{string(object.UID), object.ResourceVersion}, func(r *reader) Group { return r.namespace(object) })
	}
	for i := range objects.EgressIPs {
		object := &objects.EgressIPs[i]
		add(GroupOfEgressIP(object.Name), version{string(object.UID), object.ResourceVersion}, func(r *reader) Group { return r.egressIP(object) })
	}
	for i := range objects.HostSubnets {
		object := &objects.HostSubnets[i]
		given := objects.about(object.Name)
		read, known := m.hosts[object.Name]
		now := version{string(object.UID), object.ResourceVersion}
		if !known || !now.known() || read.version != now || !read.given.equal(given) {
			var r reader
			read = &readHost{version: now, given: given, host: r.host(object, given), problems: r.problems}
			read.ipv6 = read.host.has(IPv6)
			m.hosts[object.Name] = read
		}
		read.seen = m.reads
		cluster.Hosts = append(cluster.Hosts, read.host)
		cluster.WithIPv6 = cluster.WithIPv6 || read.ipv6
		all.problems = append(all.problems, read.problems...)
	}
	if len(m.groups) > len(objects.NetNamespaces)+len(objects.EgressIPs) {
		maps.DeleteFunc(m.groups, func(_ string, read *readGroup) bool { return read.seen != m.reads })
	}
	if len(m.hosts) > len(objects.HostSubnets) {
		maps.DeleteFunc(m.hosts, func(_ string, read *readHost) bool { return read.seen != m.reads })
	}
	return all.sorted(cluster)
}

// group reads an object, unless this version of it was read before.
func (m *Memo) group(name string, now version, from func(*reader) Group) *readGroup {
	read, known := m.groups[name]
	if !known || !now.known() || read.version != now {
		var r reader
		read = &readGroup{version: now, group: from(&r)}
		read.problems, read.ipv6 = r.problems, read.group.has(IPv6)
		m.groups[name] = read
	}
	read.seen = m.reads
	return read
}

// likeness is what two clusters have in common.
type likeness struct {
	// groups and hosts are, by position in the second cluster, the position of the
	// same value in the first; none for those that are new or changed.
	groups, hosts []int
	// all: nothing differs. allocation: nothing differs that it depends on.
	all, allocation bool
	// aligned: the index differs by the changes only.
	aligned bool
	changed changes
	// everywhere: what concerns all namespaces is the same: which hosts have pods in no known
	// network, the hosts of each family, and overlaps.
	everywhere bool
}

// compare compares two clusters.
func compare(before, now Cluster) likeness {
	equal := len(before.Groups) == len(now.Groups) && len(before.Hosts) == len(now.Hosts)
	l := likeness{all: equal, aligned: equal, allocation: equal, everywhere: podsMissing(before) == podsMissing(now) && partedHosts(before) == partedHosts(now) && maps.Equal(overlapsOf(before), overlapsOf(now))}
	l.groups = make([]int, len(now.Groups))
	for n, b := 0, 0; n < len(now.Groups); n++ {
		for b < len(before.Groups) && before.Groups[b].Name < now.Groups[n].Name {
			b++
		}
		if b < len(before.Groups) && before.Groups[b].equal(&now.Groups[n]) {
			l.groups[n] = b
			continue
		}
		l.groups[n] = none
		l.all, l.allocation = false, false
		l.aligned = l.aligned && before.Groups[n].Name == now.Groups[n].Name
		l.changed.groups = append(l.changed.groups, n)
	}
	l.hosts = make([]int, len(now.Hosts))
	for h, b := 0, 0; h < len(now.Hosts); h++ {
		for b < len(before.Hosts) && before.Hosts[b].Name < now.Hosts[h].Name {
			b++
		}
		if b < len(before.Hosts) && before.Hosts[b].equal(&now.Hosts[h]) {
			l.hosts[h] = b
			continue
		}
		l.hosts[h] = none
		l.all = false
		if l.aligned { // so there are as many hosts
			l.host(h, &before.Hosts[h], &now.Hosts[h])
		}
		l.allocation = l.allocation && l.aligned
	}
	return l
}

// host compares a host that is not the same.
func (l *likeness) host(h int, before, now *Host) {
	was, is := before.allocated(), now.allocated()
	l.allocation = l.allocation && was.equal(&is)
	l.aligned = before.sameIndex(now)
	if !before.sameClaims(now) {
		l.changed.hosts = append(l.changed.hosts, h)
	}
}

func (n *Group) equal(other *Group) bool {
	return n.Name == other.Name && n.NetID == other.NetID && n.Unnumbered == other.Unnumbered && n.Mode == other.Mode &&
		n.Other == other.Other && n.Gateways == other.Gateways && n.Elsewhere == other.Elsewhere && n.Selects.Equal(other.Selects) && n.Destinations.Equal(other.Destinations) && n.OnlyOn.Equal(other.OnlyOn) &&
		slices.Equal(n.Requests, other.Requests) && slices.Equal(n.Invalid, other.Invalid) && slices.Equal(n.Keeps, other.Keeps)
}

// allocated returns the host without what no allocation depends on.
func (h Host) allocated() Host {
	h.Reports, h.AgentGone, h.Witnesses, h.Invalid = nil, false, nil, nil
	h.Addresses, h.Listed, h.PodsMissing, h.Overlaps = nil, nil, "", nil
	return h
}

// sameIndex reports whether an index is the same with the other host, but for its claims.
func (h *Host) sameIndex(other *Host) bool {
	return h.Name == other.Name && h.IP == other.IP && h.Confirmed == other.Confirmed && h.Shadowed == other.Shadowed &&
		h.sameFurtherNetworks(other) && h.SharesSegment == other.SharesSegment && slices.Equal(h.Further, other.Further) &&
		h.Gone == other.Gone && h.ServesIPv6 == other.ServesIPv6 && slices.Equal(h.Networks, other.Networks) &&
		slices.Equal(h.Subnets, other.Subnets) && slices.Equal(h.IPv6, other.IPv6) &&
		h.sameFound(other)
}

func (h *Host) sameClaims(other *Host) bool {
	return slices.Equal(h.Claims, other.Claims) && slices.Equal(h.Excess, other.Excess) && slices.Equal(h.Assigned, other.Assigned)
}

func (h *Host) equal(other *Host) bool {
	return h.flags() == other.flags() && h.Name == other.Name && h.IP == other.IP && slices.Equal(h.Networks, other.Networks) &&
		h.PodsMissing == other.PodsMissing && h.Capacity == other.Capacity && h.IPv6Capacity == other.IPv6Capacity && h.Created.Equal(other.Created) &&
		h.sameClaims(other) && slices.Equal(h.Ranges, other.Ranges) && slices.Equal(h.Subnets, other.Subnets) &&
		slices.Equal(h.IPv6, other.IPv6) && slices.Equal(h.Invalid, other.Invalid) && slices.Equal(h.Awaited, other.Awaited) &&
		h.sameAddresses(other) && h.sameFound(other) && slices.Equal(h.Overlaps, other.Overlaps) &&
		slices.Equal(h.Witnesses, other.Witnesses) && maps.Equal(h.Failing, other.Failing) && maps.Equal(h.Reports, other.Reports)
}

func (h *Host) sameFurtherNetworks(other *Host) bool {
	return slices.Equal(h.FurtherNetworks, other.FurtherNetworks) && slices.Equal(h.SharedNetworks, other.SharedNetworks)
}

func (h *Host) sameAddresses(other *Host) bool {
	return h.sameFurtherNetworks(other) && slices.Equal(h.Addresses, other.Addresses) && slices.Equal(h.Further, other.Further) && slices.Equal(h.Listed, other.Listed)
}

// flags are all fields of a host that are true or false.
func (h *Host) flags() [17]bool {
	return [...]bool{
		h.Cloud, h.Automatic, h.Confirmed, h.Unheard, h.AgentReady, h.AgentGone, h.Shadowed,
		h.Online, h.Doubtful, h.Closed, h.Evacuating, h.Gone, h.ServesIPv6, h.SharesSegment, h.Assignable, h.Managed, h.Clouded,
	}
}

// earlier is an earlier resolution, and what its cluster has in common with the present.
type earlier struct {
	likeness
	resolution Resolution
}

// group returns the earlier result of a group if it holds: that of one that
// requests nothing, or whose egress IPs all were assigned and still are, on hosts that
// are as they were.
func (e *earlier) group(x *index, n int) (GroupResult, bool) {
	if e == nil || e.groups[n] == none {
		return GroupResult{}, false
	}
	result := e.resolution.Groups[e.groups[n]]
	if len(x.requested[n]) > 0 && !e.everywhere || len(x.Groups[n].Invalid) > 0 || x.conflicts[n].reason != "" && len(x.requested[n]) > 0 {
		return GroupResult{}, false
	}
	for i, a := range x.requested[n] {
		if a.reason != ReasonAssigned || e.hosts[a.hosts[0]] == none || !result.Requests[i].settled(x.Hosts[a.hosts[0]].Name) {
			return GroupResult{}, false
		}
	}
	return result, true
}

// settled reports whether the request was assigned to the host. Where all of a namespace
// were, there was no conflict.
func (r *RequestResult) settled(host string) bool {
	return r.Host == host && (r.State == Active || r.State == Standby || r.State == HostOffline)
}

// host returns the earlier result of a host if it holds: that of one that is as it was,
// and whose claims are all assigned to namespaces whose results hold.
func (e *earlier) host(x *index, h int, held []bool) (HostResult, bool) {
	if e == nil || e.hosts[h] == none || x.bad[h] != "" {
		return HostResult{}, false
	}
	for _, a := range x.claimed[h] {
		if a.reason != ReasonAssigned || !held[a.groups[0]] {
			return HostResult{}, false
		}
	}
	return e.resolution.Hosts[e.hosts[h]], true
}
