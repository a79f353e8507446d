package egress

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// Allocation is which claims automatic hosts should have.
type Allocation struct {
	// Hosts are the hosts that the controller assigns egress IPs to, in order of name, each with
	// the claims that it should have now.
	Hosts []HostClaims
	// Released are claims that these hosts have and should not, in order of
	// address and host.
	Released []Release
	// Unplaced are requests that no host claims and that the controller can assign to none, in
	// order of address. Those of NetNamespaces are not in it in a cluster without automatic
	// hosts, nor those of EgressIPs in one that has no host for these either.
	Unplaced []Unplaced
}

// HostClaims are the claims of one host that the controller manages, in order of address.
type HostClaims struct {
	Host string
	// Automatic: the controller manages egressIPs of the host, and Claims is that list.
	Automatic bool
	Claims    []netip.Addr
	// Assigned is the list of what EgressIPs request.
	Assigned []netip.Addr
}

// All are both lists. The result may share memory with them.
func (h HostClaims) All() []netip.Addr {
	if len(h.Assigned) == 0 {
		return h.Claims
	}
	return slices.Concat(h.Claims, h.Assigned)
}

// Release is a claim that must be released.
type Release struct {
	IP      netip.Addr
	Host    string
	Reason  Reason
	Message string
}

// Unplaced is a request that no host can take.
type Unplaced struct {
	IP      netip.Addr
	Group   string
	Reason  Reason
	Message string
}

// Allocate decides which claims each automatic host should have now.
//
// Writing its result and calling it again, until nothing changes, takes a cluster
// from any state to a settled one. An address is claimed for a host only if no other
// host's list has it in c. A move is a release in one result and a claim in a later
// one, so no order in which the writes of one result land puts an address on two
// lists.
//
// Claims stay where they are unless they must be released: not requested, requested
// or claimed twice, outside the ranges, over capacity, on an offline host, or on one
// whose agent has never reported. Those on a doubtful host, or on one that could not be
// configured for them, are released if another host can take them. The rest
// is placed as placement.place describes; what finds no other host is given to a doubtful
// one, for probes alone take no last way. A claim that is awaited stays although no
// namespace requests it, unless a request needs its place. Only if nothing was released or
// placed is one claim of a host that is being evacuated released, if another host can take it. Only if there
// is none of those are a few claims released in favour of hosts that have less than
// half of what a fresh allocation would give them.
//
// As Resolve does, it decides each family by itself. Where a host's capacity is for both
// together, neither takes a place that the other has; see Host.room.
func Allocate(c Cluster) Allocation {
	first := allocate(newIndex(c.of(IPv4)))
	if !c.WithIPv6 {
		return first
	}
	return first.join(allocate(newIndex(c.leftBy(first))))
}

func allocate(x *index) Allocation {
	c := x.Cluster
	if !slices.ContainsFunc(c.Hosts, func(h Host) bool { return h.Managed }) {
		return Allocation{}
	}
	a := allocator{index: x}
	a.order = a.placingOrder()
	listed := a.listed()

	now, kept := a.keep(true)
	var unlisted []request
	for _, request := range a.order {
		if !listed[request.id] {
			unlisted = append(unlisted, request)
		}
	}
	now, unplaced := a.place(now, unlisted)
	if len(unplaced) > 0 && len(now.reserved) > 0 {
		reasons := maps.Clone(a.reasons)
		without, keptWithout := a.keep(false)
		without, left := a.place(without, unlisted)
		if len(left) < len(unplaced) {
			now, kept, unplaced = without, keptWithout, left
		} else {
			a.reasons = reasons
		}
	}
	unplaced = now.placeInDoubt(unplaced)
	if len(a.reasons) == 0 && len(unlisted) == len(unplaced) {
		now = a.evacuate(now)
	}
	// While hosts are being restored, loads mean nothing.
	awaiting := slices.ContainsFunc(c.Hosts, func(h Host) bool { return len(h.Awaited) > 0 })
	if len(a.reasons) == 0 && !awaiting {
		now = a.rebalance(now, kept)
	}
	return a.allocation(now, unplaced)
}

// request is one requested address that may be placed.
type request struct {
	*address
	group int
}

// claim is an address in the list of a host.
type claim struct {
	ip   netip.Addr
	host int
}

