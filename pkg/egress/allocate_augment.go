package egress

import (
	"net/netip"
	"slices"
)

// augmenter places requests that found no host, by moving others of the same round.
// It searches augmenting paths in a flow network:
//
//	request --1--> (host, namespace) --1--> host --capacity--> placed
//
// so that as many as possible are placed in the end. What was placed before the round
// does not move.
type augmenter struct {
	*placement
	pool *pool
	// movable are the requests of this round, by address.
	movable map[netip.Addr]request
	// onHost are movable addresses by their host; stale entries are skipped.
	onHost map[int][]netip.Addr
	// dead are hosts and addresses from which a search found no path. Later searches
	// cannot change that: their paths would have to pass through them.
	deadHosts     map[int]bool
	deadAddresses map[netip.Addr]bool
}

func newAugmenter(p *placement, pool *pool, round []request) *augmenter {
	x := &augmenter{placement: p, pool: pool}
	x.movable = make(map[netip.Addr]request, len(round))
	x.onHost = make(map[int][]netip.Addr)
	x.deadHosts = make(map[int]bool)
	x.deadAddresses = make(map[netip.Addr]bool)
	for _, r := range round {
		x.movable[r.ip] = r
		if h, ok := p.host(r); ok {
			x.onHost[h] = append(x.onHost[h], r.ip)
		}
	}
	return x
}

// placeAll returns the requests that cannot be placed at all.
func (x *augmenter) placeAll(requests []request) (unplaced []request) {
	for _, r := range requests {
		if !x.placeOne(r) {
			unplaced = append(unplaced, r)
		}
	}
	return unplaced
}

// step is how the search reached an address: previous would take its place.
type step struct {
	request
	// previous is the position of the step that takes this address's host; -1
	// at the start.
	previous int
}

// search is one search for an augmenting path.
type search struct {
	*augmenter
	steps []step
	seen  map[netip.Addr]bool
	// unseen are the hosts of each range that the search has not reached.
	unseen map[*queue][]int
	// seenHosts are those whose addresses are all among the steps.
	seenHosts map[int]bool
}

// placeOne searches breadth first, so that as few addresses as possible change
// their hosts.
func (x *augmenter) placeOne(r request) bool {
	s := &search{
		augmenter: x,
		steps:     []step{{request: r, previous: -1}},
		seen:      map[netip.Addr]bool{r.ip: true},
		unseen:    make(map[*queue][]int),
		seenHosts: make(map[int]bool),
	}
	for i := 0; i < len(s.steps); i++ {
		for _, q := range slices.Clone(x.pool.queues(s.steps[i].request)) {
			if h, found := s.look(i, q); found {
				x.shift(s.steps, i, h)
				return true
			}
		}
	}
	for h := range s.seenHosts {
		x.deadHosts[h] = true
	}
	for ip := range s.seen {
		x.deadAddresses[ip] = true
	}
	return false
}

// look searches the hosts of a range for one that can take the address of step i. If
// there is none it notes the addresses that could make room.
func (s *search) look(i int, q *queue) (int, bool) {
	hosts, begun := s.unseen[q]
	if !begun {
		q.all = slices.DeleteFunc(q.all, func(h int) bool { return s.deadHosts[h] })
		hosts = slices.Clone(q.all)
	}
	found := -1
	s.unseen[q] = slices.DeleteFunc(hosts, func(h int) bool {
		if found >= 0 || s.seenHosts[h] {
			return s.seenHosts[h]
		}
		r := s.steps[i].request
		if !s.takes(h, r.ip) || !s.Groups[r.group].mayBeOn(&s.Hosts[h]) {
			return false
		}
		if sibling, ok := s.sibling(h, r); ok {
			s.note(i, h, sibling)
			return false
		}
		if !s.full(h) {
			found = h
			return false
		}
		s.seenHosts[h] = true
		for _, ip := range s.onHost[h] {
			s.note(i, h, ip)
		}
		return true
	})
	return found, found >= 0
}

// note adds an address that might make room on its host h.
func (s *search) note(i, h int, ip netip.Addr) {
	next, movable := s.movable[ip]
	if movable && s.at[next.id] == h && !s.seen[ip] && !s.deadAddresses[ip] {
		s.seen[ip] = true
		s.steps = append(s.steps, step{request: next, previous: i})
	}
}

// shift puts the address of step i on host h, and each address before it on the host
// that its successor leaves.
func (x *augmenter) shift(steps []step, i, h int) {
	for i >= 0 {
		s := steps[i]
		left, placed := x.host(s.request)
		if placed {
			x.remove(s.request)
		}
		x.put(s.request, h)
		x.onHost[h] = append(x.onHost[h], s.ip)
		h, i = left, s.previous
	}
}
