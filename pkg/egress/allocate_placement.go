package egress

import (
	"cmp"
	"container/heap"
	"maps"
	"math"
	"net/netip"
	"slices"
)

// placement is which automatic host has which address, while that is being decided.
type placement struct {
	*index
	// at is the host of each address, by its number; none for one that is not placed.
	// placed is how many are.
	at     []int
	placed int
	// load is the number of addresses of each host, by its position, with those that the
	// administrator has given it.
	load []int
	// reserved are claims that are kept although no namespace requests them, with their
	// host. They count as load.
	reserved map[netip.Addr]int
	// siblings are the addresses by host and namespace, one each, of namespaces that
	// request many.
	siblings map[hostGroup]netip.Addr
	// byHand are the addresses by host and group, one each, that the administrator has given a
	// host that the controller assigns to, too.
	byHand map[hostGroup]netip.Addr
}

type hostGroup struct{ host, group int }

func newPlacement(x *index) *placement {
	p := &placement{
		index:    x,
		at:       make([]int, x.addresses.count()),
		load:     make([]int, len(x.Hosts)),
		siblings: make(map[hostGroup]netip.Addr),
		reserved: make(map[netip.Addr]int),
	}
	for id := range p.at {
		p.at[id] = none
	}
	for h := range x.Hosts {
		if host := &x.Hosts[h]; host.Managed && host.byHand() > 0 {
			p.load[h] = host.byHand()
			p.noteByHand(h)
		}
	}
	return p
}

// noteByHand notes what the administrator has given a host.
func (p *placement) noteByHand(h int) {
	if p.byHand == nil {
		p.byHand = make(map[hostGroup]netip.Addr)
	}
	for _, a := range p.claimed[h] {
		if !p.Hosts[h].manages(a.ip) && len(a.groups) == 1 {
			p.byHand[hostGroup{h, a.groups[0]}] = a.ip
		}
	}
}

func (p *placement) clone() *placement {
	return &placement{
		index:    p.index,
		at:       slices.Clone(p.at),
		placed:   p.placed,
		load:     slices.Clone(p.load),
		siblings: maps.Clone(p.siblings),
		reserved: p.reserved,
		byHand:   p.byHand,
	}
}

func (p *placement) put(r request, h int) {
	p.at[r.id] = h
	p.placed++
	p.load[h]++
	if len(p.requested[r.group]) > few {
		p.siblings[hostGroup{h, r.group}] = r.ip
	}
}

// reserve keeps a claim that no namespace requests.
func (p *placement) reserve(ip netip.Addr, h int) {
	p.reserved[ip] = h
	p.load[h]++
}

func (p *placement) remove(r request) {
	h := p.at[r.id]
	p.at[r.id] = none
	p.placed--
	p.load[h]--
	delete(p.siblings, hostGroup{h, r.group})
}

// few is how many addresses are looked through faster than a map.
const few = 8

// sibling is the address of the same namespace that the host has.
func (p *placement) sibling(h int, r request) (netip.Addr, bool) {
	if ip, ok := p.byHand[hostGroup{h, r.group}]; ok {
		return ip, true
	}
	requests := p.requested[r.group]
	if len(requests) > few {
		ip, ok := p.siblings[hostGroup{h, r.group}]
		return ip, ok
	}
	for _, address := range requests {
		if p.at[address.id] == h {
			return address.ip, true
		}
	}
	return netip.Addr{}, false
}

// host is the host of the request; false if it is not placed.
func (p *placement) host(r request) (h int, placed bool) {
	h = p.at[r.id]
	return h, h != none
}

// free is how many more addresses the host can have.
func (p *placement) free(h int) int {
	if p.Hosts[h].Capacity == 0 {
		return math.MaxInt
	}
	return max(p.Hosts[h].Capacity, 0) - p.load[h]
}

func (p *placement) full(h int) bool { return p.free(h) <= 0 }

// takes reports whether the host could have the address, apart from its other
// addresses.
func (p *placement) takes(h int, ip netip.Addr) bool {
	reason, _ := p.invalidOn(h, ip)
	return reason == "" && !p.Hosts[h].Failing[ip]
}

