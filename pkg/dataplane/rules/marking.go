package rules

import "slices"

// arrival is for packets that come over the overlay, as long as they have the mark that the
// program there has given them.
func (b builder) arrival() []Rule {
	ret, way := b.Marks.Return(), b.wayBits()
	var rules []Rule
	if b.Maps {
		elsewhere := b.fromOverlay
		elsewhere.Not = true
		rules = append(rules, when(elsewhere).then(Return{}))
	}
	return append(
		rules,
		// A connection that comes over the overlay goes back over it, so that both
		// directions take the same way, whatever the CNI.
		when(b.fromOverlay, Original).then(SetConnMark{ret, ret}),
		when(b.fromOverlay, Original, Unconfirmed{}).then(SaveMark{way}),
		when(b.fromOverlay, Original).then(DropIfMarksDiffer{way}),
	)
}

// marking gives packets of this host's pods, and replies, the mark of their way, and those
// that came over the overlay the mark that they came with. It follows from the packet
// alone, so that it can be done again wherever it matters: other software may have set the
// whole mark meanwhile, as the VPC CNI of Amazon does in nftables, and whoever shapes
// traffic by marks.
func (b builder) marking() []Rule {
	rules := append([]Rule{when(b.fromOverlay).then(Goto{ChainKept})}, b.neighbours()...)
	rules = append(rules,
		when(b.marked()).then(Jump{ChainForeign}),
		when(Reply).then(Goto{ChainReplies}))
	// Packets that no NAT touches get the mark too, so that FORWARD can drop
	// them if they are bound for the outside.
	for _, state := range outbound() {
		rules = append(rules, when(state).then(Jump{ChainWay}))
	}
	for _, subnet := range b.Strict { // what is no reply could leave with a wrong source: see outbound
		rules = append(rules, when(SourceIn{subnet}, notInSet(SetPods, Source), AgentPresent{Set: SetPresent}).then(SetMark{b.Marks.Remote(), b.allBits()}))
	}
	return rules
}

// way gives what a pod sends its mark.
func (b builder) way() (rules []Rule) {
	if b.Senders {
		rules = append(rules,
			when(Unconfirmed{}, inSet(SetLocked, Source), AgentPresent{Set: SetPresent}).then(LearnSender{Pairs: SetSenders, Addresses: SetBound}),
			when(heir()...).then(Return{}))
	}
	rules = append(rules, when().then(SetMarkFromSet{SetPods}))
	if b.Excluded { // with rules in iptables, a service's address, which is inside, is yet to be translated
		rules = append(rules, when(b.marked(), PairInSet{SetExcluded}, notInSet(SetInside, Destination)).then(SetMark{0, b.allBits()}))
	}
	return rules
}

// foreign takes marks off: our bits on packets of pods are nobody else's. What a pod sends to
// begin a connection gets its mark after that, whatever it had.
func (b builder) foreign() []Rule {
	all := b.allBits()
	return []Rule{
		when(inSet(SetPods, Destination)).then(SetMark{0, all}),
		when(inSet(SetIPs, Destination)).then(SetMark{0, all}),
		when(Reply, inSet(SetPods, Source)).then(SetMark{0, all}),
	}
}

// again marks once more what pods with egress IPs send outside.
func (b builder) again() []Rule {
	rules := []Rule{when(b.marked(), Reply).then(Jump{ChainMarking})}
	for _, state := range outbound() {
		rules = append(rules, when(state).then(Jump{ChainWay}))
	}
	return append(rules,
		when(Mark{Value: 0, Mask: b.allBits()}).then(Return{}),
		when().then(Goto{ChainOut}))
}

// plainAgain has packets of pods without egress IPs marked once more, if they leave and have a
// mark: they must have none.
func (b builder) plainAgain() Rule {
	return when(b.marked(), notInSet(SetLocked, Source), inSet(SetPods, Source), notInSet(SetInside, Destination)).then(Jump{ChainMarking})
}

// leaving is about packets that leave. Most are none of ours, and go on at once: they have
// no mark, nor has their connection, and their source must have none.
func (b builder) leaving() []Rule {
	rules := []Rule{when(b.toOverlay).then(Goto{ChainTaken})}
	ours := []Match{b.marked(), ConnMark{Value: 0, Mask: b.allBits(), Not: true}, inSet(SetLocked, Source)}
	if b.Maps {
		ours = append(ours, b.fromOverlay)
	}
	for _, m := range ours {
		rules = append(rules, when(m).then(Goto{ChainRestored}))
	}
	return rules
}

