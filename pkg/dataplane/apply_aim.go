package dataplane

import (
	"maps"
	"net/netip"
	"slices"
)

// goal is what a round brings to the kernel.
type goal struct {
	// state is the part of the State that this round can do, known its digest.
	state State
	known *digest
	// desired is the kernel that does it.
	desired kernel
	// serving are the indices of egress IPs that packets may get. prepared are those
	// of egress IPs whose source NAT rule and guard are there beforehand: they do no
	// harm, as no packet has such an index as its mark.
	serving, prepared indices
}

// aim decides what the kernel must be: a pure function of the State with its digest, the
// egress IPs that are known to be unusable, and the indices in the present rules. It also
// returns what is wrong with the State, and the hosted egress IPs for which no index
// is left; where there are such, the goal is empty.
func aim(s State, digest *digest, m Marks, unusable map[netip.Addr]error, known indices, used map[int]bool) (g goal, problems []error, without []netip.Addr) {
	state, problems := usable(s, digest, unusable)
	serving, without := assignIndices(addressesOf(state.Hosted), known, used, m)
	if len(without) > 0 {
		return goal{}, problems, without
	}
	return goal{
		state:    state,
		known:    digest,
		desired:  desire(state, digest, m, serving),
		serving:  serving,
		prepared: standbyIndices(addressesOf(state.Standby), serving, known, used, m),
	}, problems, nil
}

// untilProbed is the goal while the pending addresses are not on the uplink: each
// must be probed for by ARP before it is added. That takes time, and what must be
// dropped until then cannot wait for it. So a round comes first that does all but
// the pending addresses:
//
//	pending address        added  its pods and network     source NAT rule, guard
//	new to this host       no     dropped, not served      prepared
//	served already, lost   no     as before                as before
//
// served are the egress IPs that the host served before the round. One of them whose
// address was lost keeps its connections: without the address none of its packets
// leaves, and what comes back goes on when the address is there again.
func (g goal) untilProbed(m Marks, pending []netip.Addr, served map[netip.Addr]struct{}) goal {
	wait := map[netip.Addr]error{}
	for _, ip := range pending {
		if _, known := served[ip]; !known {
			wait[ip] = errNotYet
		}
	}
	state, _ := usable(g.state, g.known, wait)
	serving, prepared := maps.Clone(g.serving), maps.Clone(g.prepared)
	for ip := range wait {
		prepared[ip] = serving[ip]
		delete(serving, ip)
	}
	desired := desire(state, g.known, m, serving)
	maps.DeleteFunc(desired.addresses, func(ip netip.Addr, _ struct{}) bool { return slices.Contains(pending, ip) })
	return goal{state: state, known: g.known, desired: desired, serving: serving, prepared: prepared}
}

func addressesOf(hosted []Hosted) []netip.Addr {
	ips := make([]netip.Addr, 0, len(hosted))
	for _, h := range hosted {
		ips = append(ips, h.IP)
	}
	return ips
}