// addresses are the placed addresses in order, each with its namespace.
func (p *placement) addresses() []request {
	list := make([]request, 0, p.placed)
	for _, address := range p.inOrder() {
		if p.at[address.id] != none {
			list = append(list, request{address: address, group: address.groups[0]})
		}
	}
	return list
}

// betterThan compares first how many addresses are placed, then how evenly.
func (p *placement) betterThan(other *placement) bool {
	if p.placed != other.placed {
		return p.placed > other.placed
	}
	return p.unevenness() < other.unevenness()
}

// unevenness is the sum of the squares of the loads: it shrinks whenever an address
// moves from a host to one that has at least two fewer.
func (p *placement) unevenness() int {
	sum := 0
	for _, load := range p.load {
		sum += load * load
	}
	return sum
}

// place gives each of the requests a host, in their order, and returns those that
// find none. It moves nothing that was placed before.
//
// Requests that only one host can take come first, so that no other takes their
// place. The rest go to the candidate with the fewest addresses, then to that with the
// most capacity left, then to the first by name. Requests that are left then are
// placed if others of these requests can make room: as many as possible are placed.
func (p *placement) place(requests []request) (unplaced []request) {
	return p.placeOn(p.canTake, requests)
}

// placeInDoubt places requests that find no other host on doubtful hosts, as place does:
// with a host that may be dead an address is no worse off than with none.
func (p *placement) placeInDoubt(requests []request) (unplaced []request) {
	if len(requests) == 0 {
		return nil
	}
	return p.placeOn(p.canTakeInDoubt, requests)
}

// placeOn is place with these hosts.
func (p *placement) placeOn(hosts func(h int) bool, requests []request) (unplaced []request) {
	pool := newPool(p, hosts)
	var flexible []request
	for _, r := range requests {
		if h, only := pool.only(r); only {
			p.put(r, h)
		} else {
			flexible = append(flexible, r)
		}
	}
	for _, r := range flexible {
		if h, ok := pool.best(r); ok {
			p.put(r, h)
		} else {
			unplaced = append(unplaced, r)
		}
	}
	if len(unplaced) == 0 {
		return nil
	}
	return newAugmenter(p, pool, requests).placeAll(unplaced)
}

// pool finds candidates among some automatic hosts. Hosts are kept by range: if
// thousands have the same range, a request looks at few of them.
//
// Loads only grow while it is in use, so a host found full stays full, and a position
// in a queue can only be too far in front.
type pool struct {
	*placement
	// byRange are the hosts with a range for what NetNamespaces, and for what EgressIPs request.
	byRange [2]map[netip.Prefix]*queue
	// restricted are the hosts with a range on which some groups may be, for what EgressIPs request:
	// among thousands of others it would take long to find them.
	restricted map[restrictedRange]*queue
	lengths    prefixLengths
	// found is what queues returned last.
	found []*queue
}

type restrictedRange struct {
	prefix netip.Prefix
	onlyOn *HostSet
}

func newPool(p *placement, hosts func(h int) bool) *pool {
	all := &pool{placement: p, restricted: make(map[restrictedRange]*queue), byRange: [2]map[netip.Prefix]*queue{make(map[netip.Prefix]*queue), make(map[netip.Prefix]*queue)}}
	for h := range p.Hosts {
		if !hosts(h) {
			continue
		}
		for kind, ranges := range rangesOf(&p.Hosts[h], p.ofEgressIPs) {
			for _, prefix := range ranges {
				q := all.byRange[kind][prefix]
				if q == nil {
					q = &queue{placement: p}
					all.byRange[kind][prefix] = q
					all.lengths.add(prefix)
				}
				q.add(h)
			}
		}
	}
	for _, queues := range all.byRange {
		for _, q := range queues {
			heap.Init(q)
		}
	}
	return all
}

// queues are those of the ranges for the request, until the next call.
func (p *pool) queues(r request) []*queue {
	p.found = p.found[:0]
	group := &p.Groups[r.group]
	queues := p.byRange[kindOf(group)]
	for prefix := range p.lengths.of(r.ip) {
		q := queues[prefix]
		if q != nil && group.OnlyOn != nil {
			q = p.restrict(q, restrictedRange{prefix, group.OnlyOn})
		}
		if q != nil {
			p.found = append(p.found, q)
		}
	}
	return p.found
}

