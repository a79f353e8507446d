package online

// Reason says for programs why a host is online or offline. It is the reason of
// condition Online.
type Reason string

// The reasons.
const (
	// ReasonNodeReady: the Node reports Ready.
	ReasonNodeReady Reason = "NodeReady"
	// ReasonNodeGone: the Node does not exist.
	ReasonNodeGone Reason = "NodeGone"
	// ReasonNodeNotReady: the Node reports that it is not Ready, or nothing yet.
	ReasonNodeNotReady Reason = "NodeNotReady"
	// ReasonNodeUnreachable: the Node has stopped posting its status.
	ReasonNodeUnreachable Reason = "NodeUnreachable"
	// ReasonSilent: the host answers neither the controller nor most of the agents
	// that watch it.
	ReasonSilent Reason = "Silent"
	// ReasonHeldDown: the host answers again, and its hold-down is not over.
	ReasonHeldDown Reason = "HeldDown"
	// ReasonLastResort: the host serves before its hold-down is over, because no
	// other host can.
	ReasonLastResort Reason = "LastResort"
	// ReasonNotServing: the host's agent reports that its data plane does not work.
	ReasonNotServing Reason = "NotServing"
	// ReasonAnswers: the host answers probes, although its Node has stopped posting
	// its status.
	ReasonAnswers Reason = "Answers"
	// ReasonNoAgent: the host runs, and its agent does not.
	ReasonNoAgent Reason = "NoAgent"
	// ReasonControllerAlone: the controller gets no answer from the host, nor from any
	// other but its own. The Node is Ready.
	ReasonControllerAlone Reason = "ControllerAlone"
)

// Verdict is whether a host takes egress traffic, and why. The zero value is an
// offline host.
type Verdict struct {
	Online bool
	// Doubtful: the host is offline, by probes alone. Its Node still reports that it is
	// Ready, so the probes may be at fault, as if a firewall had begun to drop them.
	// Other hosts are used instead where there are any. Where there are none, traffic
	// keeps going to this one: if the host is dead, that traffic is lost either way.
	Doubtful bool
	// Unseen: the host takes egress traffic, and the controller cannot see whether its
	// data plane works.
	Unseen bool
	// Closed: the host keeps the egress IPs that it has and is given no more.
	Closed bool
	// HeldDown: the host is offline only because its hold-down is not over. It may
	// serve where no other host can; see LastResort.
	HeldDown bool
	Reason   Reason
	Message  string
}

// Online reports whether a host took egress traffic after a verdict that was published
// with the reason, as true or not.
func (r Reason) Online(published bool) bool { return published || r == ReasonControllerAlone }

// LastResort is the verdict on a host that serves before its hold-down is over.
func LastResort(closed bool) Verdict {
	return Verdict{
		Online: true, Closed: closed, Reason: ReasonLastResort,
		Message: "The host answers probes again. It serves before its hold-down is over, because no other host can.",
	}
}
