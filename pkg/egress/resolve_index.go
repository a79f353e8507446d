package egress

import (
	"net/netip"
	"slices"
)

// index makes the lists of a Cluster searchable. Namespaces and hosts are identified by
// their positions there.
//
// A decision looks each address up many times, so addresses are numbered: requested and
// claimed have those of each namespace and host, and all else that is known about an
// address is found by its number.
type index struct {
	Cluster
	addresses addressTable
	// built is how many there were when the index was made; see patch.
	built int
	// requested and claimed are parallel to the Requests of each namespace and the
	// Claims of each host.
	requested, claimed [][]*address
	// sorted is what inOrder returns.
	sorted []*address
	// bad is, by host, why no claim of it counts; see badHost.
	bad []string
	// hostsByIP are the hosts with each hostIP; more than one is an error. pods are the pod
	// networks of hosts.
	hostsByIP map[netip.Addr][]int
	pods      podNetworks
	named     namedNetworks
	// further are the hosts with each further address that no egress IP can be.
	further map[netip.Addr]int
	// ofEgressIPs: there are groups of EgressIPs.
	ofEgressIPs bool
	// netIDs are, by group, what netID returns.
	netIDs []Reason
	// conflicts are, by namespace, why it is dropped entirely.
	conflicts []conflict
}

// conflict is why a namespace is dropped entirely; the zero value is none.
type conflict struct {
	reason Reason
	// ip is what another namespace requests too, for ReasonMultipleNamespaces.
	ip netip.Addr
}

// address is who requests and claims one egress IP.
type address struct {
	ip netip.Addr
	// id is its number: addresses are numbered from 0.
	id int
	// groups request it, hosts claim it; both in order, without hosts whose
	// claims do not count. listed are the hosts with those whose Nodes are gone.
	groups, hosts, listed []int
	// yielded: a host whose Node is gone lists it too. If the host that claims it
	// released it, it would be without a host that is there, so it does not move.
	yielded bool
	// sameHost: the one host that claims it also claims another egress IP of the one
	// namespace.
	sameHost bool
	// hostIP: it is a host's own, hostIP or a further one. podsOf is the host in whose pod
	// network it is; none for an address outside all.
	hostIP bool
	podsOf int
	// named is the API server that has it, or the network of pods or services in which it is
	// by another word than that of a host; nil for none.
	named *Found
	// reason is what findReason returns.
	reason Reason
}

func newIndex(c Cluster) *index {
	x := &index{
		Cluster:   c,
		hostsByIP: addressesOf(c),
		pods:      findPodNetworks(c.Hosts),
		named:     findNamedNetworks(c),
		further:   furtherOf(c.Hosts),
		bad:       make([]string, len(c.Hosts)),
	}
	for h := range c.Hosts {
		x.bad[h] = x.badHost(h)
	}
	x.ofEgressIPs = slices.ContainsFunc(c.Groups, func(g Group) bool { return g.ofEgressIP() })
	x.number()
	x.netIDs = netIDs(c.Groups)
	x.conflicts = make([]conflict, len(c.Groups))
	for n := range c.Groups {
		x.markSameHost(n)
		x.conflicts[n] = x.findConflict(n)
	}
	for _, list := range slices.Concat(x.requested, x.claimed) {
		for _, a := range list {
			if a.reason == "" {
				a.reason = x.findReason(a)
			}
		}
	}
	return x
}

// number finds all addresses, and who requests and claims them.
func (x *index) number() {
	count := 0
	for n := range x.Groups {
		count += len(x.Groups[n].Requests)
	}
	for h := range x.Hosts {
		count += len(x.Hosts[h].Claims)
	}
	numbering := numbering{index: x, pointers: make([]*address, 0, count), positions: make([]int, 0, count)}
	x.addresses = newAddressTable(count / 2)
	x.requested, x.claimed = make([][]*address, len(x.Groups)), make([][]*address, len(x.Hosts))
	for n := range x.Groups {
		x.requested[n] = numbering.list(x.Groups[n].Requests)
		for _, a := range x.requested[n] {
			a.groups = numbering.add(a.groups, n)
		}
	}
	for h := range x.Hosts {
		x.claimed[h] = numbering.list(x.Hosts[h].Claims)
		if x.bad[h] != "" {
			continue
		}
		for _, a := range x.claimed[h] {
			a.listed = numbering.add(a.listed, h)
		}
	}
	for a := range x.addresses.all() {
		a.countHosts(x.Hosts)
	}
	x.built = x.addresses.count()
}