// restrict returns the queue of those hosts on which a group may be.
func (p *pool) restrict(q *queue, to restrictedRange) *queue {
	if only, made := p.restricted[to]; made {
		return only
	}
	only := &queue{placement: p.placement}
	for _, h := range q.all {
		if to.onlyOn.Has(p.Hosts[h].Name) {
			only.add(h)
		}
	}
	heap.Init(only)
	p.restricted[to] = only
	return only
}

func (p *pool) candidate(h int, r request) bool {
	_, sibling := p.sibling(h, r)
	return !sibling && !p.full(h) && p.takes(h, r.ip) && p.Groups[r.group].mayBeOn(&p.Hosts[h])
}

// only returns the host that can take the request, if there is exactly one.
func (p *pool) only(r request) (int, bool) {
	found := -1
	for _, q := range p.queues(r) {
		for i := 0; i < len(q.hosts); i++ {
			h := q.hosts[i]
			if p.full(h) {
				q.hosts[i] = q.hosts[len(q.hosts)-1]
				q.hosts = q.hosts[:len(q.hosts)-1]
				i--
				continue
			}
			if h == found || !p.candidate(h, r) {
				continue
			}
			if found >= 0 {
				return 0, false
			}
			found = h
		}
	}
	return found, found >= 0
}

// best returns the candidate to choose.
func (p *pool) best(r request) (int, bool) {
	found := -1
	for _, q := range p.queues(r) {
		if h, ok := q.first(func(h int) bool { return p.candidate(h, r) }); ok {
			if found < 0 || p.compare(h, found) < 0 {
				found = h
			}
		}
	}
	return found, found >= 0
}

// compare orders hosts by how well they suit one more address.
func (p *placement) compare(a, b int) int {
	return cmp.Or(
		cmp.Compare(p.load[a], p.load[b]),
		cmp.Compare(p.free(b), p.free(a)),
		cmp.Compare(a, b),
	)
}

// queue holds the hosts with one range, the best first.
type queue struct {
	*placement
	// all hosts with the range; hosts are those that were not found full.
	all, hosts []int
	// entries are a heap, ordered by the load of each host when it was pushed.
	entries []entry
}

type entry struct{ host, load int }

// add adds a host. Then the heap must be made again.
func (q *queue) add(h int) {
	q.all = append(q.all, h)
	q.hosts = append(q.hosts, h)
	q.entries = append(q.entries, entry{host: h, load: q.load[h]})
}

// first returns the best host that is a candidate.
func (q *queue) first(candidate func(int) bool) (int, bool) {
	var aside []entry
	defer func() {
		for _, e := range aside {
			heap.Push(q, e)
		}
	}()
	for len(q.entries) > 0 {
		e := q.entries[0]
		switch {
		case q.full(e.host):
			heap.Pop(q)
		case e.load != q.load[e.host]:
			q.entries[0].load = q.load[e.host]
			heap.Fix(q, 0)
		case candidate(e.host):
			return e.host, true
		default:
			aside = append(aside, heap.Pop(q).(entry))
		}
	}
	return 0, false
}

// Len is part of heap.Interface.
func (q *queue) Len() int { return len(q.entries) }

// Less is part of heap.Interface.
func (q *queue) Less(i, j int) bool {
	a, b := q.entries[i], q.entries[j]
	return cmp.Or(
		cmp.Compare(a.load, b.load),
		cmp.Compare(q.freeAt(b), q.freeAt(a)),
		cmp.Compare(a.host, b.host),
	) < 0
}

// freeAt is what free was when the entry was pushed: an order that changes would
// break the heap.
func (q *queue) freeAt(e entry) int {
	if q.Hosts[e.host].Capacity == 0 {
		return math.MaxInt
	}
	return q.Hosts[e.host].Capacity - e.load
}

// Swap is part of heap.Interface.
func (q *queue) Swap(i, j int) { q.entries[i], q.entries[j] = q.entries[j], q.entries[i] }

// Push is part of heap.Interface.
func (q *queue) Push(e any) { q.entries = append(q.entries, e.(entry)) }

// Pop is part of heap.Interface.
func (q *queue) Pop() any {
	last := q.entries[len(q.entries)-1]
	q.entries = q.entries[:len(q.entries)-1]
	return last
}
