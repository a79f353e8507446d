package controllers

import (
	"time"

	"k8s.io/apimachinery/pkg/types"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
)

// unheardAfter is how long an agent may take to report anything before what its host
// claims moves elsewhere. A HostSubnet that was restored has no status at first.
const unheardAfter = time.Minute

// silence remembers since when HostSubnets have had no report of an agent, by UID.
type silence map[types.UID]time.Time

// unheard takes what is reported now, and returns the hosts whose agents have not
// reported in time, and how long it takes until there may be more; 0 for never.
func (s silence) unheard(hosts []*v1.HostSubnet, now time.Time) (unheard map[string]bool, next time.Duration) {
	unheard = make(map[string]bool)
	known := make(map[types.UID]bool)
	for _, h := range hosts {
		if h.Status.Agent != nil {
			continue
		}
		known[h.UID] = true
		if _, ok := s[h.UID]; !ok {
			s[h.UID] = now
		}
		if wait := s[h.UID].Add(unheardAfter).Sub(now); wait <= 0 {
			unheard[h.Name] = true
		} else if next == 0 || wait < next {
			next = wait
		}
	}
	for uid := range s {
		if !known[uid] {
			delete(s, uid)
		}
	}
	return unheard, next
}