type allocator struct {
	*index
	// order is the order in which requests are placed.
	order []request
	// reasons are why claims are released.
	reasons map[claim]Reason
}

// placingOrder lists what automatic hosts may have: first the namespaces that request
// least, and of each namespace the first address before any second. So it is always
// the spare of a namespace that cannot be placed.
func (a *allocator) placingOrder() []request {
	var byCount [][]int
	for n := range a.Groups {
		count := len(a.Groups[n].Requests)
		for len(byCount) <= count {
			byCount = append(byCount, nil)
		}
		byCount[count] = append(byCount[count], n)
	}
	order := make([]request, 0, a.addresses.count())
	for rank := range byCount {
		for _, groups := range byCount[rank+1:] {
			for _, n := range groups {
				if address := a.requested[n][rank]; a.refusal(address) == "" {
					order = append(order, request{address: address, group: n})
				}
			}
		}
	}
	return order
}

// refusal is why no automatic host may have the address, for reasons that do not depend
// on the host; "" if one may.
func (a *allocator) refusal(address *address) Reason {
	switch {
	case len(address.groups) == 0:
		return ReasonNotRequested
	case len(address.groups) > 1:
		return ReasonMultipleNamespaces
	case address.hostIP:
		return ReasonHostAddress
	case address.podsOf != none:
		return ReasonPodAddress
	case address.named != nil:
		return address.named.refusal()
	case len(address.hosts) > 1:
		if _, ok := a.holder(address); !ok {
			return ReasonMultipleHosts
		}
	case len(address.hosts) == 1 && !a.Hosts[address.hosts[0]].manages(address.ip):
		// A manual claim is the user's decision.
		return ReasonMultipleHosts
	}
	if reason := a.netIDs[address.groups[0]]; reason != ReasonNoNetID {
		return reason
	}
	// The netid will come: a claim that waits for it is ready then.
	return ""
}

// listed reports, by number, which addresses are in the lists of hosts, except those of the
// administrator on hosts whose claims do not count.
func (a *allocator) listed() []bool {
	listed := make([]bool, a.addresses.count())
	for h := range a.Hosts {
		for _, address := range a.claimed[h] {
			if a.bad[h] == "" || a.Hosts[h].manages(address.ip) {
				listed[address.id] = true
			}
		}
	}
	return listed
}

// holder is the one host that claims the address or, of several that the controller assigns to,
// the one for which the claim is awaited.
func (a *allocator) holder(address *address) (host int, ok bool) {
	hosts := address.hosts
	if len(hosts) == 1 {
		return hosts[0], true
	}
	found := -1
	for _, h := range hosts {
		switch {
		case !a.Hosts[h].manages(address.ip):
			return 0, false
		case !awaits(&a.Hosts[h], address.ip):
		case found >= 0:
			return 0, false
		default:
			found = h
		}
	}
	return found, found >= 0
}

func awaits(h *Host, ip netip.Addr) bool {
	_, found := slices.BinarySearchFunc(h.Awaited, ip, netip.Addr.Compare)
	return found
}

// keep returns the placement of the existing claims that may stay, and those of them
// that are requested. It notes why the others must be released. Claims that are not
// requested stay if they are awaited and reserve is set.
func (a *allocator) keep(reserve bool) (p *placement, kept []request) {
	p = newPlacement(a.index)
	a.reasons = make(map[claim]Reason)
	for _, request := range a.order {
		h, ok := a.holder(request.address)
		if !ok {
			continue
		}
		if reason := a.mustLeave(p, request, h); reason != "" {
			a.reasons[claim{ip: request.ip, host: h}] = reason
		} else {
			p.put(request, h)
		}
	}
	for h := range a.Hosts {
		for _, address := range a.claimed[h] {
			if !a.Hosts[h].manages(address.ip) {
				continue
			}
			ip, reason := address.ip, a.refusal(address)
			if a.bad[h] != "" {
				reason = ReasonBadHost
			} else if holder, ok := a.holder(address); reason == "" && ok && holder != h {
				reason = ReasonMultipleHosts
			}
			switch {
			case reason == "":
			case reason == ReasonNotRequested && reserve && a.mayWait(p, ip, h):
				p.reserve(ip, h)
			default:
				a.reasons[claim{ip: ip, host: h}] = reason
			}
		}
	}
	return p, p.addresses()
}

