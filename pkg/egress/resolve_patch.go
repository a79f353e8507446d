package egress

import (
	"net/netip"
	"slices"
)

// changes are the positions of namespaces and hosts whose requests, netids and claims
// differ between two clusters that have the same namespaces and hosts otherwise.
type changes struct{ groups, hosts []int }

// patch makes the index that of c, which differs from its cluster by the changes. The
// result is that of newIndex(c), but for addresses that are not requested or claimed any more,
// and for their numbers.
//
// What is known about an address depends on the namespaces that request it, on what else
// these request, and on the hosts that claim it. So what may differ is what is known about
// the addresses that the changed objects list or listed, and about all others that the
// namespaces of these request.
func (x *index) patch(c Cluster, changed changes) {
	before := x.Cluster
	x.Cluster = c
	p := patch{index: x, touched: make(map[*address]bool), groups: make(map[int]bool)}
	for _, n := range changed.groups {
		p.groups[n] = true
		p.requests(n)
	}
	for _, h := range changed.hosts {
		p.claims(h)
	}
	p.numbers(before, changed.groups)
	p.insert()
	p.derive()
}

// wasteful reports whether many of the addresses may be in no list any more.
func (x *index) wasteful() bool { return x.addresses.count() > 2*x.built+100 }

// patch is a change of an index.
type patch struct {
	*index
	// touched are the addresses, and namespaces the namespaces, of which something may
	// differ.
	touched map[*address]bool
	groups  map[int]bool
	// added are the addresses that are new.
	added []*address
}

// requests reads the requests of a namespace.
func (p *patch) requests(n int) {
	for _, a := range p.requested[n] {
		p.touched[a], a.groups = true, without(a.groups, n)
	}
	p.requested[n] = p.list(p.Groups[n].Requests)
	for _, a := range p.requested[n] {
		p.touched[a], a.groups = true, with(a.groups, n)
	}
}

// claims reads the claims of a host.
func (p *patch) claims(h int) {
	for _, a := range p.claimed[h] {
		p.touched[a], a.listed = true, without(a.listed, h)
	}
	p.claimed[h] = p.list(p.Hosts[h].Claims)
	for _, a := range p.claimed[h] {
		p.touched[a] = true
		if p.bad[h] == "" {
			a.listed = with(a.listed, h)
		}
	}
}

// list numbers the addresses that are new, and returns all.
func (p *patch) list(ips []netip.Addr) []*address {
	list := make([]*address, 0, len(ips))
	for _, ip := range ips {
		a := p.addresses.get(ip)
		if a == nil {
			a = new(p.newAddress(ip))
			p.addresses.put(ip, a)
			p.added = append(p.added, a)
		}
		list = append(list, a)
	}
	return list
}

// numbers decides about netids again if some of them changed.
func (p *patch) numbers(before Cluster, changed []int) {
	if !slices.ContainsFunc(changed, func(n int) bool {
		was, is := &before.Groups[n], &p.Groups[n]
		return was.NetID != is.NetID || was.Unnumbered != is.Unnumbered || was.usesOverlay() != is.usesOverlay()
	}) {
		return
	}
	was := p.netIDs
	p.netIDs = netIDs(p.Groups)
	for n, reason := range p.netIDs {
		if reason != was[n] {
			p.groups[n] = true
		}
	}
}

// insert brings the new addresses in order.
func (p *patch) insert() {
	if p.sorted == nil {
		return // inOrder will
	}
	for _, a := range p.added {
		at, _ := slices.BinarySearchFunc(p.sorted, a.ip, func(a *address, ip netip.Addr) int { return a.ip.Compare(ip) })
		p.sorted = slices.Insert(p.sorted, at, a)
	}
}

// derive decides again about everything that was touched.
func (p *patch) derive() {
	for a := range p.touched {
		a.countHosts(p.Hosts)
		for _, n := range a.groups {
			p.groups[n] = true
		}
	}
	for n := range p.groups {
		p.conflicts[n] = p.findConflict(n)
		for _, a := range p.requested[n] {
			p.touched[a] = true
		}
	}
	// Others that request an address, which is a conflict, mark it too.
	marking := make(map[int]bool, len(p.groups))
	for a := range p.touched {
		a.sameHost = false
		for _, n := range a.groups {
			marking[n] = true
		}
	}
	for n := range marking {
		p.markSameHost(n)
	}
	for a := range p.touched {
		a.reason = p.findReason(a)
	}
}

// with and without return the positions, which are in order, with and without one of them.
func with(positions []int, position int) []int {
	at, found := slices.BinarySearch(positions, position)
	if found {
		return positions
	}
	return slices.Insert(slices.Clip(positions), at, position)
}

func without(positions []int, position int) []int {
	return slices.DeleteFunc(slices.Clone(positions), func(p int) bool { return p == position })
}
