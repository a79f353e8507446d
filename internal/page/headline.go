package page

import (
	"strings"

	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// headline says in one sentence what becomes of a group's traffic to the outside.
func headline(g Group) string {
	if len(g.Requests) == 0 {
		if g.Kind == kindEgressIP {
			return "It changes nothing for the pods that it selects."
		}
		return "Traffic leaves with the address of the pod's node."
	}
	var ways []string
	for _, r := range g.Active() {
		ways = append(ways, r.IP+" by "+r.Host)
	}
	drops := ""
	if g.Dropped {
		drops = "Traffic is dropped."
		if len(ways) > 0 {
			drops = " Traffic of the other family is dropped."
		}
	}
	if len(ways) == 0 {
		return strings.TrimSpace(drops)
	}
	way := joined(ways)
	switch g.Ready {
	case string(egress.ReadyTrue):
		return "Traffic leaves with " + way + "."
	case string(egress.ReadyUnknown):
		return "Traffic is sent out with " + way + "; it is not known whether it leaves as it should." + drops
	case string(egress.ReadyFalse):
		if g.Dropped || g.Reason == string(egress.ReasonOverlap) {
			return "Traffic leaves with " + way + "." + drops
		}
		return "Traffic is sent out with " + way + ", and does not leave as it should."
	}
	return "Traffic is sent out with " + way + "."
}

// joined lists ways in a sentence.
func joined(ways []string) string {
	if len(ways) == 1 {
		return ways[0]
	}
	return strings.Join(ways[:len(ways)-1], ", ") + " and " + ways[len(ways)-1]
}
