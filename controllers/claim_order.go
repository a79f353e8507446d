package controllers

import (
	"maps"
	"slices"

	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// claimsAtOnce bounds the lists of claims that one round writes: a host that fails while
// thousands of egress IPs are placed does not wait for all of them.
const claimsAtOnce = claimWriters

// displaced are addresses that this controller has released while a namespace still
// requests them, and that no host has claimed since. Their namespaces may have no other.
type displaced map[string]bool

// wrote notes a list that was written, and why what is not on it any more was released.
func (d displaced) wrote(before, now []string, released []egress.Release) {
	for _, release := range released {
		if ip := release.IP.String(); urgentRelease(release) && slices.Contains(before, ip) && !slices.Contains(now, ip) {
			d[ip] = true
		}
	}
	for _, ip := range now {
		delete(d, ip)
	}
}

// keep forgets those that no namespace requests any more. What waits for its former host, or
// has no other yet, stays.
func (d displaced) keep(a egress.Allocation) {
	if len(d) == 0 {
		return
	}
	still := make(map[string]bool)
	for _, host := range a.Hosts {
		for _, ip := range host.Claims {
			still[ip.String()] = true
		}
	}
	for _, request := range a.Unplaced {
		still[request.IP.String()] = true
	}
	maps.DeleteFunc(d, func(ip string, _ bool) bool { return !still[ip] })
}

// batches are the writes in the order in which rounds make them, one batch a round. Those that
// move an egress IP come first, and alone: they claim what was displaced, or release what is
// still requested, and what follows from them is decided in the next round.
func (d displaced) batches(writes []*claimWrite, released map[string][]egress.Release) (moves, others [][]*claimWrite) {
	move := func(w *claimWrite) bool {
		return slices.ContainsFunc(w.wanted, func(ip string) bool { return d[ip] }) ||
			slices.ContainsFunc(released[w.before.Name], urgentRelease)
	}
	var moving, rest []*claimWrite
	for _, w := range writes {
		if move(w) {
			moving = append(moving, w)
		} else {
			rest = append(rest, w)
		}
	}
	return slices.Collect(slices.Chunk(moving, claimsAtOnce)), slices.Collect(slices.Chunk(rest, claimsAtOnce))
}

// urgentRelease reports whether the address of a release is needed elsewhere.
func urgentRelease(release egress.Release) bool { return release.Reason != egress.ReasonNotRequested }
