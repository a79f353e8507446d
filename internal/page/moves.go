package page

import (
	"time"

	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// maxMoves is how many moves are remembered.
const maxMoves = 200

// Move is a change of the host by which an egress IP is in use.
type Move struct {
	// At is when this process saw it, in the form of RFC 3339.
	At   string `json:"at"`
	Kind string `json:"kind"`
	Name string `json:"name"`
	IP   string `json:"ip"`
	// From and To are hosts; empty if it was not, or is not any more, in use.
	From string `json:"from,omitempty"`
	To   string `json:"to,omitempty"`
	// Level and Reason are those of the group since.
	Level  Level  `json:"level"`
	Reason string `json:"reason"`
}

// moves are the differences between two Models in which egress IPs are in use, and by which host. Groups
// that have come or gone count as well.
func moves(before, now Model, at time.Time) (all []Move) {
	was := make(map[string]Group, len(before.Groups))
	for _, g := range before.Groups {
		was[g.ID] = g
	}
	add := func(g Group, ip, from, to string) {
		all = append(all, Move{
			At: at.UTC().Format(time.RFC3339), Kind: g.Kind, Name: g.Name, IP: ip, From: from, To: to, Level: g.Level, Reason: g.Reason,
		})
	}
	for _, g := range now.Groups {
		old := inUse(was[g.ID])
		for _, r := range g.Active() {
			if from, ok := old[r.IP]; !ok || from != r.Host {
				add(g, r.IP, from, r.Host)
			}
			delete(old, r.IP)
		}
		for _, r := range was[g.ID].Requests { // in order
			if from, ok := old[r.IP]; ok {
				add(g, r.IP, from, "")
			}
		}
		delete(was, g.ID)
	}
	for _, g := range before.Groups {
		if _, gone := was[g.ID]; !gone {
			continue
		}
		g.Level, g.Reason = LevelNone, string(egress.ReasonNotRequested)
		for _, r := range g.Active() {
			add(g, r.IP, r.Host, "")
		}
	}
	return all
}

// inUse are the hosts of the egress IPs in use.
func inUse(g Group) map[string]string {
	hosts := make(map[string]string)
	for _, r := range g.Active() {
		hosts[r.IP] = r.Host
	}
	return hosts
}
