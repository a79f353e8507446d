package egress

// NodeWord is what the cluster says of a host's Node.
type NodeWord int

// The words.
const (
	// NodeGone: there is no Node of that name.
	NodeGone NodeWord = iota
	// NodeReady: it says itself that it is Ready.
	NodeReady
	// NodeNotReady: it says itself that it is not.
	NodeNotReady
	// NodeUnreachable: it has stopped saying anything, and the control plane has
	// noticed, which takes about 40 seconds.
	NodeUnreachable
	// NodeUnheard: it has not said anything yet.
	NodeUnheard
)

// ProbeWord is what the controller's own probes say of a host.
type ProbeWord int

// The words.
const (
	// NotProbed: the controller does not probe the host.
	NotProbed ProbeWord = iota
	// ProbeUndecided: not known yet, as after a start.
	ProbeUndecided
	// ProbeNeverHeard: the host has never answered the controller, perhaps
	// because a firewall is in the way, so that its silence means nothing.
	ProbeNeverHeard
	// ProbeCutOff: the controller is probably cut off itself, so that what its
	// probes say of others means nothing.
	ProbeCutOff
	// ProbeReturning: the host answers again, not often enough as yet to be well.
	ProbeReturning
	// ProbeHeld: the host answers again, and its hold-down is not over.
	ProbeHeld
	// ProbeAnswers: the host's agent answers that its data plane works.
	ProbeAnswers
	// ProbeSilent: it does not answer.
	ProbeSilent
	// ProbeNotServing: it answers that its data plane does not work.
	ProbeNotServing
	// ProbeNoAgent: the host's kernel answers that no agent listens.
	ProbeNoAgent
)

// Evidence is all that is known about whether a host takes egress traffic.
type Evidence struct {
	Node  NodeWord
	Probe ProbeWord
	// Vote is what the agents that watch the host say.
	Vote Vote
	// Judged: there is an earlier verdict, Online and Reason.
	Judged bool
	Online bool
	Reason Reason
}

// Verdict is whether a host takes egress traffic, and why.
type Verdict struct {
	Online bool
	// Closed: the host keeps what it has and is given no more.
	Closed bool
	// Held: the host is offline for its hold-down alone. It may serve where no
	// other can: see LastResort.
	Held    bool
	Reason  Reason
	Message string
}

// Judge decides whether a host is online. A move that is made for nothing cuts
// connections, and one from a host that is alive and hears nothing of it leaves
// two owners of an address, so:
//
//   - probes alone make a host offline where the controller's and those of more
//     than half of the agents that watch it agree, and one agent at least does;
//   - a host that answers again after it was silent is offline until its hold-down
//     is over, so that traffic does not go to and fro between hosts; that agents
//     heard it before the controller did ends it no sooner;
//   - a host that answers is online though its Node has fallen silent: its
//     kubelet may be dead, or its way to the API server cut, but its data plane
//     works, and its agent might not hear that it shall give its addresses up;
//   - a host without an agent is left as it is for the same reason, and gets
//     nothing more;
//   - what a Node says of itself counts, as in OpenShift SDN.
//
// A controller that most hosts do not answer is probably cut off itself; what most
// agents say counts then nevertheless, as they told it by way of the API server.
//
// Where the controller does not know yet, has never heard the host or is cut off
// itself, a host that probes took offline stays so; and a controller that has
// just begun waits for its probes before it believes that a host is gone.
func Judge(e Evidence) Verdict {
	switch e.Node {
	case NodeGone:
		return Verdict{Reason: ReasonNodeGone, Message: "There is no Node of this name."}
	case NodeNotReady:
		return Verdict{Reason: ReasonNodeNotReady, Message: "The Node says that it is not Ready: see kubectl describe node."}
	case NodeUnheard:
		return Verdict{Reason: ReasonNodeNotReady, Message: "The Node has not said yet that it is Ready."}
	case NodeReady, NodeUnreachable:
	}
	switch e.Probe {
	case ProbeSilent, ProbeNotServing:
		if v, silent := judgeSilent(e); silent {
			return v
		}
	case ProbeCutOff:
		if v, silent := judgeSilent(e); silent {
			return v
		}
		if v, stays := judgeAsBefore(e); stays {
			return v
		}
	case ProbeUndecided, ProbeNeverHeard:
		if v, stays := judgeAsBefore(e); stays {
			return v
		}
	case ProbeReturning:
		if e.Judged && !e.Online && offlineByProbes(e.Reason) {
			return Verdict{Reason: ReasonHeldDown, Message: messageHeldDown}
		}
		if v, silent := judgeSilent(e); silent {
			return v
		}
	case ProbeHeld:
		if v, held := judgeHeld(e); held {
			return v
		}
		if e.Node == NodeUnreachable {
			return answersOnly()
		}
	case ProbeNoAgent:
		return Verdict{
			Online: true, Closed: true, Reason: ReasonNoAgent,
			Message: "The host lives and its agent does not: its egress IPs work on as the agent left them, and it gets no others. " +
				"See the pods of DaemonSet egressip-agent.",
		}
	case ProbeAnswers:
		if e.Node == NodeUnreachable {
			return answersOnly()
		}
	case NotProbed:
	}
	if e.Node == NodeUnreachable {
		return Verdict{Reason: ReasonNodeUnreachable, Message: "The Node has stopped posting its status: see kubectl describe node."}
	}
	unheard := e.Probe == ProbeSilent || e.Probe == ProbeNotServing || e.Probe == ProbeReturning
	return Verdict{Online: true, Closed: unheard, Reason: ReasonNodeReady, Message: "The Node is Ready."}
}

