package main

const kernel = "./pkg/dataplane"

// kernelMutants are mistakes about a kernel that has just booted, about connections
// that cannot go on or are forgotten, and about what is prepared. Their tests need root.
func kernelMutants() []mutant {
	const (
		marking     = "rules/marking.go"
		filter      = "rules/filter.go"
		boot        = "TestNothingLeavesBetweenBootAndAgent"
		unprobed    = "TestRoundUntilAddressesAreProbed"
		inventoried = "TestInventoryListsAndRemovesEachKind"
		dead        = "TestConnectionsThroughADeadHostAreReset"
		onlyDead    = "TestOnlyConnectionsThroughTheDeadHostAreReset"
		probes      = "TestProbesTravelTheOverlay"
		asked       = "TestForgedQuestionsGetNoAnswer"
		answered    = "TestForgedAnswersSayNothing"
		schedule    = "../probe/schedule.go"
		off         = "TestNoResetWhereSwitchedOff"
		noIPv6      = "TestNoEgressByIPv6"
		away        = "TestStrictEndsWithoutAnAgent"
		reused      = "TestReusedAddressHasNoEgressIP"
		links       = "nftables/links_rules.go"
		sends       = "TestNoPodSendsWithTheAddressOfOneWithAnEgressIP"
		stay        = "TestAddressesStayWithTheirLinks"
		steadily    = "TestSteadyPassFindsDrift"
		comeAndGo   = "TestPodsComeAndGo"
		podsOrder   = "apply_order_pods.go"

		forgotten      = "TestForgottenConnectionsAreNotTurnedRound"
		overlayBegins  = `when(Original, inSet(SetInside, Destination)).then(Drop{}),`
		overlayUnnoted = `when(Original, unnoted).then(Drop{}),`
	)
	m := func(name, test, file, old, mutated string) mutant {
		return mutant{name: name, pkg: kernel, test: test, plain: true, edits: []edit{{file: file, old: old, new: mutated}}}
	}
	return []mutant{
		{
			name: "gateway-becomes-an-egress-ip", pkg: kernel + "/address", test: "TestGatewayIsRefused", plain: true,
			edits: []edit{{file: "address.go", old: "for _, hop := range r.MultiPath {", new: "for _, hop := range r.MultiPath[len(r.MultiPath):] {"}},
		},
		m("lock-not-strict", boot, "lock.go", "p := newPass(d, s)", "s.Strict = false\n\tp := newPass(d, s)"),
		m("lock-in-service", boot, "lock.go", "return members > 0, nil", "return members > 1000, nil"),
		m("lock-needs-a-network", "TestLockWithoutANetwork", "lock.go", "if p.rulesErr != nil ||", "if err != nil ||"),
		m("away-is-ready", probes, "bpf/probe.go", "asm.Mov.Imm(asm.R2, probeAway),", "asm.Mov.Imm(asm.R2, probeReady),"),
		m("answers-once-and-for-all", probes, "bpf/probe.go", `asm.JGT.Reg(asm.R0, asm.R1, "away"),`, ""),
		m("overlay-gives-no-answers", probes, filter, "when(b.fromOverlay, Reply).then(Return{})", "when(b.fromOverlay, Original).then(Return{})"),
		m("probes-take-another-way", probes, "../probe/overlay_way.go", "return w.control", "return nil"),
		{name: "strangers-ask", pkg: kernel, test: asked, plain: true, edits: openToStrangers()},
		{name: "strangers-answer", pkg: kernel, test: answered, plain: true, edits: openToStrangers()},
		{name: "pods-ask", pkg: kernel, test: asked, plain: true, edits: openToPods()},
		{name: "pods-answer-for-their-node", pkg: kernel, test: answered, plain: true, edits: openToPods()},
		m("answers-are-answered", asked, "bpf/probe.go", `asm.JNE.Imm(asm.R1, probeQuestion, "drop"),`, ""),
		m("any-source-is-a-host", asked, "bpf/probe.go", "asm.JEq.Reg(asm.R1, asm.R2, to),", "asm.JNE.Imm(asm.R2, 0, to),"),
		m("questions-for-others-are-answered", asked, "bpf/probe.go", `asm.Instructions{asm.JNE.Imm(asm.R1, 0, "drop")},`, ""),
		m("forged-sequences-count", answered, schedule, "q.addr != from || q.sequence != m.Sequence ||", "q.addr != from ||"),
		m("forged-hosts-count", answered, schedule, " || q.to.hash != m.Host {", " {"),
		m("questions-count-as-answers", answered, schedule, "m.Kind != Answer || q == nil", "q == nil"),
		m("answers-count-from-anywhere", answered, schedule, "q.done || q.addr != from ||", "q.done ||"),
		m("forged-refusals-count", answered, schedule, "q.addr != by || q.sequence != m.Sequence {", "q.addr != by {"),
		m("overlay-begins-with-an-answer", answered, filter, "when(b.fromOverlay, Reply).then(Return{})", "when(b.fromOverlay).then(Return{})"),
		m("neighbours-address-passes", sends, links, "slices.Concat(iif(), in(setPodLinks), drops),", "slices.Concat(iif(), in(setPodLinks), passes),"),
		m("new-link-passes", sends, links, "in(setAttended), drops),\n\t\t}\n\t}\n", "in(setAttended), passes),\n\t\t}\n\t}\n"),
		m("other-sources-pass", sends, links, "four(drops),", "four(passes),"),
		m("tags-hide-sources", sends, links, "noVLAN(), drops))", "noVLAN(), passes))"),
		m("routed-links-are-unknown", sends, "links.go", "if f.Links[via].Crosses {", "if f.Links[via].Crosses && false {"),
		m("ipv6-sources-are-free", "TestNoPodLeavesWithAnotherIPv6Address", links, "six(drops),", "six(passes),"),
		m("addresses-stay-bound", stay, "links.go", "if !reflect.DeepEqual(finally, plan.meanwhile) {", "if len(locked) == 0 && !reflect.DeepEqual(finally, plan.meanwhile) {"),
		m("heir-takes-the-former-way", "TestHeirsAreHeld", "links.go", "return before && former[ip] != link", "return before && former[ip] == 0 && link == 0"),
		m("locate-is-no-state", "TestStatesAreComparedWhole", "state.go", " && slices.Equal(s.Locate, o.Locate)", ""),
		m("standby-is-of-pods", "TestStatesAreComparedWhole", "state.go", " && slices.Equal(s.Standby, o.Standby)", ""),
		m("sources-are-no-pod", "TestStatesAreComparedWhole", "state.go", " && slices.Equal(p.Sources, o.Sources)", ""),
		m("claims-are-believed", stay, "links.go", "case slices.Contains(holders, former):", "case slices.Contains(holders, former) && false:"),
		m("former-links-are-forgotten", stay, "links.go", "former := observed.links.Bound()", "former := map[netip.Addr]int{}"),
		m("one-without-an-address-is-free", stay, "links.go", "link == 0 && before.Crosses", "link != 0 && before.Crosses"),
		m("known-addresses-come-by-new-links", "TestReusedAddressOfAPlainPod", "links.go", "if r.state.Strict && err == nil {", "if r.state.Strict && err != nil {"),
		m("known-links-are-new", "TestReusedAddressOfAPlainPod", "nftables/links_rules.go",
			"fromNew := [][]expr.Any{\n\t\tslices.Concat(iif(), in(setPodLinks), passes),\n", "fromNew := [][]expr.Any{\n"),
		m("known-addresses-never-leave", "TestReusedAddressOfAPlainPod", "nftables/links_rules.go",
			"slices.Concat(iif(), in(setOtherLinks), passes),\n\t\tslices.Concat(meta(expr.MetaKeyNFPROTO), in(setAttended), drops),\n\t}\n\tr :=",
			"slices.Concat(iif(), in(setOtherLinks), passes),\n\t\tdrops,\n\t}\n\tr :="),
		m("waiting-agent-leaves-links", stay, "presence.go", "errs = append(errs, d.stayWithLinks(stays))", ""),
		m("links-are-attended-for-ever", stay, "nftables/links.go", "Key: []byte{unix.NFPROTO_BRIDGE}, Timeout: stays}", "Key: []byte{unix.NFPROTO_BRIDGE}}"),
		m("unchecked-sources-fail", "TestSourcesThatCannotBeChecked", "apply_perform.go", "if first.op == putLinks {", "if first.op == putLinks && err == nil {"),
		m("no-reset", dead, "apply_perform.go", "e.staleness.resettable(entry.Flow)", "false"),
		m("no-ack-is-elicited", dead, "conntrack/elicit.go", "if len(flows) == 0 {", "if len(flows) < 1000 {"),
		m("elicited-acks-are-limited", "TestConnectionsAreResetAfterAnotherAnswer", "conntrack/elicit.go", "data, ttl = 20, 20, 1, 64", "data, ttl = 20, 20, 0, 64"),
		m("closed-is-reset", dead, "apply_flows.go", "return false // neither end has it", "// neither end has it"),
		m("translated-is-reset", "TestConnectionsThroughAServiceAreResetByTheServer", "apply_flows.go",
			"|| translated ||", "|| translated && false ||"),
		m("moved-address-is-reset", dead, "apply_flows.go", "ip.IsValid() && ip != source", "ip.IsValid()"),
		m("all-of-a-pod-are-reset", onlyDead, "apply_flows.go", "return changesSource(before, after, host)", "return changesSource(before, after, host) || true"),
		{name: "moved-goes-on", pkg: kernel, test: "TestPropertyNoPacketLeaksAtAnyMoment", edits: []edit{
			{file: "apply_flows.go", old: "return changesSource(before, after, host)", new: "return false && changesSource(before, after, host)"},
		}},
		m("new-pods-had-no-connections", "TestConnectionsFromBeforeAPodWasKnown", podsOrder, "case len(moved) > 0:", "case len(moved) > maxSources:"),
		m("moved-pods-had-no-connections", comeAndGo, podsOrder, "if known || want.pods[ip] != 0 {", "if !known && want.pods[ip] != 0 {"),
		{name: "gone-pods-had-no-connections", pkg: kernel, test: comeAndGo, plain: true, edits: []edit{
			{file: podsOrder, old: "if obs.pods[ip] != 0 {", new: "if obs.pods[ip] != 0 && false {"},
			{file: podsOrder, old: "set: setOf(setLocked, ip), ip: ip})\n\t\tmoved = append(moved, ip)", new: "set: setOf(setLocked, ip), ip: ip})"},
		}},
		m("pods-hide-the-rest-of-a-state", comeAndGo, "steady.go", "|| !was.state.equalButPods(s) {", "{"),
		m("first-pod-of-ipv6-waits", "TestFirstPodWithAnEgressIPOfIPv6", "steady.go", "if usesIPv6(s) && !d.serve6.wanted {", "if false {"),
		m("other-pods-put-off-reading", comeAndGo, "steady.go", "p.keepSteady(r, was.at)", "p.keepSteady(r, monotonic())"),
		m("pods-make-passes-read-all", comeAndGo, "steady.go", "p.report.Changes == p.podChanges", "p.report.Changes == 0"),
		m("warnings-of-former-pods-stay", "TestWarningsGoWithTheirPods", "steady.go", "r.podWarnings = observed.warnings", "r.podWarnings = append(r.podWarnings, observed.warnings...)"),
		{name: "pods-alone-in-any-order", pkg: kernel, test: "TestPropertyPodsAlone", edits: []edit{
			{file: podsOrder, old: "c.forget(in.sweep, c.pods(in))\n\tc.sort()", new: "c.forget(in.sweep, c.pods(in))"},
		}},
		m("guard-stays-at-a-former-uplink", "TestUplinkBecomesAnotherDevice", "bpf/guard.go", "if g.at != nil && maps.Equal(g.at, at) {", "if g.at != nil {"),
		m("any-host-for-a-flows-own", onlyDead, "apply_flows.go", "if len(before.Via) > 1 {", "if len(before.Via) > MaxVia {"),
		{name: "reset-though-off", pkg: kernel, test: off, plain: true, edits: []edit{
			{file: filter, old: "if !b.Resets {", new: "if false {"},
			{file: "apply_perform.go", old: "e.resets && e.staleness.resettable(entry.Flow)", new: "e.staleness.resettable(entry.Flow)"},
		}},
		m("one-host-is-not-noted", "TestConnectionsStayWhenAHostJoins", "bpf/programs.go",
			"// Noted for routes with one host too: it may get others in addition.",
			"asm.LoadMem(regHost, regRoute, 8, asm.Word),\n\t\t\tasm.JEq.Imm(regCount, 1, \"send\"),"),
		m("overlay-begins-connections", forgotten, filter, overlayBegins, ""),
		m("overlay-begins-what-is-noted", forgotten, filter, overlayBegins, overlayUnnoted),
		m("answers-take-any-way", forgotten, filter,
			`when(Reply, b.noted(), notToOverlay).then(Drop{}),`, ""),
		m("unnoted-connections-begin", "TestNoConnectionWhoseAnswersStray", filter, overlayUnnoted, ""),
		m("pending-is-added", unprobed, "apply_aim.go", "return slices.Contains(pending, ip)", "return slices.Contains(pending[:0], ip)"),
		m("new-is-served-unprobed", unprobed, "apply_aim.go", "if _, known := served[ip]; !known {", "if _, known := served[ip]; !known && false {"),
		m("lost-is-dropped", unprobed, "apply_aim.go", "if _, known := served[ip]; !known {", "if _, known := served[ip]; !known || known {"),
		m("maps-are-not-listed", inventoried, "inventory.go", "paths, err := bpf.PinnedMaps(d.cfg.PinDir)", "paths, err := []string(nil), error(nil)"),
		m("sets-of-others-are-destroyed", inventoried, "sets.go", "return !slices.ContainsFunc(ourSets()", "return len(name) == 0 && !slices.ContainsFunc(ourSets()"),
		{name: "guard-takes-anothers-place", pkg: kernel + "/bpf", test: "TestFilterOfOthersAtTheGuardsPlaceStays", plain: true, edits: []edit{
			{file: "guard_filter.go", old: "case !ok || !isGuard(b):", new: "case !ok:"},
		}},
		m("egress-ip-is-promoted", "TestAddressIsTheNamespacesAlone", "address/form.go", "case !s.promotes && s.prefix < 32:", "case s.prefix <= 32:"),
		m("former-form-stays", "TestAddressOfFormerFormIsReplacedUnderTraffic", "apply_round.go", "r.mendAddresses()\n\treturn", "return"),
		{name: "egress-ip-stays-first", pkg: kernel + "/address", test: "TestMendPutsThemBehindTheHostsAddress", plain: true, edits: []edit{
			{file: "form.go", old: "Bits() == 32 && behind", new: "Bits() == 32"},
		}},
		{name: "unmarked-passes-the-guard", pkg: kernel + "/bpf", test: "TestGuardVerdicts", plain: true, edits: []edit{
			{file: "guard_program.go", old: "asm.JNE.Imm(asm.R8, 0, \"drop\"),\n\t\t},", new: "asm.JEq.Imm(asm.R8, 0, \"pass\"),\n\t\t},"},
		}},
		{name: "stale-guard-stays", pkg: kernel + "/bpf", test: "TestGuardLeavesFormerInterfaces", plain: true, edits: []edit{
			{file: "guard.go", old: "if g.at != nil && maps.Equal(g.at, at) {", new: "if at != nil {"},
		}},
		{name: "unguarded-is-served", pkg: kernel, test: "TestNoEgressIPWithoutGuard", plain: true, edits: []edit{
			{file: "apply_perform.go", old: "return e.rulesErr != nil || e.guardErr != nil", new: "return e.rulesErr != nil"},
			{file: "apply_perform.go", old: "if first.phase == phaseRules || first.op == widenGuard {", new: "if first.phase == phaseRules {"},
		}},
		m("configured-iptables-is-a-lack", "TestReportSaysWhatTheKernelLacks", "features.go", "d.choice.table || d.choice.configured", "d.choice.table"),
		m("looks-once", "TestAddressThatSomebodyElseTakesLater", "segment.go", "if r.uplinkErr != nil {\n\t\treturn\n\t}\n\tat := map[int]bool{}", "if r.uplinkErr != nil || len(r.addresses) > 0 {\n\t\treturn\n\t}\n\tat := map[int]bool{}"),
		m("ports-are-never-random", "TestSourcePorts", "rules/snat.go", "To: to, RandomPort: b.RandomPorts}", "To: to}"),
		m("ports-of-a-tree-are-never-random", "TestSourcePorts", "rules/snat.go", "RandomPort: t.random}", "RandomPort: false}"),
		m("ports-of-all-destinations", "TestUsageOfEgressIPs", "ports.go", "f.Dest.As16(), f.DestPort,", "[16]byte{}, f.DestPort,"),
		m("ports-of-all-protocols", "TestUsageOfEgressIPs", "ports.go", "f.DestPort, f.Protocol}]++", "f.DestPort, 0}]++"),
		m("ports-warning-without-end", "TestWarningBeforePortsRunOut", "ports.go", "usage.Ports >= portsFew {", "usage.Ports >= 0 {"),
		m("other-pods-hide-drift", steadily, "steady.go", "if changed || was == nil ||", "if changed && (was == nil || was.state.equal(s)) || was == nil ||"),
		m("steady-without-maps", steadily, "steady.go", "d.maps.Hold(was.entries)", "d.maps != nil"),
		m("steady-without-guard", steadily, "steady.go", "d.guard.Stands()", "true"),
		m("steady-without-settings", steadily, "steady.go", "slices.Equal(was.settings, was.last.readAll())", "len(was.settings) == len(was.last.readAll())"),
		m("steady-without-a-state-of-its-own", steadily, "steady.go", "p.state.clone()", "p.state"),
		m("steady-for-ever", steadily, "steady.go", "monotonic()-was.at >= wholeEvery ||", ""),
		m("neighbours-make-no-news", steadily, "news.go", "return n.ofOverlay(data)\n\tcase", "return false\n\tcase"),
		m("routes-go-without-a-word", steadily, "news.go", "n.routes = n.routes || n.ofOverlay(data)", ""),
		m("lost-news-are-no-news", steadily, "watch.go", "concerns(unix.NLMSG_OVERRUN, nil)\n\t\t\tfound = true // more", "// more"),
		m("networks-within-networks-change-for-ever", "TestNetworksWithinNetworks", "backend.go", "k.inside = v.d.nft.Inside()", "for _, p := range content.Inside() {\n\t\t\tk.inside[p] = struct{}{}\n\t\t}"),
		m("moves-in-silence", "TestAnotherMACIsAnnounced", "segment.go", "if sight.Moved {", "if sight.Moved && false {"),
		m("own-interface-is-another-machine", "TestOwnInterfacesAreNotAnotherMachine", "segment.go", "|| own[mac.String()]", ""),
		m("ipv6-is-left-alone", noIPv6, "rules/ipv6.go", "for _, r := range stop {", "for _, r := range stop[:0] {"),
		m("ipv6-has-one-lock", noIPv6, "rules/ipv6.go", "b.closed([]Rule{when().then(Drop{})})", "b.closed(nil)"),
		m("unknown-leaves-by-ipv6", noIPv6, "rules/ipv6.go", "range b.Strict {", "range b.Strict[:0] {"),
		m("neighbours-are-not-found", noIPv6, "rules/ipv6.go", "range neighbourDiscovery() {", "range neighbourDiscovery()[:0] {"),
		m("strict-without-end", away, "presence.go", "return max(r.d.cfg.AwayAfter, 0)", "return 0"),
		m("presence-is-not-renewed", away, "presence.go", "if present {", "if present && false {"),
		m("presence-of-a-waiting-agent-ends", away, "presence.go", "if present && ends {", "if present && ends && false {"),
		m("heir-has-the-egress-ip", reused, marking, "when(heir()...).then(Return{}))\n\t}\n\trules = append(rules, when().then(SetMarkFromSet", ")\n\t}\n\trules = append(rules, when().then(SetMarkFromSet"),
		m("heir-is-locked", reused, filter, "rules = append(rules, when(heir()...).then(Return{}))\n\t}\n", "}\n"),
		m("heir-is-learned", reused, marking, "inSet(SetLocked, Source), AgentPresent{Set: SetPresent}).then(LearnSender", "inSet(SetLocked, Source)).then(LearnSender"),
		m("senders-are-remembered", reused, "nftables/members.go", "|| !gone[keyAddr(", "|| gone[keyAddr("),
		m("present-before-the-sets-are", reused, "presence.go", "present, _, err := d.present(where)\n\t\tif present {", "present, _, err := true, false, error(nil)\n\t\tif present {"),
		m("nothing-prepared", "TestStandbyTakesOverWithoutAChangeOfRules", "index.go", "taken := maps.Clone(used)", "standby = nil\n\ttaken := maps.Clone(used)"),
	}
}

