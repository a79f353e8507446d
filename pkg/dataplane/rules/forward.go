package rules

// forward is the lock on what is marked.
func (b builder) forward() []Rule {
	unmarked := Mark{Value: 0, Mask: b.allBits()}
	rules := b.neighbours()
	if len(b.ports()) > 0 {
		rules = append(rules, when(UDP{}).then(Jump{ChainPorts}))
	}
	return append(rules,
		when(b.fromOverlay).then(Goto{ChainFrom}),
		when(b.toOverlay).then(Goto{ChainTo}),
		when(inSet(SetLocked, Source), notInSet(SetInside, Destination)).then(Goto{ChainAgain}),
		when(unmarked).then(Return{}),
		b.plainAgain(),
		// Traffic inside the cluster is left alone. Routing is done at this
		// point and needs the mark no more: a CNI's tunnel would inherit it.
		when(inSet(SetInside, Destination)).then(SetMark{0, b.allBits()}),
		when(unmarked).then(Return{}),
		when().then(Goto{ChainOut}),
	)
}

// ports keeps others than hosts off the hosts' ports.
func (b builder) ports() (rules []Rule) {
	// Only hosts may send to the overlay's port: a pod could choose the namespace
	// that its packets seem to come from. And a pod's probe, once masqueraded,
	// would look like its host's. Outside, the network may lead it to a host: by an
	// address that stands for the host's, such as an ExternalIP.
	for _, port := range b.hostPorts() {
		rules = append(
			rules,
			when(port, inSet(SetHosts, Destination), notInSet(SetHosts, Source)).then(Drop{}),
			when(port, inSet(SetInside, Source), notInSet(SetHosts, Source), notInSet(SetInside, Destination)).then(Drop{}),
		)
	}
	// What hosts themselves send there is not tracked, and never translated. This was
	// led to the port by a service.
	if b.betweenHosts() {
		rules = append(rules, when(UDPPort(b.OverlayPort), Original, inSet(SetHosts, Destination)).then(Drop{}))
	}
	return rules
}

// out is the way out of what is marked.
func (b builder) out() []Rule {
	remote := b.Marks.Remote()
	return []Rule{
		// Second lock: the overlay is the only way outside for REMOTE.
		when(Mark{Value: remote, Mask: remote}).then(Drop{}),
		when(unnatable()).then(Drop{}),
		when().then(Goto{ChainPinned}),
	}
}

// fromOverlayChain takes packets that other hosts sent over the overlay.
func (b builder) fromOverlayChain() []Rule {
	return []Rule{
		when().then(Jump{ChainMarking}),
		when(b.toOverlay).then(Drop{}),
		when(unnatable()).then(Drop{}),
		when(Reply).then(Return{}),
		// A network without an egress IP here must not leave with the host's address.
		when(b.lostIndex()).then(Drop{}),
		when(inSet(SetInside, Destination)).then(Drop{}),
		when().then(Goto{ChainPinned}),
	}
}

// toOverlayChain takes packets that leave over the overlay.
func (b builder) toOverlayChain() []Rule {
	ret, remote := b.Marks.Return(), b.Marks.Remote()
	return []Rule{
		when(unnatable()).then(Drop{}),
		when(Reply, ConnMark{Value: ret, Mask: ret}).then(SetMark{ret, b.allBits()}),
		when(Original).then(Jump{ChainWay}),
		when(Mark{Value: 0, Mask: remote | ret}).then(Drop{}),
		// Path MTU discovery fails where ICMP is filtered.
		when(TCPFlags{Among: SYN | RST, Set: SYN}).then(ClampMSS{}),
		when(Mark{Value: ret, Mask: ret}).then(Return{}),
		// A pod that is not classified yet. The programs at the overlay would drop
		// its packets too, but only after its connection is confirmed, which could
		// then never leave another way.
		when(notInSet(SetPods, Source)).then(Drop{}),
		when().then(Goto{ChainPinned}),
	}
}
