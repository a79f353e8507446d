package egress

import (
	"net/netip"
	"slices"
)

// NothingRequested reports whether no namespace requests egress IPs, so that an agent that
// is uninstalled may take everything off its node: nothing that is dropped because of a
// request would leave with the node's address then.
func NothingRequested(c Cluster) bool {
	return !slices.ContainsFunc(c.Groups, Group.Requesting)
}

// GiveUp returns the plan of a host that gives all its egress IPs up: packets of pods
// that leave there are dropped, rather than sent with another address.
func GiveUp(p Plan) Plan {
	p.Hosted, p.Standby = nil, nil
	pods := make([]PodPath, 0, len(p.Pods))
	for _, pod := range p.Pods {
		if pod.Kind == PathLocal {
			pod.Kind, pod.EgressIP = PathDrop, netip.Addr{}
		}
		pods = append(pods, pod)
	}
	p.Pods = pods
	return p
}
