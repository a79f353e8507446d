package egress

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Pool has addresses that requests are given.
type Pool struct {
	Name  string
	CIDRs []netip.Prefix
	// Allows reports whether a namespace may have addresses of the pool.
	Allows func(namespace string) bool
	// PerNamespace is the greatest number of requests of a namespace that are served; negative
	// for no limit.
	PerNamespace int
	// Broken is why the pool gives nothing; empty if nothing is wrong with it.
	Broken string
}

// PoolRequest asks a pool for an address of each family that it has.
type PoolRequest struct {
	Namespace, Name, Pool string
	Created               time.Time
	// Broken is why the request cannot be served; empty if nothing is wrong with it.
	Broken string
	// Mistakes is what is wrong with its annotations, in sentences. It is served all the same.
	Mistakes string
}

// name is that of its EgressIP.
func (r PoolRequest) name() string { return r.Namespace + "." + r.Name }

// Given is what a request was given before, as its EgressIP says.
type Given struct {
	// Name is that of the EgressIP, Request that of the request, as NAMESPACE/NAME.
	Name, Request, Pool string
	Addresses           []netip.Addr
	// ReleasedAt is since when there is no such request; the zero time while there is one.
	ReleasedAt time.Time
}

// Drawing is everything that addresses are given by.
type Drawing struct {
	Pools    []Pool
	Requests []PoolRequest
	Given    []Given
	// Foreign are the names of EgressIPs that no request has made.
	Foreign map[string]bool
	// Ending are namespaces that are being deleted: their requests may be gone before their pods.
	Ending map[string]bool
	// Cluster says which addresses cannot be egress IPs, and which are requested or claimed.
	Cluster Cluster
	Now     time.Time
	// Retention is how long what was given is kept for a request that is gone.
	Retention time.Duration
}

// Drawn is what should be.
type Drawn struct {
	// Given are the EgressIPs that there should be, in order of name, and Forgotten the names of
	// those that should go.
	Given     []Given
	Forgotten []string
	// Requests and Pools in the order of the Drawing.
	Requests []DrawnRequest
	Pools    []DrawnPool
	// Next is how long it takes until something is forgotten; 0 for never.
	Next time.Duration
}

// DrawnRequest is what becomes of a request.
type DrawnRequest struct {
	Addresses []netip.Addr
	Reason    Reason
	// Message explains it, and ends with Mistakes, which are those of the request.
	Message, Mistakes string
}

// DrawnPool is what a pool has given.
type DrawnPool struct{ Given, Kept, Refused int }

// Reasons of requests.
const (
	// ReasonGiven: the request has its addresses.
	ReasonGiven Reason = "Given"
	// ReasonOutOfPool: the request has addresses that its pool does not have any more, as it can be
	// given no others.
	ReasonOutOfPool Reason = "OutOfPool"
	// ReasonNoPool: there is no such pool.
	ReasonNoPool Reason = "NoPool"
	// ReasonBadPool: the pool gives nothing.
	ReasonBadPool Reason = "BadPool"
	// ReasonBadRequest: the request cannot be served.
	ReasonBadRequest Reason = "BadRequest"
	// ReasonNotAllowed: the pool is not for this namespace.
	ReasonNotAllowed Reason = "NotAllowed"
	// ReasonQuota: the namespace has as many as the pool gives it.
	ReasonQuota Reason = "Quota"
	// ReasonExhausted: the pool has no address left.
	ReasonExhausted Reason = "Exhausted"
	// ReasonNameTaken: there is an EgressIP of the name that is not the request's.
	ReasonNameTaken Reason = "NameTaken"
)

// maxLook is how many addresses of a CIDR are looked at, at most, to find one that is free.
const maxLook = 1 << 16

