package online

// Alone returns the results of a controller's probes as they count, by host, and whether
// the controller is alone: of two or more other hosts that it lost, none answers. Then it
// is more likely that the controller lost the network than that all of them died. It
// cannot tell which of them live, and the agent on its own host, which lost the same
// network, is no second opinion. Where one host alone is lost, that one may well be dead. A
// host whose Node is not Ready is in trouble for other reasons, and does not count as lost.
//
// Hosts that fell silent at one moment are found one after the other. So one that is
// silent does not count as such before another host has answered since: one whose last
// probe was missed is lost as well, until it answers again. What was known of it, that it
// serves, or that its agent is gone, holds meanwhile.
//
// Hosts that answer again and are not trusted yet do not end that. Their ballots are
// still void, so the ballot of the host that was cut off would be the only valid one.
//
// void holds the hosts whose ballots are void because of that: the controller's own one,
// and those that missed a probe. It is nil where the controller is not alone. own is the
// host that the controller runs on, "" if it is not known.
func Alone(own string, probed map[string]Probed, nodes map[string]NodeState) (counting map[string]ProbeState, void map[string]bool) {
	alone := isAlone(own, probed, nodes)
	if alone {
		void = map[string]bool{own: true}
	}
	counting = make(map[string]ProbeState, len(probed))
	for name, result := range probed {
		counting[name] = result.State
		if !alone {
			continue
		}
		if result.Missed {
			void[name] = true
		}
		switch result.State {
		case ProbeSilent, ProbeCutOff, ProbeReturning:
			counting[name] = ProbeAlone
		default:
		}
	}
	return counting, void
}

// isAlone reports whether a controller is alone, see Alone.
func isAlone(own string, probed map[string]Probed, nodes map[string]NodeState) bool {
	lost, silent := 0, 0
	for name, result := range probed {
		if name == own {
			continue
		}
		ready := nodes[name] == NodeReady
		switch result.State {
		case ProbeAnswers, ProbeNotServing, ProbeNoAgent:
			if !result.Missed {
				return false
			}
			if ready {
				lost++
			}
		case ProbeSilent, ProbeCutOff, ProbeReturning, ProbeHeldDown:
			if ready {
				lost++
				silent++
			}
		default:
			// Whether the host answers is not known.
		}
	}
	return lost >= 2 && silent > 0
}
