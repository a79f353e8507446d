package agent

import (
	"maps"
	"net/netip"
	"slices"
	"time"
)

// addressMemory is how long an address of the node counts as its own after it was seen
// last: a virtual IP that moves must not be outside the cluster between the reports of
// the two nodes.
const addressMemory = time.Minute

// sightings are the addresses of the node, and when each was seen last. The zero value
// is ready.
type sightings struct{ last map[netip.Addr]time.Time }

// see notes the addresses that the kernel has now, and forgets those that it had long
// ago. It reports whether the list changes.
func (s *sightings) see(addresses []netip.Addr, now time.Time) (changed bool) {
	if s.last == nil {
		s.last = make(map[netip.Addr]time.Time, len(addresses))
	}
	for _, ip := range addresses {
		_, known := s.last[ip]
		changed = changed || !known
		s.last[ip] = now
	}
	maps.DeleteFunc(s.last, func(_ netip.Addr, at time.Time) bool {
		gone := now.Sub(at) > addressMemory
		changed = changed || gone
		return gone
	})
	return changed
}

// list returns the addresses in order.
func (s *sightings) list() []netip.Addr {
	return slices.SortedFunc(maps.Keys(s.last), netip.Addr.Compare)
}