// taken gives packets back the marks with which they reach the program at the overlay.
func (b builder) taken() []Rule {
	ret, remote := b.Marks.Return(), b.Marks.Remote()
	return []Rule{
		when(Reply, ConnMark{Value: ret, Mask: ret}).then(SetMark{ret, b.allBits()}),
		when(Original, ConnMark{Value: remote, Mask: remote}).then(RestoreMark{b.wayBits()}),
	}
}

// restored gives packets back the marks with which they have passed FORWARD, before they get
// their source, if others have changed them meanwhile. Of a packet's mark and its connection's,
// one is enough. Two that contradict each other are not.
func (b builder) restored() []Rule {
	ret, first := b.Marks.Return(), b.first()
	has := func(bits uint32) Match { return ConnMark{Value: bits, Mask: bits} }
	same, plain := Jump{ChainSame}, SetMark{0, b.allBits()}
	return slices.Concat(b.settled(), []Rule{
		when(b.marked(), ConnMark{Value: 0, Mask: ret | first}, inSet(SetPods, Source), notInSet(SetLocked, Source)).then(plain),
	}, b.excludedThen(plain, b.marked()), []Rule{
		when(Original, has(ret|first)).then(same),
		when(Original, has(first), inSet(SetLocked, Source), notInSet(SetInside, Destination)).then(same),
	})
}

// settled ends the walk of most packets that meet restored: nothing there is about them.
func (b builder) settled() []Rule {
	rules := []Rule{when(Reply, Mark{Value: 0, Mask: b.allBits()}).then(Return{})}
	if !b.Maps {
		return rules
	}
	first, elsewhere := b.first(), b.fromOverlay
	elsewhere.Not = true
	indexed, agree := Mark{Value: first, Mask: b.Marks.Remote() | first}, MarksSame{b.wayBits()}
	return append(rules,
		when(indexed, agree, elsewhere).then(Return{}),
		when(indexed, agree, b.noted()).then(Return{}))
}

// same gives back a mark that has lost its index, and drops what has another way than its
// connection.
func (b builder) same() []Rule {
	way := b.wayBits()
	return []Rule{
		when(b.lostIndex()).then(RestoreMark{way}),
		when().then(DropIfMarksDiffer{way}),
	}
}

// lost drops what should have an index, and has lost both marks.
func (b builder) lost() []Rule {
	var rules []Rule
	if b.Senders {
		// It may be an heir's: see there.
		rules = append(rules, when(AgentPresent{Set: SetPresent, Not: true}, inSet(SetBound, Source)).then(Return{}))
	}
	rules = append(rules, b.excludedThen(Return{})...)
	for _, state := range outbound() {
		rules = append(rules, when(b.lostIndex(), state, inSet(SetLocked, Source), notInSet(SetInside, Destination)).then(Drop{}))
	}
	if b.Maps {
		// No packet matches where the kernel does not know the input device in this hook.
		ret := b.Marks.Return()
		for _, gone := range []Match{b.lostIndex(), ConnMark{Value: 0, Mask: ret}} {
			rules = append(rules, when(b.fromOverlay, gone, Original).then(Drop{}))
		}
	}
	return rules
}

// pinned keeps connections on the way that they began on. The kernel chooses a
// connection's source with its first packet and never again, so the way of that
// packet is saved in the connection's mark, and later packets with another way are
// dropped until the connection is forgotten.
func (b builder) pinned() []Rule {
	way := b.wayBits()
	return []Rule{
		when(Unconfirmed{}).then(SaveMark{way}),
		when().then(DropIfMarksDiffer{way}),
	}
}

// allBits are all bits of the mark that are ours.
func (b builder) allBits() uint32 {
	return b.Marks.Remote() | b.Marks.Return() | b.Marks.IndexMask()
}

// wayBits are the bits that say which way a packet leaves.
func (b builder) wayBits() uint32 { return b.Marks.Remote() | b.Marks.IndexMask() }

// marked matches packets with any of our bits in their marks.
func (b builder) marked() Mark { return Mark{Value: 0, Mask: b.allBits(), Not: true} }

// first is the bit that every index has.
func (b builder) first() uint32 { return b.Marks.Index(b.Marks.FirstIndex()) }

// lostIndex matches packets without an index in their marks.
func (b builder) lostIndex() Mark { return Mark{Value: 0, Mask: b.first()} }

// unmarked matches packets whose mark is none of a way. Every way has one of two bits:
// others that overlap ours are of other software.
func (b builder) unmarked() Mark { return Mark{Value: 0, Mask: b.Marks.Remote() | b.first()} }
