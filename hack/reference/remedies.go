package main

// nothing is the remedy of what is in order.
const nothing = "nothing"

// remedies say what to do about the reasons of conditions EgressReady and of single egress IPs.
func remedies() map[string]string {
	const (
		waits    = "nothing, unless it stays for more than a moment: the log of the host's agent"
		one      = "remove all but one: the message names the objects"
		another  = "choose another address, or another host: the message says why"
		mistakes = "correct it: the message names the value"
	)
	return map[string]string{
		"Assigned":           nothing,
		"NotRequested":       "nothing; or add the address to `egressIPs` of a NetNamespace or EgressIP",
		"NotClaimed":         "add the address to `egressIPs` of a HostSubnet, or a range that contains it to `egressCIDRs` of some; for an EgressIP, label a Node `k8s.ovn.org/egress-assignable`",
		"NoEligibleHost":     "add a host, or capacity: the message says what each lacks",
		"NodeGone":           "claim the address on one host only",
		"HostOffline":        "[A host is offline](../troubleshooting.md#a-host-is-offline); or claim the address on another host",
		"MultipleNamespaces": one,
		"MultipleHosts":      one,
		"SameHost":           "claim one of them on another host",
		"DuplicateNetID":     "give each its own `netid`, or keep `egressIPs` in one of them only",
		"HostAddress":        another,
		"PodAddress":         another,
		"ServiceAddress":     another,
		"APIServerAddress":   another,
		"OutsideNetwork":     another + "; `kubectl egressip explain ip/ADDRESS` shows which hosts could have it",
		"BadAddress":         mistakes,
		"BadNetID":           mistakes,
		"NoNetID":            "create the Namespace: the controller fills in `netid`",
		"BadSelector":        mistakes,
		"Overlap":            "change a selector, or remove one of both objects: the message names a pod and the other object",
		"BadCIDR":            mistakes,
		"FamilyNotServed":    "`status.agent.ipv6Reason` of the HostSubnet says why; or use another host",
		"BadMode":            mistakes,
		"BadOtherFamily":     mistakes,
		"BadGateways":        mistakes,
		"BadFailBack":        mistakes,
		"BadDestinations":    mistakes,
		"Kept":               "nothing; to go back to this one, remove annotation `egressip.network.openshift.io/fail-back`",
		"BadHost":            "correct `hostIP`: the message says how",
		"OutsideRange":       "nothing: the controller releases the claim",
		"Capacity":           "claim it on another host",
		"Rebalanced":         nothing,
		"AddressInUse":       "[Another machine has an egress IP](../troubleshooting.md#another-machine-has-an-egress-ip)",
		"Evacuated":          "nothing; `kubectl egressip restore HOST` ends the evacuation",
		"TooMany":            "remove some from `egressIPs`: a balanced namespace uses 8 at most",
		"HostSilent":         "[A host is offline](../troubleshooting.md#a-host-is-offline), reason `Silent`",
		"AgentUnknown":       "check that a pod of DaemonSet egressip-agent runs there, and the Node's InternalIP",
		"AgentGone":          "the pods of DaemonSet egressip-agent; traffic goes on as the agent left it",
		"NotReported":        waits,
		"NotConfigured":      "`kubectl describe hostsubnet HOST`: the message is the kernel's error",
		"PodNetworksMissing": "`kubectl egressip networks` says what is missing; add the network to `clusterCIDRs`",
		"HostsOutOfReach":    "give the namespace an egress IP on a node of the other family, too",
		"Dropped":            "the reasons of the single egress IPs: `kubectl egressip explain`",
	}
}

// poolRemedies are those of EgressIPRequests and EgressIPPools.
func poolRemedies() map[string]string {
	return map[string]string{
		"Given":      nothing,
		"OutOfPool":  "the message says why it gets no other; delete the request to free the address",
		"NoPool":     "correct `spec.pool`, or have an administrator make the pool",
		"BadPool":    "an administrator corrects the pool: its condition `Ready` says what",
		"BadRequest": "correct the request: the message says what",
		"NotAllowed": "ask for another pool, or have the namespace labelled as the pool's `namespaceSelector` asks",
		"Quota":      "delete a request of the namespace, or have `perNamespace` of the pool raised; addresses that are kept for requests that are gone count",
		"Exhausted":  "have addresses added to the pool; `kubectl get eippool` shows how many are given and kept",
		"NameTaken":  "give the request another name, or remove the EgressIP that the message names",
	}
}

// onlineRemedies are those of condition Online.
func onlineRemedies() map[string]string {
	const node = "`kubectl describe node HOST`"
	return map[string]string{
		"NodeReady":       nothing,
		"NodeGone":        "nothing if the Node comes back; otherwise claim its egress IPs on another host",
		"NodeNotReady":    node,
		"NodeUnreachable": node,
		"Silent":          "if the host is alive, open the overlay's port, UDP 9789, from all nodes to it",
		"HeldDown":        "wait: seconds, or up to a minute if the host keeps failing",
		"LastResort":      "nothing; another host would be good",
		"NotServing":      "condition `AgentReady`, and the agent's log",
		"Answers":         "the kubelet of the node: " + node,
		"NoAgent":         "the pods of DaemonSet egressip-agent: egress IPs go on, and the host gets no new ones",
		"ControllerAlone": "the network of the node that the controller runs on; UDP port 9789 between nodes",
	}
}

// agentRemedies are those of conditions AgentReady, Warnings and AddressInUse, as agents write them.
func agentRemedies() map[string]string {
	return map[string]string{
		"Ready":             nothing,
		"ReadyWithWarnings": "condition `Warnings`",
		"Withdrawn":         "check the node's network; the egress IPs come back when the API server answers",
		"ApplyFailed":       "[The agent is not ready](../troubleshooting.md#the-agent-is-not-ready)",
		"NoWarnings":        nothing,
		"NotInUse":          nothing,
		"NotConfigured":     "the message is the kernel's error",
	}
}
