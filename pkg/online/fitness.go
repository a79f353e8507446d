package online

import "time"

const (
	// replaceAfter is how long a witness must be unfit before another one takes its
	// place: an agent that restarts, or a host that boots, does not move panels.
	replaceAfter = time.Minute
	// retryAfter is after how long a host that was unfit, and is not probed any more,
	// may be a witness again. Only probes show whether its agent works.
	retryAfter = 10 * time.Minute
)

// Fitness is whether a host can be a witness, remembered. The zero value is a host
// that nothing speaks against.
type Fitness struct {
	// unfit is since when the host cannot be a witness; zero if it can.
	unfit time.Time
	// probed: the host was probed then. Without probes it is not known whether it can be a
	// witness again.
	probed bool
}

// CanWitness reports whether a host can be a witness now: its agent has reported, its
// Node is Ready, and the controller's probes, if there are any, reach its agent.
func CanWitness(reported bool, node NodeState, probe ProbeState) bool {
	if !reported || node != NodeReady {
		return false
	}
	switch probe {
	case ProbeSilent, ProbeReturning, ProbeNotServing, ProbeNoAgent:
		return false
	default:
		return true
	}
}

// Next is the fitness after an observation: whether the host can be a witness, and
// whether that was probed.
func (f Fitness) Next(can, probed bool, now time.Time) Fitness {
	if can && (probed || !f.probed || now.Sub(f.unfit) >= retryAfter) {
		return Fitness{}
	}
	if f.unfit.IsZero() {
		f.unfit = now
	}
	f.probed = f.probed || probed
	return f
}

// Appointable reports whether the host may become the witness of another.
func (f Fitness) Appointable() bool { return f.unfit.IsZero() }

// Stays reports whether the host may remain the witness of another.
func (f Fitness) Stays(now time.Time) bool {
	return f.unfit.IsZero() || now.Sub(f.unfit) < replaceAfter
}