// Draw gives requests addresses of their pools. What was given is never taken away, as long as its
// request is there and the pool has the address, whatever becomes of quotas and of who may have any:
// these decide about new ones, and about those that are made again. If the pool has the address no
// more, the request is given another one, and has the old one until it can be. No address is given
// twice, nor one that anything else requests or claims, or that cannot be an egress IP. What a
// request that is gone had is kept for it for a while, within its namespace's quota. Of requests that
// compete, the oldest is first. The answer does not depend on the order of the lists.
func Draw(in Drawing) Drawn {
	d := drawer{
		Drawing: in, pools: make(map[string]int), taken: make(map[netip.Addr]bool), mine: make(map[netip.Addr]bool), asked: make(map[netip.Addr]bool), networks: make(map[netip.Prefix]struct{}),
		given: make(map[string]Given), done: make(map[string]bool), twice: make(map[string]bool), next: make(map[netip.Prefix]netip.Addr), counts: make(map[[2]string]int),
		drawn: Drawn{Requests: make([]DrawnRequest, len(in.Requests)), Pools: make([]DrawnPool, len(in.Pools))},
	}
	for _, f := range []Family{IPv4, IPv6} {
		d.index[f] = newIndex(in.Cluster.of(f))
	}
	for i, p := range in.Pools {
		d.pools[p.Name] = i
	}
	for _, g := range in.Given {
		d.given[g.Name] = g
	}
	d.take()
	order := make([]int, len(in.Requests))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		r, s := &in.Requests[a], &in.Requests[b]
		return cmp.Or(r.Created.Compare(s.Created), strings.Compare(r.Namespace, s.Namespace), strings.Compare(r.Name, s.Name))
	})
	// Those that have something keep it, before those that are made again have what they had, and
	// others are given anything.
	for _, i := range order {
		d.keep(i)
	}
	for _, i := range order {
		d.giveAgain(i)
	}
	for _, i := range order {
		d.serve(i)
	}
	d.retain()
	for i, r := range in.Requests {
		if r.Mistakes != "" {
			d.drawn.Requests[i].Mistakes = r.Mistakes
			d.drawn.Requests[i].Message += " " + r.Mistakes
		}
	}
	slices.SortFunc(d.drawn.Given, func(a, b Given) int { return strings.Compare(a.Name, b.Name) })
	slices.Sort(d.drawn.Forgotten)
	return d.drawn
}

// drawer gives addresses.
type drawer struct {
	Drawing
	index [2]*index
	// networks are those of all hosts.
	networks map[netip.Prefix]struct{}
	pools    map[string]int
	given    map[string]Given
	// done are the names of EgressIPs about which is decided, twice those whose address another
	// request has, too.
	done, twice map[string]bool
	// taken are not free, mine are given in this drawing, asked are requested by anything.
	taken, mine, asked map[netip.Addr]bool
	// next is where to look for the next free address of a CIDR.
	next map[netip.Prefix]netip.Addr
	// counts are the requests that are served, by namespace and pool.
	counts map[[2]string]int
	drawn  Drawn
}

// take notes what is not free: what was given, is kept, is requested otherwise, or claimed by hand.
func (d *drawer) take() {
	for _, g := range d.Given {
		for _, ip := range g.Addresses {
			d.taken[ip] = true
		}
	}
	for i := range d.Cluster.Groups {
		for _, ip := range d.Cluster.Groups[i].Requests {
			d.taken[ip], d.asked[ip] = true, true
		}
	}
	for i := range d.Cluster.Hosts {
		for _, ip := range d.Cluster.Hosts[i].Claims {
			d.taken[ip] = true
		}
		for _, network := range d.Cluster.Hosts[i].allNetworks() {
			d.networks[network] = struct{}{}
		}
	}
}

// before returns what a request has, or had.
func (d *drawer) before(i int) (Given, bool) {
	r := d.Requests[i]
	before, has := d.given[r.name()]
	return before, has && before.Pool == r.Pool
}

// keep keeps what a request has, as far as its pool has it.
func (d *drawer) keep(i int) {
	before, has := d.before(i)
	if !has || !before.ReleasedAt.IsZero() {
		return
	}
	r := d.Requests[i]
	p, known := d.pools[r.Pool]
	if r.Broken != "" {
		d.have(i, before.Addresses, DrawnRequest{Reason: ReasonBadRequest, Message: r.Broken + " The request has its addresses as before this change."})
		return
	}
	// Two of them have one address if a controller gave it that had not seen the other's.
	d.twice[before.Name] = slices.ContainsFunc(before.Addresses, func(ip netip.Addr) bool { return d.mine[ip] })
	if known && d.Pools[p].has(before.Addresses) && !d.twice[before.Name] {
		d.give(i, before.Addresses)
	}
}

