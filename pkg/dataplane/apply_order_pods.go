package dataplane

import (
	"net/netip"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/bpf"
)

// podRoutes sets routes of pods that are new or changed, and reports whether a pod
// had another route before.
func (c *changes) podRoutes(want, obs map[netip.Addr]bpf.Route) (rerouted bool) {
	for _, ip := range sortedAddrs(want) {
		if r, ok := obs[ip]; !ok || !r.Equal(want[ip]) {
			c.add(change{phase: phaseRoute, op: putRoute, ip: ip, route: want[ip]})
			rerouted = rerouted || ok
		}
	}
	return rerouted
}

// maxSources is for how many new pods connection tracking is searched one by one: each search
// walks through all of it, but tells of one pod's connections only.
const maxSources = 4

// podMarks adds the changes of set egress-pods. It returns the pods that were unknown and may
// have connected already, and reports whether connections of others may now be on another
// path than their pod.
func (c *changes) podMarks(want, obs map[netip.Addr]uint32) (begun []netip.Addr, remarked bool) {
	for _, ip := range sortedAddrs(want) {
		mark, known := obs[ip]
		if known && mark == want[ip] {
			continue
		}
		c.add(change{phase: phaseMark, op: putMember, set: setOf(setPods, ip), ip: ip, mark: want[ip]})
		remarked = remarked || known
		if !known && want[ip] != 0 {
			begun = append(begun, ip)
		}
	}
	for _, ip := range missing(obs, want) {
		c.add(change{phase: phaseMark, op: delMember, set: setOf(setPods, ip), ip: ip})
		remarked = remarked || obs[ip] != 0
	}
	return begun, remarked
}
