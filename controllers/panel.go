package controllers

import (
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
	"github.com/egressip-operator/egressip-operator/pkg/online"
)

// candidate is what is known about a host as a witness of others.
type candidate struct {
	// zone is the Node's label.
	zone string
	// can: it can be a witness at this moment. probed: probes have a part in that.
	can, probed bool
	// witness: it is one, as published.
	witness bool
}

// readCandidates reads what decides which hosts are witnesses.
func (v *view) readCandidates(nodes map[string]*corev1.Node) {
	v.candidates = make(map[string]candidate, len(v.hosts))
	for _, h := range v.hosts {
		probe, node := v.probed[h.Name], nodes[h.Name]
		c := v.candidates[h.Name]
		c.can = online.CanWitness(h.Status.Agent != nil, nodeState(node), probe)
		c.probed = probe != online.NotProbed
		if node != nil {
			c.zone = node.Labels[corev1.LabelTopologyZone]
		}
		v.candidates[h.Name] = c
		for _, name := range h.Status.Witnesses {
			w := v.candidates[name]
			w.witness = true
			v.candidates[name] = w
		}
	}
}

// readProbes reads the results of probes. self is the controller's own address.
func (v *view) readProbes(probed probeStates, nodes map[string]*corev1.Node, self netip.Addr) {
	own, states := "", make(map[string]online.NodeState, len(probed))
	written := self.String()
	for _, h := range v.hosts {
		if probed[h.Name].State != online.NotProbed {
			states[h.Name] = nodeState(nodes[h.Name])
		}
		if self.IsValid() && hasAddress(h, written) {
			own = h.Name
		}
	}
	v.probed, v.void = online.Alone(own, probed, states)
}

// countVotes counts what the witnesses of each host report. The report of a witness is
// void if its host does not answer probes or, where that is not known, if its Node is
// not Ready; and if a controller that is alone cannot rely on it.
func (v *view) countVotes(nodes map[string]*corev1.Node) {
	if len(v.probed) == 0 {
		return // no verdict depends on votes then
	}
	ballots := make(map[string]online.Ballot)
	v.votes = make(map[string]online.Vote)
	for _, h := range v.hosts {
		for _, name := range h.Status.Witnesses {
			if _, known := ballots[name]; known {
				continue
			}
			if w := v.host(name); w != nil && w.Status.Agent != nil {
				probed := v.probed[name]
				ballots[name] = online.Ballot{
					Silent: w.Status.Agent.Silent,
					Void: v.void[name] ||
						probed != online.ProbeAnswers && (probed != online.NotProbed || nodeState(nodes[name]) != online.NodeReady),
				}
			}
		}
		v.votes[h.Name] = online.Count(h.Name, h.Status.Witnesses, ballots)
	}
}

// panels remembers which hosts can be witnesses, and what followed from that. It belongs
// to one reconciler.
type panels struct {
	fitness map[string]online.Fitness
	// picked are the panels by host, picked of witnesses. Most passes change neither.
	witnesses []egress.Witness
	picked    map[egress.Witness][]string
}

// pick picks the witnesses of the hosts, by name.
func (p *panels) pick(v view, hosts []egress.Peer, now time.Time) map[string][]string {
	if witnesses := p.electorate(v, now); p.picked == nil || !slices.Equal(witnesses, p.witnesses) {
		p.witnesses, p.picked = witnesses, make(map[egress.Witness][]string)
	}
	watched := make([]egress.Witness, 0, len(hosts))
	var missing []egress.Witness
	for _, h := range hosts {
		host := egress.Witness{Name: h.Name, Zone: v.candidates[h.Name].zone, Family: egress.HostFamily(h.IP)}
		watched = append(watched, host)
		if _, known := p.picked[host]; !known {
			missing = append(missing, host)
		}
	}
	if len(missing) > 0 {
		panels := egress.Panels(missing, p.witnesses)
		for _, host := range missing {
			p.picked[host] = panels[host.Name]
		}
	}
	result := make(map[string][]string, len(watched))
	for _, host := range watched {
		result[host.Name] = p.picked[host]
	}
	return result
}

// electorate is which hosts can be witnesses, in order of name.
func (p *panels) electorate(v view, now time.Time) []egress.Witness {
	fitness := make(map[string]online.Fitness, len(v.hosts))
	var witnesses []egress.Witness
	for _, h := range v.hosts {
		c := v.candidates[h.Name]
		f := p.fitness[h.Name].Next(c.can, c.probed, now)
		fitness[h.Name] = f
		if f.Appointable() || c.witness && f.Stays(now) {
			witnesses = append(witnesses, egress.Witness{Name: h.Name, Zone: c.zone, Family: familyOf(h)})
		}
	}
	p.fitness = fitness
	return witnesses
}

// familyOf is the family of a host's address.
func familyOf(h *v1.HostSubnet) egress.Family {
	ip, _ := netip.ParseAddr(h.HostIP) // what is none is not valid
	return egress.HostFamily(ip)
}

// sameWitnesses reports whether the same hosts are published as witnesses.
func sameWitnesses(before, after *v1.HostSubnet) bool {
	return slices.Equal(before.Status.Witnesses, after.Status.Witnesses)
}
