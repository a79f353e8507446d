package online

// policy decides about a host, or leaves the decision to the next policy.
type policy func(Evidence) (v Verdict, decided bool)

// Judge decides whether a host is online. A needless move cuts connections, and a
// move away from a host that is alive but does not learn of it leaves an address
// with two owners. So, in this order, the first policy that applies decides.
func Judge(e Evidence) Verdict {
	for _, decide := range [...]policy{
		// What a Node never reported counts, as in OpenShift SDN.
		nodeGone,
		nodeNotReported,
		// Probes that find the host silent.
		returningTooEarly,
		silentToMost,
		// Probes without a result: the last verdict that probes had a part in stands.
		staysOffline,
		staysOnline,
		// The host answers again.
		staysLastResort,
		heldDown,
		// Some part of the host answers.
		agentGone,
		answersProbes,
		// Probes decide nothing.
		nodeNotReady,
		nodeUnreachable,
		controllerAlone,
	} {
		if v, decided := decide(e); decided {
			return v
		}
	}
	return nodeReady(e)
}

func nodeGone(e Evidence) (Verdict, bool) {
	return Verdict{Reason: ReasonNodeGone, Message: "There is no Node with this name."}, e.Node == NodeGone
}

func nodeNotReported(e Evidence) (Verdict, bool) {
	return Verdict{Reason: ReasonNodeNotReady, Message: "The Node has not reported yet that it is Ready."}, e.Node == NodeNotReported
}

const messageHeldDown = "The host answers probes again, and must do so until its hold-down is over. " +
	"Until then it serves only namespaces that no other host can serve."

// returningTooEarly keeps a host offline that has begun to answer the controller.
// Its witnesses may have heard it earlier; that does not end the
// hold-down. It may be in doubt as before: that it begins to answer must not take away
// what its silence did not.
func returningTooEarly(e Evidence) (Verdict, bool) {
	return Verdict{Doubtful: e.Node == NodeReady, Reason: ReasonHeldDown, Message: messageHeldDown},
		e.probed(ProbeReturning) && !e.WasOnline && e.wasOfflineByProbes()
}

// silentToMost takes a host offline on which the controller and most agents agree.
// A controller that is probably cut off itself still has the votes, which came by
// way of the API server.
func silentToMost(e Evidence) (Verdict, bool) {
	if !e.Vote.majority() || !e.probed(ProbeSilent, ProbeNotServing, ProbeCutOff, ProbeReturning, ProbeAlone) {
		return Verdict{}, false
	}
	if e.Probe == ProbeNotServing {
		return Verdict{
			Reason:  ReasonNotServing,
			Message: "The host's agent reports that its data plane does not work: see condition AgentReady and the agent's log.",
		}, true
	}
	v := Verdict{
		Doubtful: e.Node == NodeReady, Reason: ReasonSilent,
		Message: "The host answers neither the controller's probes nor those of most of its witnesses: check the host and its network.",
	}
	if v.Doubtful {
		v.Message += messageDoubtful
	}
	return v, true
}

const messageDoubtful = " Its Node still reports Ready, so a firewall may drop the probes: allow UDP from all nodes to the overlay's port of the host. " +
	"Namespaces use other hosts; those that have none keep using this one."

// staysOffline keeps a host offline that probes took offline, until there is a new
// result.
func staysOffline(e Evidence) (Verdict, bool) {
	v := Verdict{
		Doubtful: e.WasReason != ReasonNotServing && e.Node == NodeReady, Reason: e.WasReason,
		Message: "The host did not answer that its data plane works when the controller's probes last had a result.",
	}
	if e.WasReason == ReasonSilent && v.Doubtful {
		v.Message += messageDoubtful
	}
	return v, e.probed(ProbeCutOff, ProbeAlone, ProbeUndecided, ProbeNeverAnswered) && e.wasOfflineByProbes()
}

