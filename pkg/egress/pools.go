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
	Message   string
}

// DrawnPool is what a pool has given.
type DrawnPool struct{ Given, Kept, Refused int }

// Reasons of requests.
const (
	// ReasonGiven: the request has its addresses.
	ReasonGiven Reason = "Given"
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
// these decide about new ones. No address is given twice, nor one that anything else requests or
// claims, or that cannot be an egress IP. What a request that is gone had is kept for it for a
// while. Of requests that compete, the oldest is first. The answer does not depend on the order of
// the lists.
func Draw(in Drawing) Drawn {
	d := drawer{
		Drawing: in, pools: make(map[string]int), taken: make(map[netip.Addr]bool), mine: make(map[netip.Addr]bool),
		given: make(map[string]Given), next: make(map[netip.Prefix]netip.Addr), counts: make(map[[2]string]int),
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
	asked := make(map[string]bool, len(order))
	for _, i := range order {
		asked[in.Requests[i].name()] = true
	}
	// Those that have something keep it, before others are given anything.
	for _, i := range order {
		d.keep(i)
	}
	for _, i := range order {
		d.serve(i)
	}
	d.retain(asked)
	slices.SortFunc(d.drawn.Given, func(a, b Given) int { return strings.Compare(a.Name, b.Name) })
	slices.Sort(d.drawn.Forgotten)
	return d.drawn
}

// drawer gives addresses.
type drawer struct {
	Drawing
	index [2]*index
	pools map[string]int
	given map[string]Given
	// taken are not free, mine are given in this drawing.
	taken, mine map[netip.Addr]bool
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
			d.taken[ip] = true
		}
	}
	for i := range d.Cluster.Hosts {
		for _, ip := range d.Cluster.Hosts[i].Claims {
			d.taken[ip] = true
		}
	}
}

// keep keeps what a request has, as far as its pool has it.
func (d *drawer) keep(i int) {
	r := d.Requests[i]
	before, has := d.given[r.name()]
	if !has || before.Pool != r.Pool {
		return
	}
	p, known := d.pools[r.Pool]
	if !known {
		before.ReleasedAt = time.Time{}
		d.drawn.Given = append(d.drawn.Given, before)
		d.drawn.Requests[i] = DrawnRequest{Addresses: before.Addresses, Reason: ReasonGiven, Message: fmt.Sprintf(
			"EgressIPPool %s is gone. The request keeps its addresses until it is deleted.", r.Pool)}
		return
	}
	pool := &d.Pools[p]
	var kept []netip.Addr
	for _, ip := range before.Addresses {
		// What a pool has is not known if a part of it cannot be read.
		if pool.Broken != "" || slices.ContainsFunc(pool.CIDRs, func(c netip.Prefix) bool { return c.Contains(ip) }) {
			kept = append(kept, ip)
		}
	}
	// Two of them have one address if a controller gave it that had not seen the other's.
	twice := slices.ContainsFunc(kept, func(ip netip.Addr) bool { return d.mine[ip] })
	if len(kept) == 0 || len(kept) < len(before.Addresses) || twice {
		return // it is given others
	}
	d.give(i, kept)
}

// give notes what a request has.
func (d *drawer) give(i int, ips []netip.Addr) {
	r := d.Requests[i]
	for _, ip := range ips {
		d.taken[ip], d.mine[ip] = true, true
	}
	d.counts[[2]string{r.Namespace, r.Pool}]++
	d.drawn.Given = append(d.drawn.Given, Given{Name: r.name(), Request: r.Namespace + "/" + r.Name, Pool: r.Pool, Addresses: ips})
	d.drawn.Pools[d.pools[r.Pool]].Given += len(ips)
	d.drawn.Requests[i] = DrawnRequest{Addresses: ips, Reason: ReasonGiven, Message: fmt.Sprintf(
		"EgressIP %s has the addresses: it says whether traffic leaves with them.", r.name())}
}

// serve gives a request that has nothing its addresses, or says why not.
func (d *drawer) serve(i int) {
	if d.drawn.Requests[i].Reason != "" {
		return
	}
	r := d.Requests[i]
	refuse := func(reason Reason, format string, args ...any) {
		d.drawn.Requests[i] = DrawnRequest{Reason: reason, Message: fmt.Sprintf(format, args...)}
		if p, known := d.pools[r.Pool]; known {
			d.drawn.Pools[p].Refused++
		}
	}
	p, known := d.pools[r.Pool]
	if !known {
		refuse(ReasonNoPool, "There is no EgressIPPool %s: ask an administrator which there are, and make a request with its name.", r.Pool)
		return
	}
	switch pool := &d.Pools[p]; {
	case r.Broken != "":
		refuse(ReasonBadRequest, "%s", r.Broken)
	case pool.Broken != "":
		refuse(ReasonBadPool, "EgressIPPool %s gives nothing: %s", pool.Name, pool.Broken)
	case d.Foreign[r.name()]:
		refuse(ReasonNameTaken, "There is an EgressIP %s that is not of this request: give the request another name.", r.name())
	case !pool.Allows(r.Namespace):
		refuse(ReasonNotAllowed, "EgressIPPool %s is not for namespace %s: its namespaceSelector does not select the namespace's labels.", pool.Name, r.Namespace)
	case pool.PerNamespace >= 0 && d.counts[[2]string{r.Namespace, r.Pool}] >= pool.PerNamespace:
		refuse(ReasonQuota, "EgressIPPool %s serves %d requests of each namespace, and %s has as many: delete another request of the namespace.",
			pool.Name, pool.PerNamespace, r.Namespace)
	default:
		ips, missing := d.free(pool)
		if missing != "" {
			refuse(ReasonExhausted, "EgressIPPool %s has no free address of %s: an administrator can add one to its cidrs.", pool.Name, missing)
			return
		}
		d.give(i, ips)
	}
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
	for h := range d.Cluster.Hosts {
		for _, network := range d.Cluster.Hosts[h].Networks {
			if network.Contains(ip) && invalidReasonIn(network, ip) != "" {
				return false
			}
		}
	}
	return true
}

// retain keeps what requests that are gone had, for a while.
func (d *drawer) retain(asked map[string]bool) {
	for _, g := range d.Given {
		if asked[g.Name] {
			continue
		}
		if g.ReleasedAt.IsZero() {
			g.ReleasedAt = d.Now
		}
		left := g.ReleasedAt.Add(d.Retention).Sub(d.Now)
		if left <= 0 {
			d.drawn.Forgotten = append(d.drawn.Forgotten, g.Name)
			continue
		}
		if d.drawn.Next == 0 || left < d.drawn.Next {
			d.drawn.Next = left
		}
		d.drawn.Given = append(d.drawn.Given, g)
		if p, known := d.pools[g.Pool]; known {
			d.drawn.Pools[p].Kept += len(g.Addresses)
		}
	}
}
