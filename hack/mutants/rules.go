package main

// ruleMutants are mistakes in the rules, in how iptables gets them, and in the
// tracer that judges them.
func ruleMutants() []mutant {
	const (
		iptables = "./pkg/dataplane/iptables"
		nftables = "./pkg/dataplane/nftables"
		tracer   = "./internal/testenv/tracer"
		warnings = "./pkg/dataplane/warning"

		strangers = "TestEgressIPsAndOverlayTakeNothingFromStrangers"
	)
	m := func(name, pkg, test string, plain bool, file, old, mutated string) mutant {
		return mutant{name: name, pkg: pkg, test: test, plain: plain, edits: []edit{{file: file, old: old, new: mutated}}}
	}
	return []mutant{
		m("rule-left-out", kernel, "TestGolden", true, "rules/snat.go", "when(inSet(SetInside, Destination)).then(Return{}),", ""),
		m("ports-are-no-params", "./pkg/dataplane/rules", "TestParamsAreComparedWhole", true, "content.go", " && p.RandomPorts == o.RandomPorts", ""),
		m("tree-mixes-indices", kernel, "TestPropertyIndicesAreReadBackFromRules", false, "rules/snat.go", "(1<<shift - 1)", "(1<<(shift+4) - 1)"),
		m("old-jumps-stay", iptables, "TestPropertyJumpsFindTheirPlaces", false, "transaction.go",
			"foreign := slices.DeleteFunc(slices.Clone(specs), leadsToOwnChain)", "foreign := slices.Clone(specs)"),
		m("last-jump-behind-reject", iptables, "TestPropertyJumpsFindTheirPlaces", false, "transaction.go",
			"for end > 0 && isFinal(foreign[end-1]) {", "for end > 0 && false {"),
		m("comment-hides-the-last-rule", iptables, "TestRulesThatDropEverything", true, "transaction.go", "spec = withoutComments(spec)", "_ = withoutComments"),
		m("incompatible-table-is-empty", kernel, "TestTableThatIPTablesCannotRead", true, "iptables/driver.go", "len(unreadable) > 0 {", "len(unreadable) > 99 {"),
		m("unused-backend-is-needed", kernel, "TestBackendThatCannotBeRead", true, "backend.go", "if table || !d.needs(b, err) {", "if table {"),
		m("failed-forget-is-lost", kernel, "TestWhatWasNotForgottenIsForgottenLater", true, "apply_perform.go", "e.d.swept, e.d.unforgotten = err == nil, nil", "e.d.swept, e.d.unforgotten = true, nil"),
		m("failed-forget-forgets-the-route", kernel, "TestWhatWasNotForgottenIsForgottenLater", true, "apply_perform.go", "e.d.unforgotten = &e.staleness", "e.d.unforgotten = nil"),
		m("host-is-a-pod", kernel, "TestSmallMarksOfOthersAreNotOurs", true, "bpf/guard_program.go", `asm.JEq.Imm(asm.R1, 0, "own"),`, `asm.JEq.Imm(asm.R1, -1, "own"),`),
		m("host-takes-the-ways-of-pods", kernel, "TestSmallMarksOfOthersAreNotOurs", true, "routing/rules.go", "rules := []*netlink.Rule{past, own, back, bound}", "rules := []*netlink.Rule{past, back, bound}\n\t_ = own"),
		m("replies-to-known-networks-alone", kernel, "TestPodsLeaveWithTheirEgressIP", true, "routing/routing.go", "for _, table := range []int{tableRemote, tableReturn} {",
			"for _, dst := range p.Inside {\n\t\trs = append(rs, route{table: tableReturn, dst: dst, kind: unix.RTN_UNICAST, link: p.Device, gateway: p.NextHop})\n\t}\n\tfor _, table := range []int{tableRemote} {"),
		m("way-back-looks-at-marks", kernel, "TestPodsLeaveWithTheirEgressIP", true, "routing/rules.go", "rules := []*netlink.Rule{past, own, back, bound}", "rules := []*netlink.Rule{past, own, bound}\n\t_ = back"),
		m("sight-holds-for-ever", kernel, "TestWhatWorkedCountsForAWhile", true, "apply.go", "return monotonic()-s.at < sightHolds", "return true"),
		m("closed-chains-are-open", kernel, "TestWarningsNameWhatOthersHave", true, "nftables/foreign.go", "c.Closed = c.Closed || dropsAll(r)", "_ = dropsAll"),
		m("named-devices-are-not-seen", kernel, "TestWarningsNameWhatOthersHave", true, "nftables/foreign.go", `c.Hook == "forward" && namesDevice(r, q.Device)`, "false"),
		m("own-ways-only", kernel, "TestWarningsNameWhatOthersHave", true, "look.go", "if asked[p.Kind] > 0 && rule == nil || ways >= maxWays {", "if asked[p.Kind] > 0 || rule != nil || ways >= maxWays {"),
		m("found-first-is-worst", warnings, "TestPropertyTidy", false, "warning.go", "cmp.Or(severity(a.Reason)-severity(b.Reason), ", "cmp.Or("),
		m("endless-warnings", warnings, "TestPropertyTidy", false, "warning.go", "if more := len(out) - maxWarnings; more > 0 {", "if more := len(out) - maxWarnings; more > 99 {"),
		m("unknown-is-good", warnings, "TestWhatIsUnknownIsSaid", true, "facts.go", "for _, err := range f.Unknown {", "for _, err := range f.Unknown[:0] {"),
		m("every-port-is-open", iptables, "TestRulesThatOpenAPort", true, "table.go", "low <= port && port <= high", "low <= high"),
		m("setting-of-another-number", "./pkg/dataplane/sysctl", "TestSettingIsChangedWhereItDiffers", true, "sysctl.go", `Setting{"rp_filter", 8}`, `Setting{"rp_filter", 9}`),
		m("overlay-does-not-forward", "./pkg/dataplane/overlay", "TestOverlayForwardsWhereTheHostDoes", true, "overlay.go", `err != nil || forwards != "1" {`, `err != nil || forwards != "2" {`),
		m("settings-by-file", kernel, "TestRightsOfTheChartAreEnough", true, "sysctl/sysctl.go", "req := nl.NewNetlinkRequest(unix.RTM_SETLINK, unix.NLM_F_ACK)",
			"if err := os.WriteFile(OfDevice(device, s.name), []byte(fmt.Sprint(want)), 0o644); err == nil || err != nil {\n\t\treturn 1, err\n\t}\n\treq := nl.NewNetlinkRequest(unix.RTM_SETLINK, unix.NLM_F_ACK)"),
		m("matches-not-sorted", iptables, "TestKernelShowsWhatWasRendered", false, "render.go",
			"return cmp.Compare(printOrder(a), printOrder(b))", "return 0 * cmp.Compare(printOrder(a), printOrder(b))"),
		m("own-jumps-are-foreign", iptables, "TestParseSave", false, "table.go", "if !leadsToOwnChain(spec) {\n\t\tt.Foreign++", "if true {\n\t\tt.Foreign++"),
		m("old-backend-goes-first", kernel, "TestBackendIsReplacedUnderTraffic", true, "apply_order.go",
			"c.table(phaseRewrite, b, name, table, rest[name])", "c.table(phaseGrow, b, name, table, rest[name])"),
		m("sets-of-old-backend-stay", kernel, "TestBackendIsReplacedUnderTraffic", true, "apply_order.go", "if len(obs.former.ipsets) > 0 {", "if false {"),
		m("former-pods-are-unknown", kernel, "TestBackendIsReplacedUnderTraffic", true, "apply_order.go",
			"if len(obs.former.pods)+len(obs.former.locked) == 0 ||", "if true ||"),
		m("dormant-table-is-in-effect", kernel, "TestBackendChangeSurvivesDeaths", true, "apply_order.go",
			"usesTable(in.use) && obs.table.InEffect() {", "usesTable(in.use) && len(obs.table.Chains) > 0 {"),
		m("former-members-are-taken-for-ours", kernel, "TestBackendChangeSurvivesDeaths", true, "apply_order.go",
			"usesTable(in.use) && obs.table.InEffect() {\n\t\treturn obs\n", "usesTable(in.use) && len(obs.table.Chains) > 0 {\n\t\treturn obs.withFormer()\n"),
		m("warning-of-one-pass", kernel, "TestUnreadableIPTablesIsAWarningInEachPass", true, "backend.go",
			"return d.iptablesSeen, d.iptablesWarnings, nil", "return d.iptablesSeen, nil, nil"),
		m("unowned-content-is-believed", nftables, "TestContentIsReadAgainOnceOwned", true, "read.go", "defer d.Forget()", ""),
		m("any-form-will-do", nftables, "TestSetOfAnotherForm", true, "driver.go", "if len(content.otherForm) > 0 {", "if false {"),
		m("contained-networks-are-forgotten", nftables, "TestPropertyTheKernelHasWhatWasPut", false, "driver.go",
			"stillInside(d.inside, content.Inside())", "stillInside(nil, content.Inside())"),
		m("zones-are-ours", "./pkg/dataplane/conntrack", "TestZonesAreLeftAlone", true, "conntrack.go", "return e, !zone && ", "return e, (zone || true) && "),
		m("table-without-owner", kernel, "TestNobodyElseChangesOurTable", true, "nftables/read.go", "d.newTable(t, tableOwner|tablePersist)", "d.newTable(t, 0)"),
		m("inner-packet-is-masqueraded", kernel, "TestPodsLeaveWithTheirEgressIP", true, "rules/snat.go",
			"when(b.toOverlay).then(KeepSource{}),", "when(b.toOverlay).then(Return{}),"),
		m("own-addresses-are-outside", kernel, "TestInsideTheClusterNothingChanges", true, "routing/rules.go",
			"{rulePriorityLocal, unix.RT_TABLE_LOCAL, m.Remote()},", ""),
		m("overlay-at-any-address", kernel, strangers, true, "rules/filter.go", "when(port, notInSet(SetHosts, Destination)).then(Drop{}),\n\t\t)\n\t}\n", ")\n\t}\n"),
		m("overlay-takes-what-was-translated", kernel, strangers, true, "rules/filter.go", "rules = append(rules, when(UDPPort(b.OverlayPort), Original).then(Drop{}))", ""),
		m("services-lead-to-the-overlay", kernel, strangers, true, "rules/content.go",
			"rules = append(rules, when(UDPPort(b.OverlayPort), Original, inSet(SetHosts, Destination)).then(Drop{}))", ""),
		m("pods-send-to-overlays-outside", kernel, strangers, true, "rules/content.go",
			"when(port, inSet(SetInside, Source), notInSet(SetHosts, Source), notInSet(SetInside, Destination)).then(Drop{}),", ""),
		m("begun-outside-goes-on-inside", kernel, "TestAddressBecomesInside", true, "apply_flows.go", "|| way != 0 && inside ||", "||"),
		m("begun-inside-goes-on-outside", kernel, "TestAddressBecomesInside", true, "apply_order.go",
			"if c.networks(phaseShrink, delMember, obs.inside, want.inside) {", "if c.networks(phaseShrink, delMember, obs.inside, want.inside) && false {"),
		m("outer-source-left-to-the-kernel", kernel, "TestOverlayHasTheHostsOwnSource", true, "bpf/programs.go", "at+tunnelLocal, asm.R1", "at+tunnelLocal+4, asm.R1"),
		m("former-outer-source-stays", kernel, "TestOverlayHasTheHostsOwnSource", true, "dataplane.go", "d.programs != nil && d.source == source", "d.programs != nil && d.source.IsValid() == source.IsValid()"),
		m("any-source-will-do", kernel, "TestOverlayHasTheHostsOwnSource", true, "overlay_source.go", "way.Source.IsValid() && way.Source != r.state.HostIP", "way.Source.IsValid() && way.Source != r.state.HostIP && false"),
		m("ipvs-inherits-marks", kernel, "TestServicesByIPVS", true, "rules/content.go", "inSet(SetPods, Source)).then(SetMark{0, all})}", "inSet(SetPods, Source)).then(Return{})}"),
		m("ipvs-leaves-with-the-nodes-address", kernel, "TestServicesByIPVS", true, "rules/filter.go",
			"when(state, inSet(SetLocked, Source), notInSet(SetInside, Destination)).then(Drop{})", "when(state, inSet(SetLocked, Source), notInSet(SetInside, Destination)).then(Return{})"),
		m("ipvs-leads-to-the-overlay", kernel, "TestServicesByIPVS", true, "rules/filter.go",
			"when(port, inSet(SetHosts, Destination), inSet(SetPods, Source)).then(Drop{})", "when(port, inSet(SetHosts, Destination), inSet(SetPods, Source)).then(Return{})"),
		m("changed-value-is-kept", nftables, "TestPropertyTheKernelHasWhatWasPut", false, "members.go",
			"gone[key] = before // an element's value cannot be changed", "continue"),
		m("swallowed-network-is-lost", nftables, "TestPropertyTheKernelHasWhatWasPut", false, "members.go", "after := maps.Clone(d.inside)\n\tfor _, p := range networks {\n\t\tafter[p]",
			"after := map[netip.Prefix]struct{}{}\n\tfor _, p := range disjoint(slices.Collect(maps.Keys(d.inside))) {\n\t\tafter[p] = struct{}{}\n\t}\n\tfor _, p := range networks {\n\t\tafter[p]"),
		m("nested-networks-stay", nftables, "TestPropertyIntervalsAreReadBack", false, "sets.go", "!out[len(out)-1].Overlaps(p)", "out[len(out)-1] != p"),
		m("negation-ignored", tracer, "TestMatches", true, "rules.go", "return is(h, p) != negated", "return is(h, p) || negated"),
		m("unknown-match-skipped", tracer, "TestUnknownWordsAreErrors", true, "rules.go",
			`return nil, unknown("match", option)`, "return func(*Host, *Packet) bool { return true }, nil"),
	}
}