// newAddress returns what is known about an address before anyone lists it.
func (x *index) newAddress(ip netip.Addr) address {
	return address{ip: ip, id: x.addresses.count(), hostIP: x.isHostIP(ip), podsOf: x.pods.find(ip), named: x.named.find(ip)}
}

// countHosts finds the hosts that claim the address, of those that list it.
func (a *address) countHosts(hosts []Host) {
	a.hosts = unlessGone(hosts, a.listed)
	a.yielded = len(a.hosts) < len(a.listed)
}

// inOrder are all addresses in order.
func (x *index) inOrder() []*address {
	if x.sorted == nil {
		x.sorted = slices.AppendSeq(make([]*address, 0, x.addresses.count()), x.addresses.all())
		slices.SortFunc(x.sorted, func(a, b *address) int { return a.ip.Compare(b.ip) })
	}
	return x.sorted
}

// numbering allocates what addresses consist of in a few pieces: there are thousands.
type numbering struct {
	*index
	addresses []address
	pointers  []*address
	positions []int
}

// list returns the addresses of a list of namespaces or hosts.
func (x *numbering) list(ips []netip.Addr) []*address {
	from := len(x.pointers)
	for _, ip := range ips {
		a := x.index.addresses.get(ip)
		if a == nil {
			if len(x.addresses) == cap(x.addresses) {
				x.addresses = make([]address, 0, 1024)
			}
			x.addresses = append(x.addresses, x.newAddress(ip))
			a = &x.addresses[len(x.addresses)-1]
			x.index.addresses.put(ip, a)
		}
		x.pointers = append(x.pointers, a)
	}
	return x.pointers[from:len(x.pointers):len(x.pointers)]
}

// add adds a position to a list that most often has no other.
func (x *numbering) add(list []int, position int) []int {
	if len(list) > 0 || len(x.positions) == cap(x.positions) {
		return append(list, position)
	}
	x.positions = append(x.positions, position)
	return x.positions[len(x.positions)-1 : len(x.positions) : len(x.positions)]
}

// markSameHost finds the egress IPs of one namespace that one host claims. An address
// that the host could not have anyway does not affect others.
func (x *index) markSameHost(n int) {
	requests := x.requested[n]
	if len(requests) < 2 {
		return
	}
	first := make([]hostAddress, 0, 8) // most have two or three
	for _, a := range requests {
		if len(a.hosts) != 1 || a.hostIP || a.podsOf != none || a.named != nil {
			continue
		}
		h := a.hosts[0]
		if reason, _ := x.invalidOn(h, a.ip); reason != "" || x.beyondCapacity(h, a.ip) {
			continue
		}
		if i := slices.IndexFunc(first, func(f hostAddress) bool { return f.host == h }); i >= 0 {
			first[i].sameHost = true
			a.sameHost = true
		} else {
			first = append(first, hostAddress{h, a})
		}
	}
}

// hostAddress is the first address of a namespace that a host claims.
type hostAddress struct {
	host int
	*address
}

// badHost is why no claim of the host counts; "" if they do.
func (x *index) badHost(h int) string {
	host := &x.Hosts[h]
	if !host.IP.IsValid() {
		return "it has no usable hostIP"
	}
	if host.Shadowed {
		return "its hostIP " + host.IP.String() + " is that of several hosts (" + x.hostNames(x.hostsByIP[host.IP]) + ")"
	}
	return ""
}

// beyondCapacity reports whether a manual host claims more than it has capacity for,
// and the address is one of those beyond.
func (x *index) beyondCapacity(h int, ip netip.Addr) bool {
	_, found := slices.BinarySearchFunc(x.Hosts[h].Excess, ip, netip.Addr.Compare)
	return found
}