// giveAgain gives a request that is made again what it had, if it would be given anything.
func (d *drawer) giveAgain(i int) {
	before, has := d.before(i)
	p, known := d.pools[d.Requests[i].Pool]
	if !has || !known || before.ReleasedAt.IsZero() || d.done[before.Name] {
		return
	}
	reason, _ := d.refusal(i)
	// What it had may be of use to somebody else now.
	used := slices.ContainsFunc(before.Addresses, func(ip netip.Addr) bool { return d.mine[ip] || d.asked[ip] || !d.usable(ip) })
	if reason == "" && !used && d.Pools[p].has(before.Addresses) {
		d.give(i, before.Addresses)
	}
}

// has reports whether a pool has all of these addresses, of which there is one.
func (p *Pool) has(ips []netip.Addr) bool {
	for _, ip := range ips {
		// What a pool has is not known if a part of it cannot be read.
		if p.Broken == "" && !slices.ContainsFunc(p.CIDRs, func(c netip.Prefix) bool { return c.Contains(ip) }) {
			return false
		}
	}
	return len(ips) > 0
}

// give notes what a request has of its pool.
func (d *drawer) give(i int, ips []netip.Addr) {
	r := d.Requests[i]
	d.drawn.Pools[d.pools[r.Pool]].Given += len(ips)
	d.have(i, ips, DrawnRequest{Reason: ReasonGiven, Message: fmt.Sprintf(
		"EgressIP %s has the addresses: it says whether traffic leaves with them.", r.name())})
}

// have notes what a request has.
func (d *drawer) have(i int, ips []netip.Addr, says DrawnRequest) {
	r := d.Requests[i]
	for _, ip := range ips {
		d.taken[ip], d.mine[ip] = true, true
	}
	d.counts[[2]string{r.Namespace, r.Pool}]++
	d.drawn.Given = append(d.drawn.Given, Given{Name: r.name(), Request: r.Namespace + "/" + r.Name, Pool: r.Pool, Addresses: ips})
	says.Addresses = ips
	d.drawn.Requests[i], d.done[r.name()] = says, true
}

// serve gives a request that has nothing of its pool addresses, or says why not.
func (d *drawer) serve(i int) {
	r := d.Requests[i]
	if d.done[r.name()] {
		return
	}
	reason, message := d.refusal(i)
	if reason == "" {
		pool := &d.Pools[d.pools[r.Pool]]
		ips, missing := d.free(pool)
		if missing == "" {
			d.give(i, ips)
			return
		}
		reason, message = ReasonExhausted, fmt.Sprintf("EgressIPPool %s has no free address of %s: an administrator can add one to its cidrs.", pool.Name, missing)
	}
	if p, known := d.pools[r.Pool]; known {
		d.drawn.Pools[p].Refused++
	}
	d.drawn.Requests[i] = DrawnRequest{Reason: reason, Message: message}
	switch before, has := d.before(i); {
	case !has || !before.ReleasedAt.IsZero():
	case d.twice[before.Name]:
		d.drawn.Forgotten, d.done[before.Name] = append(d.drawn.Forgotten, before.Name), true
	default:
		d.have(i, before.Addresses, DrawnRequest{Reason: ReasonOutOfPool, Message: fmt.Sprintf(
			"EgressIPPool %s does not have %v any more, and gives no other. The request keeps what it has until then, or until it is deleted. %s",
			r.Pool, before.Addresses, message)})
	}
}