// staysOnline makes a new leader wait a second for its probes before it believes
// that a host is gone.
func staysOnline(e Evidence) (Verdict, bool) {
	v := Verdict{Online: true, Unseen: e.WasReason == ReasonControllerAlone, Closed: true, Reason: e.WasReason}
	if !e.Judged || !e.probed(ProbeUndecided) {
		return Verdict{}, false
	}
	switch {
	case e.WasReason == ReasonAnswers, e.WasReason == ReasonNoAgent:
		v.Message = "The host's data plane worked when the controller's probes last had a result."
		return v, true
	case e.WasOnline && e.nodeDown():
		v.Message = "The Node is not Ready. The controller's probes have no result yet."
		return v, true
	default:
		return Verdict{}, false
	}
}

// staysLastResort leaves a host in use that serves before its hold-down is over.
func staysLastResort(e Evidence) (Verdict, bool) {
	return LastResort(e.nodeDown()),
		e.probed(ProbeHeldDown) && (!e.Judged || e.WasOnline) && e.WasReason == ReasonLastResort
}

// heldDown keeps a host offline until its hold-down is over, so that traffic does
// not go back and forth between hosts. A host that was online has none to wait for:
// only this controller found it silent.
func heldDown(e Evidence) (Verdict, bool) {
	return Verdict{HeldDown: true, Closed: e.nodeDown(), Reason: ReasonHeldDown, Message: messageHeldDown},
		e.probed(ProbeHeldDown) && e.Judged && !e.WasOnline
}

// agentGone keeps a host online while its kernel answers. Without an agent, the host would
// not learn that it must release its addresses.
func agentGone(e Evidence) (Verdict, bool) {
	return Verdict{
		Online: true, Closed: true, Reason: ReasonNoAgent,
		Message: "The host runs and its agent does not: its egress IPs keep working as the agent left them, and it gets no others. " +
			"See the pods of DaemonSet egressip-agent.",
	}, e.probed(ProbeNoAgent) && e.Node != NodeNotReady
}

// answersProbes keeps a host online although its Node is silent or not Ready: its
// kubelet may be dead or restarting, or its path to the API server cut, but its data
// plane works. If the Node is silent, its agent might not even learn that it must
// release its addresses.
func answersProbes(e Evidence) (Verdict, bool) {
	v := Verdict{
		Online: true, Closed: true, Reason: ReasonAnswers,
		Message: "The Node has stopped posting its status, but its agent answers probes and its data plane works, " +
			"so it keeps its egress IPs: see kubectl describe node.",
	}
	if e.Node == NodeNotReady {
		v.Message = "The Node reports that it is not Ready, but its agent answers probes and its data plane works, " +
			"so it keeps its egress IPs: see kubectl describe node."
	}
	return v, e.nodeDown() && e.probed(ProbeAnswers, ProbeHeldDown)
}

func nodeNotReady(e Evidence) (Verdict, bool) {
	return Verdict{
		Reason:  ReasonNodeNotReady,
		Message: "The Node reports that it is not Ready: see kubectl describe node.",
	}, e.Node == NodeNotReady
}

func nodeUnreachable(e Evidence) (Verdict, bool) {
	return Verdict{
		Reason:  ReasonNodeUnreachable,
		Message: "The Node has stopped posting its status: see kubectl describe node.",
	}, e.Node == NodeUnreachable
}

// controllerAlone keeps a host in use if only the controller does not hear it, and the
// controller does not hear any other host either.
func controllerAlone(e Evidence) (Verdict, bool) {
	return Verdict{
		Online: true, Unseen: true, Closed: true, Reason: ReasonControllerAlone,
		Message: "The Node is Ready, and the host serves as before. No host answers the probes of the controller but its own, " +
			"so the controller's node may be cut off, or firewalls drop the probes: allow UDP from all nodes to the overlay's port of the host.",
	}, e.probed(ProbeAlone)
}

// nodeReady is the verdict where nothing speaks against the host. One that does not
// answer the controller gets no more egress IPs.
func nodeReady(e Evidence) Verdict {
	return Verdict{
		Online: true, Closed: e.probed(ProbeSilent, ProbeNotServing, ProbeReturning),
		Reason: ReasonNodeReady, Message: "The Node is Ready.",
	}
}
