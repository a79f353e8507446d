package online

import "maps"

// Alone returns the results of a controller's probes as they count, by host, and whether
// the controller is alone: of two or more other hosts that it lost, none answers. Then it
// is more likely that the controller lost the network than that all of them died. It
// cannot tell which of them live, and the agent on its own host, which lost the same
// network, is no second opinion: its ballot is void. Where one host alone is lost, that
// one may well be dead. A host whose Node is not Ready is in trouble for other reasons, and
// does not count as lost.
//
// Hosts that answer again and are not trusted yet do not end that. Their ballots are
// still void, so the ballot of the host that was cut off would be the only valid one.
// own is the host that the controller runs on, "" if it is not known.
func Alone(own string, probed map[string]ProbeState, nodes map[string]NodeState) (counting map[string]ProbeState, alone bool) {
	lost := 0
	for name, state := range probed {
		switch state {
		case ProbeSilent, ProbeCutOff, ProbeReturning, ProbeHeldDown:
			if name != own && nodes[name] == NodeReady {
				lost++
			}
		case ProbeAnswers, ProbeNotServing, ProbeNoAgent:
			if name != own {
				return probed, false
			}
		default:
			// Whether the host answers is not known.
		}
	}
	if lost < 2 {
		return probed, false
	}
	counting = maps.Clone(probed)
	for name, state := range counting {
		if state == ProbeSilent || state == ProbeCutOff || state == ProbeReturning {
			counting[name] = ProbeAlone
		}
	}
	return counting, true
}
