package main

// ipv6Mutants are mistakes that concern packets of IPv6 alone, or that mix the families up.
func ipv6Mutants() []mutant {
	in := func(pkg, name, test, file, old, mutated string) mutant {
		return mutant{name: name, pkg: kernel + pkg, test: test, plain: true, edits: []edit{{file: file, old: old, new: mutated}}}
	}
	const (
		programs = "/bpf"
		flows    = "TestFlowsOfIPv6"
		guard    = "TestGuardVerdictsOfIPv6"
		tracked  = "/conntrack"
		segment  = "/neigh"
		uplink   = "/address"
		both     = "TestPodsLeaveWithTheirEgressIPsOfBothFamilies"
		change   = "TestEgressIPsOfIPv6Change"
		cannot   = "TestIPv6ThatANodeCannotServe"
	)
	return []mutant{
		in("", "no-ipv6-is-not-told", cannot, "ipv6.go", `why != "" && slices.ContainsFunc(r.state.Pods, uses)`, `why != "" && slices.ContainsFunc(r.state.Pods, uses) && false`),
		in("", "no-uplink-serves-ipv6", cannot, "ipv6.go", "r.report.IPv6 = false, IPv6Report{}", "r.report.IPv6 = false, IPv6Report{Known: true}"),
		in(programs, "families-share-networks", "TestMapsKeepTheFamiliesApart", "maps.go", "if n.IPv6 {\n\t\treturn m.ip6.hosted", "if n.IPv6 && m == nil {\n\t\treturn m.ip6.hosted"),
		in(programs, "ports-behind-no-header", flows, "flow_program.go", "asm.Add.Imm(asm.R1, 8),", "asm.Add.Imm(asm.R1, 0),"),
		in(programs, "later-fragments-have-ports", flows, "flow_program.go", `asm.JNE.Imm(asm.R1, 0, "later6"),`, `asm.JNE.Imm(asm.R1, 0, "ports6"),`),
		in(programs, "guard-ignores-ipv6", guard, "guard_program.go", "if marks6 != nil {", "if marks6 != nil && marks == nil {"),
		in(programs, "nobody-finds-neighbours-by-egress-ip", guard, "guard_program.go", `asm.JGT.Imm(asm.R1, icmp6NDLast, "drop"),`, `asm.JGT.Imm(asm.R1, icmp6NDFirst, "drop"),`),
		in(tracked, "connections-are-all-ipv4", "TestFlowsAreDeletedByWhatTheyReallyAre", "conntrack.go", "msg[nl.SizeofNfgenmsg:]...), msg[0]", "msg[nl.SizeofNfgenmsg:]...), unix.AF_INET"),
		in(segment, "solicitations-go-nowhere", "TestNeighbourDiscoveryFindsAnotherOwner", "nd.go", "13: to[13], 14: to[14], 15: to[15]}", "13: to[13], 14: to[14]}"),
		in(segment, "announcements-do-not-override", "TestNeighbourAdvertisementMovesAnAddress", "nd.go", "ndRouter | ndOverride,", "ndRouter,"),
		in(uplink, "ipv6-egress-ip-is-preferred", "TestEgressAddressOfIPv6", "ipv6.go", "life := binary.NativeEndian.AppendUint32(nil, 0)", "life := binary.NativeEndian.AppendUint32(nil, math.MaxUint32)"),
		in(uplink, "anybodys-ipv6-is-ours", "TestAddressOfIPv6OfOthersIsRefused", "ipv6.go", "h.ours = h.form.metric == Metric", "h.ours = h.form.metric > 0"),
		in("", "vni-has-one-family", both, "apply_target.go", "return bpf.Network{NetID: h.NetID, IPv6: h.IP.Is6()}", "return bpf.Network{NetID: h.NetID}"),
		in("", "ipv6-keeps-its-source", both, "rules/snat.go", "if ip.Is6() == b.six {\n\t\t\t\tto[", "if ip.Is4() && !b.six {\n\t\t\t\tto["),
		in("", "ipv6-forward-stays-closed", both, "apply_order.go", "case usesTable(in.use) && in.rules.Serve6:", "case usesTable(in.use) && in.rules.Serve6 && len(in.use) > 1:"),
		in("", "neighbours-ipv6-address-passes", both, "nftables/links_rules.go", "six(source6, in(setGuarded6), verdict(expr.VerdictGoto, chainForeign6)),", ""),
		in("", "unmarked-ipv6-is-not-refused", both, "apply_target.go", "case p.Kind == Refuse && p.IP.Is6():", "case p.Kind == Refuse && p.IP.Is6() && p.NetID > 0:"),
		in("", "discovery-goes-outside", both, "rules/ipv6.go", "if b.Serve6 || b.Maps {", "if (b.Serve6 || b.Maps) && b.Overlay == \"\" {"),
		in("", "pending-ipv6-is-reset", "TestEgressIPMovesUnderTraffic", "apply_target.go", "!reachable(p.Via, overIPv6):\n\t\treturn Pod{IP: p.IP, Kind: Drop, Excluded: p.Excluded}", "!reachable(p.Via, overIPv6):\n\t\treturn Pod{IP: p.IP, Kind: Refuse, Excluded: p.Excluded}"),
		in("", "ipv6-resets-are-not-noted", change, "nftables/members.go", "for name, elements := range put {\n\t\td.elements(", "for name, elements := range put {\n\t\tif name == rules.SetResets6 {\n\t\t\tcontinue\n\t\t}\n\t\td.elements("),
		in("", "ipv6-addresses-stay", "TestNothingOfIPv6IsLeft", "address/address.go", "return append(four, six...), errors.Join(err4, err6)", "return append(four, six[:0]...), errors.Join(err4, err6)"),
		in("/overlay", "overlay-has-an-ipv6-address", "TestOverlayOfIPv6", "overlay.go", "n, err = sysctl.EnsureNoAutomaticAddress(link)", "n, err = 0, nil"),
		in("", "errors-of-ipv6-stay", "TestPathMTUOfIPv6", "bpf/guard_program.go", `asm.JLE.Imm(asm.R1, icmp6Last, "error6"),`, `asm.JLE.Imm(asm.R1, icmp6Last, "drop"),`),
		in("", "unreadable-forwards", "TestSettingsAgainstIPv6", "ipv6.go", "case err != nil:\n\t\treturn err\n\tcase forwards", "case err != nil:\n\t\treturn nil\n\tcase forwards"),
		in("/routing", "ipv6-of-others-stops-ipv4", "TestTablesOfOthersForIPv6", "routing.go", "return family == netlink.FAMILY_V4 || p.NextHop6.IsValid()", "return family == netlink.FAMILY_V4 || family == netlink.FAMILY_V6"),
		in("", "what-comes-by-the-overlay-leaves", "TestOthersInOurTablesStopIPv6Only", "rules/ipv6.go", "append([]Rule{overlay}, b.closed", "append([]Rule{overlay}[:0], b.closed"),
		in("", "overlay-takes-ipv6-without-rules", "TestEgressHostThatStopsServingIPv6", "dataplane.go", "d.ipv6 && (d.choice.table || len(d.ip6tables) > 0) && d.serve6", "d.ipv6 && d.serve6"),
		in("", "refused-maps-are-refused-for-ever", "TestRefusedMapsOfIPv6AreTriedAgain", "ipv6.go", "!a.tried || a.err != nil && monotonic()-a.at >= againAfter", "!a.tried"),
		in("", "refused-maps-are-tried-all-the-time", "TestRefusedMapsOfIPv6AreTriedAgain", "ipv6.go", "!a.tried || a.err != nil && monotonic()-a.at >= againAfter", "!a.tried || a.err != nil"),
		in("/routing", "ipv4-waits-for-ipv6", "TestTablesOfOthersForIPv6", "routing.go", "other := func(r netlink.Rule) bool { return r.Family != c.family }", "other := func(r netlink.Rule) bool { return r.Family < 0 }"),
		in("", "ipv6-of-others-is-not-seen", "TestOthersInOurTablesStopIPv6Only", "ipv6.go", "return d.routed.inUse6(d.nl)", "_, err = d.routed.inUse6(d.nl)\n\treturn nil, err"),
		in("/routing", "ipv6-has-no-end", "TestRoutesOfOurTablesOnly", "routing.go", "rs := []route{{table: tableRemote, dst: everywhere, kind: unix.RTN_UNREACHABLE, metric: unreachableMetric}}", "rs := []route{{table: tableRemote, dst: everywhere, kind: unix.RTN_UNREACHABLE, metric: unreachableMetric}}[metric/metric6:]"),
		in("", "ipv6-passes-the-guard", "TestGuardIsPutBack", "bpf/guard_program.go", `asm.JNE.Imm(asm.R1, ipv6().protocol(), "pass")`, `asm.JNE.Imm(asm.R1, 0, "pass")`),
		in("", "host-sends-with-its-egress-ip", "TestAddressOfIPv6IsTheNamespacesAlone", "bpf/guard_program.go", `asm.JNE.Imm(asm.R1, ipv6().protocol(), "pass")`, `asm.JNE.Imm(asm.R1, 0, "pass")`),
		in("", "other-way-out-of-ipv6-is-open", "TestDefaultRouteOfIPv6OverAnotherInterface", "ways_out.go", "if ipv6 && !r.serve6 && !own {", "if ipv6 && !own {"),
		in("", "ipv6-has-no-ports", "TestConnectionsSpreadAndKeepTheirHost", "bpf/flow_program.go", `asm.JEq.Imm(asm.R1, unix.IPPROTO_UDP, "ports6"),`, `asm.JEq.Imm(asm.R1, unix.IPPROTO_UDP, "flow6"),`),
		in("", "strict-is-of-ipv4-alone", "TestStrictHoldsWhatIsNotKnownYet", "apply_round.go", "masked6(strictNetworks(s))", "masked6(nil)"),
		in("", "strict-of-ipv6-has-no-end", "TestStrictEndsWithoutAnAgent", "rules/ipv6.go", "notInSet(SetPods6, Source), AgentPresent{Set: SetPresent6}},", "notInSet(SetPods6, Source)},"),
		in("", "heir-of-ipv6-has-the-egress-ip", "TestReusedAddressHasNoEgressIP", "rules/marking.go", "if b.Senders {\n\t\trules = append(rules,\n", "if b.Senders && !b.six {\n\t\trules = append(rules,\n"),
		in("", "boot-lock-looks-at-ipv4-alone", "TestNothingLeavesBetweenBootAndAgent", "lock.go", "{setPods, setIPs, setPods6, setIPs6}", "{setPods, setIPs}"),
		in("", "moves-are-told", "TestEgressIPMovesUnderTraffic", "apply_target.go", "case p.Kind == Refuse && p.IP.Is6():", "case p.Kind >= Drop && p.Kind < closed && p.IP.Is6():"),
		in("", "refused-pods-have-one-lock", "TestDriftNeverLeaksAndIsRepaired", "apply_target.go", "k.pods[p.IP] = m.Refused()", "k.pods[p.IP] = 0"),
		in("", "small-uplink-serves-ipv6", "TestOverlayThatCannotCarryIPv6", "ipv6.go", "r.overlayMTU() < overlay.MinIPv6MTU:", "r.overlayMTU() < overlay.MinIPv6MTU-1:"),
		in("", "disabled-overlay-serves-ipv6", "TestOverlayThatCannotCarryIPv6", "ipv6.go", `case disabled != "0":`, `case disabled == "":`),
		in("", "refused-rules-of-ipv6-are-taken-for-granted", "TestRefusedRulesOfIPv6", "apply_perform.go", "\t\te.refuseNew(err, netip.Addr.Is6)\n", ""),
		in("", "refused-rules-of-ipv6-stop-ipv4", "TestRefusedRulesOfIPv6", "apply_perform.go", "e.refuseNew(err, netip.Addr.Is6)", "e.refuseNew(err, netip.Addr.IsValid)"),
		in("/iptables", "trials-stay", "TestTriedRulesAreGone", "driver.go", "errs = append(errs, d.Commit(ctx, Plan(name, there.After, RenderedTable{})))", ""),
		in("", "refused-rules-serve-ipv6", "TestRefusedRulesOfIPv6AreTriedAgain", "ip6tables.go", "if err := d.serve6.rules.err; err != nil {", "if err := d.serve6.rules.err; err != nil && !r.ipv6 {"),
		in("", "unreadable-rules-serve-ipv6", "TestUnreadableRulesServeNoIPv6", "ip6tables.go", "\t\tr.cannotServe6(errUnreadable6)\n", ""),
		in("", "source-nat-of-ipv6-is-beside-that-of-others", "TestSourcesOfIPv6AreTranslatedInTheOtherBackend", "ip6tables.go", "default:\n\t\t\tuse6 = append(use6, b)", "default:"),
		in("", "mixed-backends-of-ipv6-are-not-told", "TestSourcesOfIPv6AreTranslatedInTheOtherBackend", "ip6tables.go", "r.warn(warning.NATElsewhere(\"ip6tables-\" + string(b)))", ""),
		in("", "source-nat-of-ipv6-goes-first", "TestSourceNATOfIPv6GoesLast", "apply_order.go", "{phaseRules, iptables.Render(rules.Build6(between))}", "{phaseRules, iptables.Render(rules.Build6(in.rules))}"),
		in("", "indices-of-ipv6-are-forgotten", "TestSourceNATOfIPv6GoesLast", "index.go", "slices.Concat(observed.rules[b].MarkedNATs(), observed.rules6[b].MarkedNATs())", "observed.rules[b].MarkedNATs()"),
		in("", "resets-of-ipv6-are-noted-as-ipv4", "TestConnectionsThroughADeadHostAreReset", "sets.go", "if f.Source.Is6() {\n\t\tset = setResets6", "if f.Source.Is4In6() {\n\t\tset = setResets6"),
		in("", "steady-without-maps-of-ipv6", "TestSteadyPassOfIPv6", "bpf/entries.go", "e.four(m.ip4) && e.six(m.ip6)", "e.four(m.ip4)"),
	}
}