// mayWait reports whether a claim that no namespace requests may stay.
func (a *allocator) mayWait(p *placement, ip netip.Addr, h int) bool {
	return awaits(&a.Hosts[h], ip) && inRanges(&a.Hosts[h], ip) && p.takes(h, ip) && !p.full(h)
}

// mustLeave is why a claim may not stay on its host; "" if it may.
func (a *allocator) mustLeave(p *placement, r request, h int) Reason {
	if reason, _ := a.invalidOn(h, r.ip); reason != "" {
		return reason
	}
	_, sibling := p.sibling(h, r)
	switch {
	case !a.Hosts[h].Online && !a.Hosts[h].Doubtful:
		return ReasonHostOffline
	case a.Hosts[h].Unheard:
		return ReasonAgentUnknown
	case !a.mayHave(h, r):
		return ReasonOutsideRange
	case sibling:
		return ReasonSameHost
	case p.full(h):
		return ReasonCapacity
	}
	return ""
}

func inRanges(host *Host, ip netip.Addr) bool {
	return slices.ContainsFunc(host.Ranges, func(prefix netip.Prefix) bool { return prefix.Contains(ip) })
}

// mayHave reports whether the host is one for the request.
func (x *index) mayHave(h int, r request) bool {
	group := &x.Groups[r.group]
	return group.mayBeOn(&x.Hosts[h]) && x.Hosts[h].takes(r.ip, group.ofEgressIP())
}

// mayBeOn reports whether the controller may assign the group's egress IPs to the host.
func (n *Group) mayBeOn(h *Host) bool { return n.OnlyOn.Has(h.Name) }

// takes reports whether the host is one for an address: by its egressCIDRs, or where an EgressIP
// requests it, by the label of its Node.
func (h *Host) takes(ip netip.Addr, egressIP bool) bool {
	if egressIP && h.Assignable && slices.ContainsFunc(h.allNetworks(), func(n netip.Prefix) bool { return n.Contains(ip) }) {
		return true
	}
	return inRanges(h, ip)
}

// assignsTo reports whether there are hosts to which the controller assigns what a group requests.
func (a *allocator) assignsTo(group int) bool {
	egressIP := a.Groups[group].ofEgressIP()
	return slices.ContainsFunc(a.Hosts, func(h Host) bool { return h.Automatic || egressIP && h.Assignable })
}

func (a *allocator) allocation(p *placement, unplaced []request) Allocation {
	var allocation Allocation
	claims, assigned := make([][]netip.Addr, len(a.Hosts)), make([][]netip.Addr, len(a.Hosts))
	for h, load := range p.load {
		if load > 0 && a.Hosts[h].Automatic {
			claims[h] = make([]netip.Addr, 0, load)
		}
	}
	for _, address := range a.inOrder() {
		switch h := p.at[address.id]; {
		case h == none:
		case a.Groups[address.groups[0]].ofEgressIP():
			assigned[h] = append(assigned[h], address.ip)
		default:
			claims[h] = append(claims[h], address.ip)
		}
	}
	for ip, h := range p.reserved {
		claims[h] = append(claims[h], ip)
	}
	for h := range a.Hosts {
		if host := &a.Hosts[h]; host.Managed {
			allocation.Hosts = append(allocation.Hosts, HostClaims{
				Host: host.Name, Automatic: host.Automatic, Claims: sortedUnique(claims[h]), Assigned: assigned[h],
			})
		}
	}
	for gone, reason := range a.reasons {
		allocation.Released = append(allocation.Released, Release{
			IP: gone.ip, Host: a.Hosts[gone.host].Name, Reason: reason,
			Message: a.releaseMessage(gone, reason),
		})
	}
	slices.SortFunc(allocation.Released, func(a, b Release) int {
		return cmp.Or(a.IP.Compare(b.IP), strings.Compare(a.Host, b.Host))
	})
	for _, request := range unplaced {
		name := a.Groups[request.group].Name
		if !a.assignsTo(request.group) {
			continue
		}
		allocation.Unplaced = append(allocation.Unplaced, Unplaced{
			IP: request.ip, Group: name, Reason: ReasonNoEligibleHost,
			Message: unplacedMessage(request.ip, name),
		})
	}
	slices.SortFunc(allocation.Unplaced, func(a, b Unplaced) int { return a.IP.Compare(b.IP) })
	return allocation
}
