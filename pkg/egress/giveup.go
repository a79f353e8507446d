package egress

import "net/netip"

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
