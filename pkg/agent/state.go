package agent

import (
	"net/netip"
	"slices"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// stateOf converts what the brain planned into the state for the kernel. It is
// pure. A path without a way out, or one that contradicts another, becomes a drop: no
// mistake may send a packet with the node's address.
func stateOf(plan egress.Plan, strict bool) dataplane.State {
	s := dataplane.State{
		HostIP:  plan.HostIP,
		Hosts:   slices.Clone(plan.Hosts),
		Inside:  slices.Clone(plan.Inside),
		Subnets: slices.Clone(plan.Subnets),
		Strict:  strict,
	}
	if !slices.Contains(s.Hosts, plan.HostIP) {
		s.Hosts = append(s.Hosts, plan.HostIP)
		slices.SortFunc(s.Hosts, netip.Addr.Compare)
	}
	hosted := make(map[netip.Addr]bool, len(plan.Hosted))
	for _, h := range plan.Hosted {
		s.Hosted = append(s.Hosted, hostedState(h))
		hosted[h.IP] = true
	}
	for _, h := range plan.Standby {
		if !hosted[h.IP] {
			s.Standby = append(s.Standby, hostedState(h))
		}
	}
	for _, p := range plan.Pods {
		pod := podState(p, hosted)
		if last := len(s.Pods) - 1; last >= 0 && s.Pods[last].IP == pod.IP {
			if !equalPods(s.Pods[last], pod) {
				s.Pods[last] = dataplane.Pod{IP: pod.IP, Kind: dataplane.Drop}
			}
			continue
		}
		s.Pods = append(s.Pods, pod)
	}
	return s
}

func hostedState(h egress.HostedIP) dataplane.Hosted {
	return dataplane.Hosted{IP: h.IP, NetID: h.NetID, Interface: h.Interface, Gateway: h.Gateway}
}

// podState converts one path.
func podState(p egress.PodPath, hosted map[netip.Addr]bool) dataplane.Pod {
	pod := pathState(p, hosted)
	if pod.Kind != dataplane.Node {
		pod.Excluded = slices.Clone(p.Excluded)
	}
	return pod
}

func pathState(p egress.PodPath, hosted map[netip.Addr]bool) dataplane.Pod {
	switch {
	case p.Kind == egress.PathNode:
		return dataplane.Pod{IP: p.IP, Kind: dataplane.Node}
	case p.Kind == egress.PathLocal && hosted[p.EgressIP]:
		return dataplane.Pod{IP: p.IP, Kind: dataplane.Local, NetID: p.NetID, EgressIP: p.EgressIP}
	case p.Kind == egress.PathRemote && len(p.Via) > 0:
		via := p.Via[:min(len(p.Via), dataplane.MaxVia)]
		sources := p.Sources[:min(len(p.Sources), len(via))]
		return dataplane.Pod{IP: p.IP, Kind: dataplane.Remote, NetID: p.NetID, Via: slices.Clone(via), Sources: slices.Clone(sources)}
	case p.Kind == egress.PathRefuse:
		return dataplane.Pod{IP: p.IP, Kind: dataplane.Refuse}
	default:
		return dataplane.Pod{IP: p.IP, Kind: dataplane.Drop}
	}
}

func equalPods(a, b dataplane.Pod) bool {
	return a.IP == b.IP && a.Kind == b.Kind && a.NetID == b.NetID && a.EgressIP == b.EgressIP && slices.Equal(a.Via, b.Via) &&
		slices.Equal(a.Sources, b.Sources) && slices.Equal(a.Excluded, b.Excluded)
}