// bootMutants are mistakes in the systemd unit of the boot lock.
func bootMutants() []mutant {
	const (
		unit    = "../../pkg/bootunit/unit.go"
		first   = "TestSystemdLocksBeforeTheKubelet"
		without = "TestWithoutTheLockNoKubelet"
	)
	m := func(name, test, old, mutated string) mutant {
		return mutant{name: name, pkg: "./test/boot", test: test, plain: true, edits: []edit{{file: unit, old: old, new: mutated}}}
	}
	return []mutant{
		m("unit-in-no-order", first, "Before=%s\n\n[Service]", "# Before=%s\n\n[Service]"),
		m("unit-not-required", first, "for _, before := range u.Before {\n\t\tlink", "for _, before := range u.Before[:0] {\n\t\tlink"),
		m("unit-only-wanted", without, `link := u.path(unitDir, before+".requires", unitName)`, `link := u.path(unitDir, before+".wants", unitName)`),
	}
}

// openToStrangers lets every machine send to the overlay's port of a host: what keeps strangers
// off, and what keeps off what was translated, which is tracked as what they send is.
func openToStrangers() []edit {
	return []edit{
		{file: "rules/filter.go", old: "when(port, notInSet(SetHosts, Source)).then(Drop{}),\n", new: ""},
		{file: "rules/filter.go", old: "rules = append(rules, when(UDPPort(b.OverlayPort), Original).then(Drop{}))", new: ""},
	}
}

// openToPods is the same for what pods send to the overlays of other hosts.
func openToPods() []edit {
	return []edit{
		{file: "rules/forward.go", old: "when(port, inSet(SetHosts, Destination), notInSet(SetHosts, Source)).then(Drop{}),\n", new: ""},
		{file: "rules/forward.go", old: "when(port, inSet(SetInside, Source), notInSet(SetHosts, Source), notInSet(SetInside, Destination)).then(Drop{}),\n", new: "when(port, inSet(SetIPs, Destination)).then(Drop{}),\n"},
		{file: "rules/forward.go", old: "rules = append(rules, when(UDPPort(b.OverlayPort), Original, inSet(SetHosts, Destination)).then(Drop{}))", new: ""},
	}
}
