package dataplane

import (
	"net/netip"
	"slices"
)

// maxSources is for how many addresses connection tracking is searched one by one: each search
// walks through all of it, but tells of the connections of one only.
const maxSources = 4

// orderPods is order where the kernels differ in their pods alone.
func orderPods(in orderInput) []change {
	var c changes
	c.forget(in.sweep, c.pods(in))
	c.sort()
	return c.list
}

// pods adds the changes of pods and of their links. It returns the pods whose connections may
// now be on another path than they are: those that were unknown and may have connected
// already, those that have another path, and those that have gone.
func (c *changes) pods(in orderInput) (moved []netip.Addr) {
	obs, want := in.observed, in.desired
	moved = c.excluded(in)
	c.members(phaseLock, putMember, setLocked, want.locked, obs.locked)
	c.linkChanges(in)
	for _, ip := range sortedAddrs(want.routes) {
		before, known := obs.routes[ip]
		if known && before.Equal(want.routes[ip]) {
			continue
		}
		c.add(change{phase: phaseRoute, op: putRoute, ip: ip, route: want.routes[ip]})
		if known {
			moved = append(moved, ip)
		}
	}
	for _, ip := range sortedAddrs(want.pods) {
		mark, known := obs.pods[ip]
		if known && mark == want.pods[ip] {
			continue
		}
		c.add(change{phase: phaseMark, op: putMember, set: setOf(setPods, ip), ip: ip, mark: want.pods[ip]})
		if known || want.pods[ip] != 0 {
			moved = append(moved, ip)
		}
	}
	for _, ip := range missing(obs.pods, want.pods) {
		c.add(change{phase: phaseMark, op: delMember, set: setOf(setPods, ip), ip: ip})
		if obs.pods[ip] != 0 {
			moved = append(moved, ip)
		}
	}
	for _, ip := range missing(obs.routes, want.routes) {
		c.add(change{phase: phaseUnroute, op: delRoute, ip: ip})
	}
	for _, ip := range missing(obs.locked, want.locked) {
		c.add(change{phase: phaseUnlock, op: delMember, set: setOf(setLocked, ip), ip: ip})
		moved = append(moved, ip)
	}
	slices.SortFunc(moved, netip.Addr.Compare)
	return slices.Compact(moved)
}

// forget adds that connections are looked through: all of them, or those of pods that have
// moved where these are few.
func (c *changes) forget(all bool, moved []netip.Addr) {
	switch {
	case all || len(moved) > maxSources:
		c.add(change{phase: phaseForget, op: forgetFlows})
	case len(moved) > 0:
		c.add(change{phase: phaseForget, op: forgetFlows, sources: moved})
	}
}

// ofPods reports whether a change is about pods alone.
func (c change) ofPods() bool {
	switch c.op {
	case putRoute, delRoute, putLinks, forgetFlows, exclude:
		return true
	case putMember, delMember:
		return slices.Contains([]string{setPods, setPods6, setLocked, setLocked6}, c.set)
	default:
		return false
	}
}
