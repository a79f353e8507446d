package egress

import (
	"net/netip"
	"slices"
	"strings"
)

// index makes the lists of a Cluster searchable. Namespaces and hosts are identified by
// their positions there.
type index struct {
	Cluster
	addresses map[netip.Addr]*address
	// hostsByIP are the hosts with each hostIP; more than one is an error.
	hostsByIP map[netip.Addr][]int
	// requesting are the namespaces that request usable egress IPs, by netid: only
	// their packets use the overlay.
	requesting map[uint32][]int
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
	// namespaces request it, hosts claim it; both in order, without hosts whose
	// claims do not count.
	namespaces, hosts []int
	// sameHost: the one host that claims it also claims another egress IP of the one
	// namespace.
	sameHost bool
}

func newIndex(c Cluster) *index {
	x := &index{
		Cluster:    c,
		addresses:  make(map[netip.Addr]*address, len(c.Namespaces)),
		hostsByIP:  hostsByIP(c.Hosts),
		requesting: make(map[uint32][]int, len(c.Namespaces)),
	}
	for n, namespace := range c.Namespaces {
		if len(namespace.Requests) > 0 && !namespace.Unnumbered {
			x.requesting[namespace.NetID] = append(x.requesting[namespace.NetID], n)
		}
		for _, ip := range namespace.Requests {
			a := x.address(ip)
			a.namespaces = append(a.namespaces, n)
		}
	}
	for h, host := range c.Hosts {
		for _, ip := range host.Claims {
			a := x.address(ip)
			if x.badHost(h) == "" {
				a.hosts = append(a.hosts, h)
			}
		}
	}
	for _, a := range x.addresses {
		a.hosts = unlessGone(c.Hosts, a.hosts)
	}
	x.conflicts = make([]conflict, len(c.Namespaces))
	for n := range c.Namespaces {
		x.markSameHost(n)
		x.conflicts[n] = x.findConflict(n)
	}
	return x
}

func (x *index) address(ip netip.Addr) *address {
	a := x.addresses[ip]
	if a == nil {
		a = &address{}
		x.addresses[ip] = a
	}
	return a
}

// markSameHost finds the egress IPs of one namespace that one host claims. An address
// that the host could not have anyway does not affect others.
func (x *index) markSameHost(n int) {
	requests := x.Namespaces[n].Requests
	if len(requests) < 2 {
		return
	}
	first := make(map[int]*address, len(requests))
	for _, ip := range requests {
		a := x.addresses[ip]
		if len(a.hosts) != 1 || x.isHostIP(ip) {
			continue
		}
		h := a.hosts[0]
		if reason, _ := x.invalidOn(h, ip); reason != "" || x.beyondCapacity(h, ip) {
			continue
		}
		if other := first[h]; other != nil {
			other.sameHost = true
			a.sameHost = true
		} else {
			first[h] = a
		}
	}
}

// isHostIP reports whether the address is a host's own. What a Node alone says does
// not take an egress IP away from a namespace.
func (x *index) isHostIP(ip netip.Addr) bool {
	return slices.ContainsFunc(x.hostsByIP[ip], func(h int) bool { return x.Hosts[h].Confirmed })
}

// badHost is why no claim of the host counts; "" if they do.
func (x *index) badHost(h int) string {
	host := x.Hosts[h]
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
	network := x.Hosts[h].Network
	if !network.IsValid() {
		return "", ""
	}
	if !network.Contains(ip) {
		return ReasonOutsideNetwork, "it is outside " + network.String()
	}
	if why := invalidReasonIn(network, ip); why != "" {
		return ReasonBadAddress, why
	}
	return "", ""
}

// netID is why packets of the namespace cannot be told from those of other namespaces
// that have egress IPs; "" if they can.
func (x *index) netID(n int) Reason {
	id := x.Namespaces[n].NetID
	switch {
	case x.Namespaces[n].Unnumbered:
		return ReasonNoNetID
	case id > MaxNetID:
		return ReasonBadNetID
	case len(x.requesting[id]) > 1:
		return ReasonDuplicateNetID
	}
	return ""
}

// reasonFor decides about one egress IP. ReasonAssigned means that request and claim
// match; any other reason is what must be corrected first.
func (x *index) reasonFor(ip netip.Addr) Reason {
	a := x.addresses[ip]
	switch {
	case x.isHostIP(ip):
		return ReasonHostAddress
	case len(a.namespaces) > 1:
		return ReasonMultipleNamespaces
	}
	if len(a.namespaces) == 1 {
		if reason := x.netID(a.namespaces[0]); reason != "" {
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
	case len(a.namespaces) == 0:
		return ReasonNotRequested
	case len(a.hosts) == 0:
		return ReasonNotClaimed
	case a.sameHost:
		return ReasonSameHost
	}
	return ReasonAssigned
}

// namespaceConflict is why the namespace is dropped entirely, valid assignments
// included: another namespace requests one of its egress IPs, which is returned, or its
// packets cannot be told from another's. It is "" if there is no conflict.
func (x *index) namespaceConflict(n int) (Reason, netip.Addr) {
	return x.conflicts[n].reason, x.conflicts[n].ip
}

func (x *index) findConflict(n int) conflict {
	if reason := x.netID(n); reason != "" {
		return conflict{reason: reason}
	}
	for _, ip := range x.Namespaces[n].Requests {
		if len(x.addresses[ip].namespaces) > 1 {
			return conflict{reason: ReasonMultipleNamespaces, ip: ip}
		}
	}
	return conflict{}
}

func (x *index) hostNames(hosts []int) string {
	return names(hosts, func(h int) string { return x.Hosts[h].Name })
}

func (x *index) namespaceNames(namespaces []int) string {
	return names(namespaces, func(n int) string { return x.Namespaces[n].Name })
}

// maxNames keeps messages readable, and small enough for an API object, if a mistake
// concerns thousands of objects.
const maxNames = 10

func names(positions []int, name func(int) string) string {
	var list []string
	for _, p := range positions {
		if len(list) == maxNames {
			list = append(list, "...")
			break
		}
		list = append(list, name(p))
	}
	return strings.Join(list, ", ")
}

func hostsByIP(hosts []Host) map[netip.Addr][]int {
	byIP := make(map[netip.Addr][]int, len(hosts))
	for h, host := range hosts {
		if host.IP.IsValid() {
			byIP[host.IP] = append(byIP[host.IP], h)
		}
	}
	for ip, same := range byIP {
		byIP[ip] = unlessGone(hosts, same)
	}
	return byIP
}

// unlessGone leaves out hosts whose Node is gone, if there are others. A machine that
// registered again under another name has the address of the former one, and what a
// user claims elsewhere since the Node went is meant to work.
func unlessGone(hosts []Host, positions []int) []int {
	if len(positions) < 2 {
		return positions
	}
	there := make([]int, 0, len(positions))
	for _, h := range positions {
		if !hosts[h].Gone {
			there = append(there, h)
		}
	}
	if len(there) == 0 {
		return positions
	}
	return there
}

// findHost returns the position of the host with that name.
func findHost(hosts []Host, name string) (int, bool) {
	return slices.BinarySearchFunc(hosts, name, func(h Host, name string) int {
		return strings.Compare(h.Name, name)
	})
}