// invalidOn is why this host cannot have the address; "" if it can.
func (x *index) invalidOn(h int, ip netip.Addr) (Reason, string) {
	host := &x.Hosts[h]
	if ip.Is6() && !host.ServesIPv6 {
		return ReasonFamilyNotServed, "its agent does not report that it serves egress IPs of IPv6; status.agent.ipv6Reason of the HostSubnet says why, if the agent knows"
	}
	if ip.Is4() && host.IP.Is6() {
		return ReasonFamilyNotServed, "its hostIP " + host.IP.String() + " is one of IPv6, so it has egress IPs of IPv6 only"
	}
	if host.hasItself(ip) {
		return ReasonHostAddress, "its agent finds it on the host, where something else has put it"
	}
	known := ip.Is6()
	for _, network := range host.Networks {
		if network.Contains(ip) {
			if why := invalidReasonIn(network, ip); why != "" {
				return ReasonBadAddress, why
			}
			return "", ""
		}
		known = known || network.Addr().Is4()
	}
	if n, further := host.furtherFor(ip); further {
		if why := n.invalidAt(ip); why != "" {
			return ReasonBadAddress, why
		}
		return "", ""
	}
	if !known {
		return "", ""
	}
	networks := host.describeNetworks(FamilyOf(ip))
	if networks == "" {
		return ReasonOutsideNetwork, "no network of its uplink is known that has IPv6"
	}
	return ReasonOutsideNetwork, "it is outside " + networks
}

// netIDs are, by namespace, why its packets cannot be told from those of other
// namespaces that have egress IPs; "" if they can. Only packets of namespaces that
// request usable egress IPs use the overlay.
func netIDs(groups []Group) []Reason {
	requesting := make(map[uint32]int, len(groups))
	for n := range groups {
		if groups[n].usesOverlay() {
			requesting[groups[n].NetID]++
		}
	}
	reasons := make([]Reason, len(groups))
	for n := range groups {
		group := &groups[n]
		switch {
		case group.Unnumbered:
			reasons[n] = ReasonNoNetID
		case group.NetID > MaxNetID:
			reasons[n] = ReasonBadNetID
		case requesting[group.NetID] > 1:
			reasons[n] = ReasonDuplicateNetID
		}
	}
	return reasons
}

func (n *Group) usesOverlay() bool { return (len(n.Requests) > 0 || n.Elsewhere) && !n.Unnumbered }

// sharing are the namespaces that request usable egress IPs and have the netid.
func (x *index) sharing(id uint32) []int {
	var groups []int
	for n := range x.Groups {
		if x.Groups[n].usesOverlay() && x.Groups[n].NetID == id {
			groups = append(groups, n)
		}
	}
	return groups
}

// findReason decides about one egress IP. ReasonAssigned means that request and claim
// match; any other reason is what must be corrected first.
func (x *index) findReason(a *address) Reason {
	ip := a.ip
	switch {
	case a.hostIP:
		return ReasonHostAddress
	case a.podsOf != none:
		return ReasonPodAddress
	case a.named != nil:
		return a.named.refusal()
	case len(a.groups) > 1:
		return ReasonMultipleNamespaces
	}
	if len(a.groups) == 1 {
		if reason := x.netIDs[a.groups[0]]; reason != "" {
			return reason
		}
	}
	if len(a.hosts) > 1 {
		return ReasonMultipleHosts
	}
	if len(a.hosts) == 1 {
		if reason, _ := x.invalidOn(a.hosts[0], ip); reason != "" {
			return reason
		}
		if x.beyondCapacity(a.hosts[0], ip) {
			return ReasonCapacity
		}
	}
	switch {
	case len(a.groups) == 0:
		return ReasonNotRequested
	case len(a.hosts) == 0:
		return ReasonNotClaimed
	case a.sameHost:
		return ReasonSameHost
	}
	return ReasonAssigned
}

// groupConflict is why the namespace is dropped entirely, valid assignments
// included: another namespace requests one of its egress IPs, which is returned, or its
// packets cannot be told from another's. It is "" if there is no conflict.
func (x *index) groupConflict(n int) (Reason, netip.Addr) {
	return x.conflicts[n].reason, x.conflicts[n].ip
}

func (x *index) findConflict(n int) conflict {
	if reason := x.netIDs[n]; reason != "" {
		return conflict{reason: reason}
	}
	for _, a := range x.requested[n] {
		if len(a.groups) > 1 {
			return conflict{reason: ReasonMultipleNamespaces, ip: a.ip}
		}
	}
	return conflict{}
}
