package online

import "slices"

// NodeState is what the cluster knows about a host's Node.
type NodeState int

// The states of a Node.
const (
	// NodeGone: there is no Node of that name.
	NodeGone NodeState = iota
	// NodeReady: the Node reports Ready.
	NodeReady
	// NodeNotReady: the Node reports that it is not Ready.
	NodeNotReady
	// NodeUnreachable: the Node has stopped reporting, and the control plane has
	// noticed, which takes about 40 seconds.
	NodeUnreachable
	// NodeNotReported: the Node has not reported anything yet.
	NodeNotReported
)

// ProbeState is the result of the controller's own probes of a host.
type ProbeState int

// The states of a probed host.
const (
	// NotProbed: the controller does not probe the host.
	NotProbed ProbeState = iota
	// ProbeUndecided: there is no result yet, as after a start.
	ProbeUndecided
	// ProbeNeverAnswered: the host has never answered the controller. A firewall
	// may be in the way, so its silence means nothing.
	ProbeNeverAnswered
	// ProbeCutOff: the controller is probably cut off itself, so its probes mean
	// nothing.
	ProbeCutOff
	// ProbeReturning: the host answers again, but not often enough yet.
	ProbeReturning
	// ProbeHeldDown: the host answers again, and its hold-down is not over.
	ProbeHeldDown
	// ProbeAnswers: the host's agent answers that its data plane works.
	ProbeAnswers
	// ProbeSilent: the host does not answer.
	ProbeSilent
	// ProbeNotServing: the agent answers that its data plane does not work.
	ProbeNotServing
	// ProbeNoAgent: the host's kernel answers that no agent listens.
	ProbeNoAgent
	// ProbeAlone: the host does not answer, and neither does any other host but the
	// controller's own; see Alone.
	ProbeAlone
)

// Probed is the result of a controller's probes of one host.
type Probed struct {
	State ProbeState
	// Missed: the last probe had no answer of any kind. That alone is no evidence about
	// the host, but about what the controller hears at this moment; see Alone.
	Missed bool
}

// Evidence is everything that is known about whether a host can take egress
// traffic.
type Evidence struct {
	Node  NodeState
	Probe ProbeState
	// Vote counts what the witnesses of the host report.
	Vote Vote
	// Judged reports whether there is an earlier verdict, WasOnline and WasReason.
	Judged    bool
	WasOnline bool
	WasReason Reason
}

// Silent reports whether probes find the host silent now: those of most agents that
// watch it, and those of the controller as far as it can tell.
func (e Evidence) Silent() bool {
	return e.probed(ProbeSilent, ProbeCutOff, ProbeAlone) && e.Vote.majority()
}

// nodeDown reports whether the Node is known and not Ready, by its own word or by its
// silence.
func (e Evidence) nodeDown() bool { return e.Node == NodeUnreachable || e.Node == NodeNotReady }

// probed reports whether the controller's probes have one of these results.
func (e Evidence) probed(states ...ProbeState) bool {
	return slices.Contains(states, e.Probe)
}

// wasOfflineByProbes reports whether the earlier verdict was offline because of
// probes.
func (e Evidence) wasOfflineByProbes() bool {
	switch e.WasReason {
	case ReasonSilent, ReasonNotServing, ReasonHeldDown:
		return e.Judged
	default:
		return false
	}
}