// Silent tells whether the host is found silent by probes, now: by most of the agents
// that watch it, and by the controller as far as it can tell.
func (e Evidence) Silent() bool {
	return (e.Probe == ProbeSilent || e.Probe == ProbeCutOff) && 2*e.Vote.Silent > e.Vote.Watchers
}

func answersOnly() Verdict {
	return Verdict{
		Online: true, Closed: true, Reason: ReasonAnswers,
		Message: "The Node has stopped posting its status, but its agent answers probes and its data plane works, " +
			"so it keeps its egress IPs: see kubectl describe node.",
	}
}

// judgeHeld is the verdict on a host that answers again; false where it is online
// already, as nobody else found it silent.
func judgeHeld(e Evidence) (Verdict, bool) {
	// Its agent might not hear of what it is given.
	closed := e.Node == NodeUnreachable
	if !e.Judged || e.Online {
		if e.Reason == ReasonLastResort {
			v := lastResort()
			v.Closed = closed
			return v, true
		}
		return Verdict{}, false
	}
	return Verdict{
		Held: true, Closed: closed, Reason: ReasonHeldDown,
		Message: messageHeldDown,
	}, true
}

const messageHeldDown = "The host answers again, and has to do so for a while before it is trusted. " +
	"It is used before only where no other host can serve."

// offlineByProbes tells whether probes had a part in it that a host is offline.
func offlineByProbes(r Reason) bool {
	return r == ReasonSilent || r == ReasonNotServing || r == ReasonHeldDown
}

func lastResort() Verdict {
	return Verdict{
		Online: true, Reason: ReasonLastResort,
		Message: "The host answers again, and is used before it is trusted, because no other host can serve.",
	}
}

// judgeSilent is the verdict on a host that the controller finds silent; false
// where the agents do not agree.
func judgeSilent(e Evidence) (Verdict, bool) {
	if 2*e.Vote.Silent <= e.Vote.Watchers {
		return Verdict{}, false
	}
	if e.Probe == ProbeNotServing {
		return Verdict{Reason: ReasonNotServing, Message: "The host's agent says that its data plane does not work: see condition AgentReady, and the agent's log."}, true
	}
	return Verdict{Reason: ReasonSilent, Message: "The host answers probes neither of the controller nor of most of the agents that watch it."}, true
}

// judgeAsBefore is the last verdict, where the probes had a part in it.
func judgeAsBefore(e Evidence) (Verdict, bool) {
	if !e.Judged {
		return Verdict{}, false
	}
	if offlineByProbes(e.Reason) {
		return Verdict{Reason: e.Reason, Message: "The host did not answer that its data plane works when the controller could last tell."}, true
	}
	if e.Probe != ProbeUndecided {
		return Verdict{}, false
	}
	if e.Reason == ReasonAnswers || e.Reason == ReasonNoAgent {
		return Verdict{Online: true, Closed: true, Reason: e.Reason, Message: "The host's data plane worked when the controller could last tell."}, true
	}
	// A new leader asks for a second before it believes that a host is gone
	// whose Node was Ready a moment ago.
	if e.Online && e.Node == NodeUnreachable {
		return Verdict{Online: true, Closed: true, Reason: e.Reason, Message: "The Node has stopped posting its status; the controller's probes will tell whether the host is gone."}, true
	}
	return Verdict{}, false
}
