package rules

import (
	"maps"
	"slices"
)

// filter is the stage that decides whether a packet passes at all.
func (b builder) filter() Ruleset {
	chains := b.lock()
	maps.Copy(chains, map[string][]Rule{
		ChainReset:  b.reset(),
		ChainInput:  b.input(),
		ChainOutput: b.output(),
		ChainAccept: {
			when(b.fromOverlay).then(Accept{}),
			when(b.toOverlay).then(Accept{}),
		},
	})
	return Ruleset{
		Chains: chains,
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

// lock are the chains that drop packets which must not leave unmarked, and are unmarked.
func (b builder) lock() map[string][]Rule {
	chains := map[string][]Rule{ChainLocked: b.locked(), ChainCame: b.came(), ChainHeld: b.held()}
	if len(b.Strict) > 0 {
		chains[ChainStranger] = b.stranger()
	}
	return chains
}

// came is the part of the lock about what came over the overlay.
func (b builder) came() []Rule {
	unnoted := b.noted()
	unnoted.Not = true
	rules := append([]Rule{
		// No connection to a pod begins over the overlay. A packet of the other end
		// would begin one where the pod's own was forgotten: then the pod's packets
		// would be replies, whose source no NAT touches.
		when(Original, inSet(SetInside, Destination)).then(Drop{}),
		// Answers to what came over the overlay must go back over it: anywhere else
		// they look like a new connection. Table mangle marks such connections and
		// routes their answers, unless it has been flushed.
		when(Original, unnoted).then(Drop{}),
	}, b.neighbours()...)
	if b.Maps { // see locked
		rules = append(rules, when(Original, MarksDiffer{b.wayBits()}).then(Jump{ChainMarking}))
	}
	return rules
}

// locked is the lock.
func (b builder) locked() []Rule {
	notToOverlay := b.toOverlay
	notToOverlay.Not = true
	rules := append([]Rule{
		when(b.fromOverlay).then(Jump{ChainCame}),
		when(Reply, b.noted(), notToOverlay).then(Drop{}), // see came
	}, b.neighbours()...)
	if b.Maps {
		// FORWARD has seen these marks, too: it is in the same table. It has made them equal
		// to their connections'.
		rules = append(rules, when(b.toOverlay, MarksDiffer{b.wayBits()}).then(Jump{ChainMarking}))
	}
	rules = append(rules, when(inSet(SetLocked, Source)).then(Goto{ChainHeld}))
	if b.Maps {
		rules = append(rules, b.plainAgain())
	}
	rules = append(rules, b.refused()...)
	for _, subnet := range b.Strict {
		rules = append(rules, when(SourceIn{subnet}, notInSet(SetPods, Source)).then(Jump{ChainStranger}))
	}
	return rules
}

// stranger is about what sources of the host's pod networks send that are no pod's.
func (b builder) stranger() (rules []Rule) {
	for _, state := range outbound() {
		rules = append(rules, when(b.unmarked(), state, AgentPresent{Set: SetPresent}, notInSet(SetInside, Destination)).then(Drop{}))
	}
	return rules
}

// held is about what sources that are locked send.
func (b builder) held() (rules []Rule) {
	if b.Maps { // most: they are marked, and nothing below is about them
		way := b.unmarked()
		way.Not = true
		m := when(way, MarksSame{b.wayBits()})
		if b.six { // see refused
			m = append(m, Mark{Value: b.wayBits(), Mask: b.wayBits(), Not: true})
		}
		rules = append(rules, m.then(Return{}))
	}
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
