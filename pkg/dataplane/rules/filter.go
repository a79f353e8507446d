package rules

import "slices"

// filter is the stage that decides whether a packet passes at all.
func (b builder) filter() Ruleset {
	return Ruleset{
		Chains: map[string][]Rule{
			ChainLocked: b.locked(),
			ChainHeld:   b.held(),
			ChainReset:  b.reset(),
			ChainInput:  b.input(),
			ChainOutput: b.output(),
			ChainAccept: {
				when(b.fromOverlay).then(Accept{}),
				when(b.toOverlay).then(Accept{}),
			},
		},
		Jumps: []HookJump{
			{From: Forward, To: ChainReset},
			{From: Forward, To: ChainLocked},
			{From: Input, To: ChainInput},
			{From: Output, To: ChainOutput},
			// For hosts whose FORWARD policy is DROP. A network policy that
			// drops a packet comes before.
			{From: Forward, To: ChainAccept, Last: true},
		},
	}
}

// locked drops packets that must not leave unmarked, and are unmarked.
func (b builder) locked() []Rule {
	ret, marking := b.Marks.Return(), Jump{ChainMarking}
	notToOverlay := b.toOverlay
	notToOverlay.Not = true
	rules := []Rule{
		// No connection to a pod begins over the overlay. A packet of the other end
		// would begin one where the pod's own was forgotten: then the pod's packets
		// would be replies, whose source no NAT touches.
		when(b.fromOverlay, Original, inSet(SetInside, Destination)).then(Drop{}),
		// Answers to what came over the overlay must go back over it: anywhere else
		// they look like a new connection. Table mangle marks such connections and
		// routes their answers, unless it has been flushed.
		when(b.fromOverlay, Original, ConnMark{Value: ret, Mask: ret, Not: true}).then(Drop{}),
		when(notToOverlay, Reply, ConnMark{Value: ret, Mask: ret}).then(Drop{}),
	}
	rules = append(rules, b.neighbours()...)
	if b.Maps {
		// FORWARD has seen these marks, too: it is in the same table. It has made them equal
		// to their connections'.
		differ := MarksDiffer{b.wayBits()}
		rules = append(rules,
			when(b.fromOverlay, differ).then(marking),
			when(b.toOverlay, differ).then(marking),
			b.plainAgain())
	}
	rules = append(rules, when(inSet(SetLocked, Source)).then(Goto{ChainHeld}))
	rules = append(rules, b.refused()...)
	for _, subnet := range b.Strict {
		for _, state := range outbound() {
			rules = append(rules, when(SourceIn{subnet}, b.unmarked(), state, notInSet(SetPods, Source), AgentPresent{Set: SetPresent}, notInSet(SetInside, Destination)).then(Drop{}))
		}
	}
	return rules
}

// held is about what sources that are locked send.
func (b builder) held() (rules []Rule) {
	if b.Senders {
		rules = append(rules, when(heir()...).then(Return{}))
	}
	rules = append(rules, when(inSet(SetInside, Destination)).then(Return{}))
	if b.Maps {
		rules = append(rules, when(MarksDiffer{b.wayBits()}).then(Jump{ChainMarking}))
	}
	rules = append(rules, b.excludedThen(Return{})...)
	rules = append(rules, b.refused()...)
	for _, state := range outbound() {
		for _, r := range b.refusal() {
			rules = append(rules, when(append(slices.Clone(r.Matches), b.unmarked(), state)...).then(r.Action))
		}
	}
	return rules
}

// refused answers packets of IPv6 that have all bits of a way in their marks: those of pods
// that have none.
func (b builder) refused() (rules []Rule) {
	if !b.six {
		return nil
	}
	all := Mark{Value: b.wayBits(), Mask: b.wayBits()}
	for _, state := range outbound() {
		for _, r := range b.refusal() {
			rules = append(rules, when(append(slices.Clone(r.Matches), all, state, notInSet(SetInside, Destination))...).then(r.Action))
		}
	}
	return rules
}

// output is the lock on pods' packets that leave as if the host had sent them, as IPVS
// has them do, and transparent proxies.
func (b builder) output() []Rule {
	var rules []Rule
	for _, port := range b.hostPorts() {
		rules = append(rules, when(port, inSet(SetHosts, Destination), inSet(SetPods, Source)).then(Drop{}))
	}
	rules = append(rules, b.excludedThen(Return{})...)
	// A service's endpoint outside: the pod's egress IP is out of reach from here.
	for _, state := range outbound() {
		rules = append(rules, when(state, inSet(SetLocked, Source), notInSet(SetInside, Destination)).then(Drop{}))
	}
	return rules
}

// input keeps others off the overlay and off the egress IPs.
func (b builder) input() []Rule {
	// The overlay carries nothing for the host itself but answers to its probes.
	var rules []Rule
	if b.ProbePort != 0 && b.betweenHosts() {
		rules = append(rules, when(b.fromOverlay, Reply).then(Return{}))
	}
	rules = append(rules, when(b.fromOverlay).then(Drop{}))
	rules = append(rules, b.neighbours()...)
	if b.betweenHosts() {
		// Translated, as by a service: a pod sent it to another port or address.
		rules = append(rules, when(UDPPort(b.OverlayPort), Original).then(Drop{}))
	}
	for _, port := range b.hostPorts() {
		rules = append(
			rules,
			when(port, notInSet(SetHosts, Source)).then(Drop{}),
			// Hosts send to the host's address alone. What a pod sends to another one, a
			// CNI may give its node's address as source.
			when(port, notInSet(SetHosts, Destination)).then(Drop{}),
		)
	}
	// The host offers no services on egress IPs, and sends no RST for a segment of
	// a connection that is about to move here.
	return append(rules, when(inSet(SetIPs, Destination), ConnState{Invalid, New, Untracked}).then(Drop{}))
}

// reset answers a pod that goes on with a connection that was forgotten here. A
// new connection between the same ports begins with a SYN, which does not match.
func (b builder) reset() []Rule {
	if !b.Resets {
		return nil
	}
	return []Rule{
		when(TCPFlags{Among: FIN | SYN | RST | ACK, Set: SYN, Not: true}, ConnState{New}, EndpointsInSet{SetResets}).then(ResetTCP{}),
	}
}
