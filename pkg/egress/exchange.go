package egress

import (
	"net/netip"
	"slices"
)

// exchange makes room for requests that found none, by moving others of the
// same round. It is the search for augmenting paths in a flow network:
//
//	request --1--> (host, namespace) --1--> host --capacity--> placed
//
// so that in the end as many are placed as can be. What was placed before the
// round is fixed, and takes no part.
type exchange struct {
	*placement
	pool *pool
	// movable are the requests of this round, by address.
	movable map[netip.Addr]request
	// onHost are movable addresses by the host that bears them; stale entries
	// are passed over.
	onHost map[int][]netip.Addr
	// dead are hosts and addresses from which a search found no room. Later
	// exchanges cannot change that: they would have to pass through them.
	deadHosts     map[int]bool
	deadAddresses map[netip.Addr]bool
}

func newExchange(p *placement, pool *pool, round []request) *exchange {
	x := &exchange{placement: p, pool: pool}
	x.movable = make(map[netip.Addr]request, len(round))
	x.onHost = make(map[int][]netip.Addr)
	x.deadHosts = make(map[int]bool)
	x.deadAddresses = make(map[netip.Addr]bool)
	for _, r := range round {
		x.movable[r.ip] = r
		if h, ok := p.at[r.ip]; ok {
			x.onHost[h] = append(x.onHost[h], r.ip)
		}
	}
	return x
}

// placeAll returns the requests for which there is no room at all.
func (x *exchange) placeAll(requests []request) (leftover []request) {
	for _, r := range requests {
		if !x.placeOne(r) {
			leftover = append(leftover, r)
		}
	}
	return leftover
}

// step is how the search came to an address: from would take its place.
type step struct {
	request
	// previous is the position of the step that takes this address's host; -1
	// at the start.
	previous int
}

// placeOne searches breadth first, so that as few addresses as possible change
// their hosts.
func (x *exchange) placeOne(r request) bool {
	seenHosts := make(map[int]bool)
	seen := map[netip.Addr]bool{r.ip: true}
	steps := []step{{request: r, previous: -1}}
	for i := 0; i < len(steps); i++ {
		for _, h := range x.hostsFor(steps[i].ip) {
			if seenHosts[h] {
				continue
			}
			displaced := x.onHost[h]
			if sibling, ok := x.sibling(h, steps[i].namespace); ok {
				displaced = []netip.Addr{sibling}
			} else {
				seenHosts[h] = true
				if !x.full(h) {
					x.shift(steps, i, h)
					return true
				}
			}
			for _, ip := range displaced {
				next, movable := x.movable[ip]
				if movable && x.at[ip] == h && !seen[ip] && !x.deadAddresses[ip] {
					seen[ip] = true
					steps = append(steps, step{request: next, previous: i})
				}
			}
		}
	}
	for h := range seenHosts {
		x.deadHosts[h] = true
	}
	for ip := range seen {
		x.deadAddresses[ip] = true
	}
	return false
}

// hostsFor are the hosts that could bear the address if there were room, in
// order, without dead ones.
func (x *exchange) hostsFor(ip netip.Addr) []int {
	var hosts []int
	for _, q := range x.pool.queues(ip) {
		q.all = slices.DeleteFunc(q.all, func(h int) bool { return x.deadHosts[h] })
		for _, h := range q.all {
			if x.takes(h, ip) {
				hosts = append(hosts, h)
			}
		}
	}
	slices.Sort(hosts)
	return slices.Compact(hosts)
}

// shift puts the address of step i on host h, and each address before it on
// the host that its successor leaves.
func (x *exchange) shift(steps []step, i, h int) {
	for i >= 0 {
		s := steps[i]
		left, placed := x.at[s.ip]
		if placed {
			x.remove(s.request)
		}
		x.put(s.request, h)
		x.onHost[h] = append(x.onHost[h], s.ip)
		h, i = left, s.previous
	}
}
