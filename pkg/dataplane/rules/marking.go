package rules

import "slices"

// arrival is for packets that come over the overlay, as long as they have the mark that the
// program there has given them.
func (b builder) arrival() []Rule {
	ret, way := b.Marks.Return(), b.wayBits()
	return []Rule{
		// A connection that comes over the overlay goes back over it, so that both
		// directions take the same way, whatever the CNI.
		when(b.fromOverlay, Original).then(SetConnMark{ret, ret}),
		when(b.fromOverlay, Original, Unconfirmed{}).then(SaveMark{way}),
		when(b.fromOverlay, Original).then(DropIfMarksDiffer{way}),
	}
}

// marking gives packets of this host's pods, and replies, the mark of their way, and those
// that came over the overlay the mark that they came with. It follows from the packet
// alone, so that it can be done again wherever it matters: other software may have set the
// whole mark meanwhile, as the VPC CNI of Amazon does in nftables, and whoever shapes
// traffic by marks.
func (b builder) marking() []Rule {
	ret, remote, all := b.Marks.Return(), b.Marks.Remote(), b.allBits()
	rules := append([]Rule{
		when(b.fromOverlay, Original).then(RestoreMark{b.wayBits()}),
		when(b.fromOverlay).then(Return{}),
	}, b.neighbours()...)
	// Our bits on packets of pods are nobody else's. What a pod sends to begin a connection
	// gets its mark below, whatever it had.
	foreign := Mark{Value: 0, Mask: all, Not: true}
	rules = append(rules,
		when(foreign, inSet(SetPods, Destination)).then(SetMark{0, all}),
		when(foreign, inSet(SetIPs, Destination)).then(SetMark{0, all}),
		when(foreign, Reply, inSet(SetPods, Source)).then(SetMark{0, all}))
	if b.Senders {
		rules = append(rules,
			when(Unconfirmed{}, inSet(SetLocked, Source), AgentPresent{Set: SetPresent}).then(LearnSender{Pairs: SetSenders, Addresses: SetBound}),
			when(heir()...).then(Return{}))
	}
	rules = append(rules, when(Reply, ConnMark{Value: ret, Mask: ret}).then(SetMark{ret, all}))
	// Packets that no NAT touches get the mark too, so that FORWARD can drop
	// them if they are bound for the outside.
	for _, state := range outbound() {
		rules = append(rules, when(state).then(SetMarkFromSet{SetPods}))
	}
	for _, subnet := range b.Strict {
		for _, state := range outbound() {
			rules = append(rules, when(SourceIn{subnet}, state, notInSet(SetPods, Source), AgentPresent{Set: SetPresent}).then(SetMark{remote, all}))
		}
	}
	return rules
}

// again marks packets once more, but for those that stay inside the cluster.
func (b builder) again() []Rule {
	mark := Jump{ChainMarking}
	return []Rule{
		when(b.fromOverlay).then(mark),
		when(b.toOverlay).then(mark),
		when(inSet(SetPods, Source), notInSet(SetInside, Destination)).then(mark),
	}
}

// restored gives back the marks with which packets have passed FORWARD, before they get their
// source or reach the program at the overlay, if others have changed them meanwhile. Of a
// packet's mark and its connection's, one is enough. Two that contradict each other are not.
func (b builder) restored() []Rule {
	ret, remote, first, all, way := b.Marks.Return(), b.Marks.Remote(), b.first(), b.allBits(), b.wayBits()
	elsewhere := b.toOverlay
	elsewhere.Not = true
	has := func(bits uint32) Match { return ConnMark{Value: bits, Mask: bits} }
	rules := []Rule{
		when(b.toOverlay, Reply, has(ret)).then(SetMark{ret, all}),
		when(b.toOverlay, Original, has(remote)).then(RestoreMark{way}),
		when(elsewhere, Mark{Value: 0, Mask: all, Not: true}, ConnMark{Value: 0, Mask: ret | first}, inSet(SetPods, Source), notInSet(SetLocked, Source)).then(SetMark{0, all}),
	}
	for _, served := range []matches{
		{elsewhere, Original, has(ret | first)},
		{elsewhere, Original, has(first), inSet(SetLocked, Source), notInSet(SetInside, Destination)},
	} {
		rules = append(rules,
			append(slices.Clone(served), b.lostIndex()).then(RestoreMark{way}),
			served.then(DropIfMarksDiffer{way}))
	}
	return rules
}

// lost drops what should have an index, and has lost both marks.
func (b builder) lost() []Rule {
	var rules []Rule
	elsewhere := b.toOverlay
	elsewhere.Not = true
	if b.Senders {
		// It may be an heir's: see there.
		rules = append(rules, when(inSet(SetBound, Source), AgentPresent{Set: SetPresent, Not: true}).then(Return{}))
	}
	for _, state := range outbound() {
		rules = append(rules, when(elsewhere, b.lostIndex(), state, inSet(SetLocked, Source), notInSet(SetInside, Destination)).then(Drop{}))
	}
	if b.Maps {
		// No packet matches where the kernel does not know the input device in this hook.
		ret := b.Marks.Return()
		for _, gone := range []Match{b.lostIndex(), ConnMark{Value: 0, Mask: ret}} {
			rules = append(rules, when(b.fromOverlay, elsewhere, gone, Original).then(Drop{}))
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

// first is the bit that every index has.
func (b builder) first() uint32 { return b.Marks.Index(b.Marks.FirstIndex()) }

// lostIndex matches packets without an index in their marks.
func (b builder) lostIndex() Mark { return Mark{Value: 0, Mask: b.first()} }

// unmarked matches packets whose mark is none of a way. Every way has one of two bits:
// others that overlap ours are of other software.
func (b builder) unmarked() Mark { return Mark{Value: 0, Mask: b.Marks.Remote() | b.first()} }