// refusal is why a request is given nothing new, whatever is free; empty if it may be.
func (d *drawer) refusal(i int) (reason Reason, message string) {
	r := d.Requests[i]
	p, known := d.pools[r.Pool]
	if !known {
		return ReasonNoPool, fmt.Sprintf("There is no EgressIPPool %s: ask an administrator which there are, and make a request with its name.", r.Pool)
	}
	switch pool := &d.Pools[p]; {
	case r.Broken != "":
		return ReasonBadRequest, r.Broken
	case pool.Broken != "":
		return ReasonBadPool, fmt.Sprintf("EgressIPPool %s gives nothing: %s", pool.Name, pool.Broken)
	case d.Foreign[r.name()]:
		return ReasonNameTaken, fmt.Sprintf("There is an EgressIP %s that is not of this request: give the request another name.", r.name())
	case !pool.Allows(r.Namespace):
		return ReasonNotAllowed, fmt.Sprintf("EgressIPPool %s is not for namespace %s: its namespaceSelector does not select the namespace's labels.", pool.Name, r.Namespace)
	case pool.PerNamespace >= 0 && d.counts[[2]string{r.Namespace, r.Pool}] >= pool.PerNamespace:
		return ReasonQuota, fmt.Sprintf("EgressIPPool %s serves %d requests of each namespace, and %s has as many: delete another request of the namespace.",
			pool.Name, pool.PerNamespace, r.Namespace)
	}
	return "", ""
}

// free finds a free address of each family of a pool; missing is the first family that has none.
func (d *drawer) free(p *Pool) (ips []netip.Addr, missing string) {
	for _, f := range []Family{IPv4, IPv6} {
		cidrs := only(p.CIDRs, func(c netip.Prefix) bool { return FamilyOf(c.Addr()) == f })
		if len(cidrs) == 0 {
			continue
		}
		found := false
		for _, c := range cidrs {
			if ip, ok := d.freeIn(c); ok {
				ips, found = append(ips, ip), true
				break
			}
		}
		if !found {
			return nil, f.String()
		}
	}
	return ips, ""
}

// freeIn finds the first free address of a CIDR. What was looked at before is not free.
func (d *drawer) freeIn(c netip.Prefix) (netip.Addr, bool) {
	ip, begun := d.next[c]
	if !begun {
		ip = c.Addr()
	}
	for range maxLook {
		if !c.Contains(ip) {
			break
		}
		if !d.taken[ip] && d.usable(ip) {
			d.next[c] = ip
			return ip, true
		}
		ip = ip.Next()
	}
	d.next[c] = ip
	return netip.Addr{}, false
}

// usable reports whether the address can be an egress IP at all.
func (d *drawer) usable(ip netip.Addr) bool {
	if invalidReason(ip) != "" {
		return false
	}
	if a := d.index[FamilyOf(ip)].newAddress(ip); a.hostIP || a.podsOf != none || a.named != nil {
		return false
	}
	for network := range d.networks {
		if network.Contains(ip) && invalidReasonIn(network, ip) != "" {
			return false
		}
	}
	return true
}

// retain keeps what requests that are gone had, for a while: the newest, within the quota of their
// namespace, as else a namespace could take all addresses one by one.
func (d *drawer) retain() {
	var gone []Given
	for _, g := range d.Given {
		namespace, _, _ := strings.Cut(g.Request, "/")
		switch {
		case d.done[g.Name]:
			continue
		case g.ReleasedAt.IsZero() && d.Ending[namespace]:
			d.drawn.Given = append(d.drawn.Given, g) // its pods may run for a while
			continue
		case g.ReleasedAt.IsZero():
			g.ReleasedAt = d.Now
		}
		gone = append(gone, g)
	}
	slices.SortFunc(gone, func(a, b Given) int {
		return cmp.Or(b.ReleasedAt.Compare(a.ReleasedAt), strings.Compare(a.Name, b.Name))
	})
	for _, g := range gone {
		p, known := d.pools[g.Pool]
		namespace, _, _ := strings.Cut(g.Request, "/")
		key := [2]string{namespace, g.Pool}
		left := g.ReleasedAt.Add(d.Retention).Sub(d.Now)
		if left <= 0 || known && d.Pools[p].PerNamespace >= 0 && d.counts[key] >= d.Pools[p].PerNamespace {
			d.drawn.Forgotten = append(d.drawn.Forgotten, g.Name)
			continue
		}
		d.counts[key]++
		if d.drawn.Next == 0 || left < d.drawn.Next {
			d.drawn.Next = left
		}
		d.drawn.Given = append(d.drawn.Given, g)
		if known {
			d.drawn.Pools[p].Kept += len(g.Addresses)
		}
	}
}
