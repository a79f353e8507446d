package main

// egressIPMutants are mistakes about EgressIPs.
func egressIPMutants() []mutant {
	m := func(name, pkg, test, file, old, mutated string) mutant {
		return mutant{name: name, pkg: pkg, test: test, plain: true, edits: []edit{{file: file, old: old, new: mutated}}}
	}
	const (
		source   = "./internal/egressips"
		agents   = "./pkg/agent"
		groups   = "TestGroupsOfPods"
		labelled = "TestHostsWithTheLabel"
	)
	return []mutant{
		m("last-egressip-counts", brain, groups, "group.go", `case pod.Group == "":`, `case true:`),
		m("empty-egressip-selects", brain, groups, "group.go", "c.Groups[i].Selects != nil && c.Groups[i].Requesting()", "c.Groups[i].Selects != nil"),
		m("unknown-namespace-has-no-egressip", brain, groups, "group.go", "\t\tif !present {\n\t\t\tcontinue\n\t\t}\n", "\t\t_ = present\n"),
		m("netnamespace-overlap-is-not-told", brain, groups, "group.go", `ok && pod.Group != "" && n.Requesting()`, `ok && pod.Group != "" && !n.Requesting()`),
		m("selectors-are-joined", brain, groups, "group.go", "case !g.Selects.pods.Matches(pod.Labels):", "case false:"),
		m("bad-selector-is-ready", brain, "TestSelectorThatCannotBeUsed", "resolve.go", "r.Groups[n].ofEgressIP() && r.Groups[n].Selects == nil", "false"),
		m("broken-selector-lets-go", brain, "TestSelectorThatBreaks", "objects_egressips.go", "before != nil && newSelection(*before) != nil", "before != nil && newSelection(*before) == nil"),
		m("former-selectors-count", brain, "TestSelectorThatBreaks", "objects_egressips.go", "if newSelection(wanted) != nil {", "if object.Status.Selectors == nil && newSelection(wanted) != nil {"),
		m("selectors-are-not-noted", controller, "TestEgressIPSelectorBreaks", "egressip_status.go", ", Selectors: egress.SelectorsInUse(e)}", "}"),
		m("selected-pods-are-unmanaged", brain, "TestSelectedPodWithoutNetNamespace", "decide.go", `p.Group == "" && !managed`, `!managed`),
		m("overlaps-are-forgotten", brain, "TestOverlapsAreReported", "memo.go", " && maps.Equal(overlapsOf(before), overlapsOf(now))", ""),
		m("ignored-is-ready", brain, "TestOverlapsAreReported", "resolve.go", "if overlaps.ignored.pods > 0 {", "if overlaps.ignored.pods > 9 {"),
		m("labels-are-for-everyone", brain, labelled, "resolve_eligibility.go", "\tif egressIPs {\n\t\tranges[forEgressIPs] = ranges[forNamespaces]\n", "\tif egressIPs || host.Assignable {\n\t\tranges[forNamespaces] = host.masked()\n"),
		m("assigned-beside-a-sibling", brain, labelled, "allocate_placement.go", "if ip, ok := p.byHand[hostGroup{h, r.group}]; ok {", "if ip, ok := p.byHand[hostGroup{h, r.group}]; ok && false {"),
		m("by-hand-is-no-load", brain, labelled, "allocate_placement.go", "\t\t\tp.load[h] = host.byHand()\n", ""),
		m("labelled-out-of-network", brain, "TestPropertyConverges", "allocate.go", "return true\n\t}\n\treturn inRanges(h, ip)", "return true\n\t}\n\treturn egressIP || inRanges(h, ip)"),
		m("egressips-on-the-other-list", brain, "TestPropertyConverges", "allocate.go", "case a.Groups[address.groups[0]].ofEgressIP():", "case a.Groups[address.groups[0]].ofEgressIP() && !a.Hosts[h].Automatic:"),
		m("netnamespace-before-egressip", brain, "TestPropertyNoPacketLeavesWithAnotherAddress", "planfor.go", "p.Group(pod.group())", "p.Group(pod.Namespace)"),
		m("selections-are-remembered", brain, "TestPropertyMemoryChangesNothing", "memo.go", "n.Selects.Equal(other.Selects) &&", ""),
		m("unanswered-is-known", source, "TestSource", "source.go", "\t\t\tpause = retryAfter\n\t\tcase !found &&", "\t\t\tpause = retryAfter\n\t\t\ts.know(false)\n\t\tcase !found &&"),
		m("never-looked-at-again", source, "TestSource", "source.go", "case !found && s.Served():", "case !found && s.Served() && !s.Known():"),
		m("foreign-definition-is-ours", source, "TestSource", "source.go", "crd.Annotations[ovnv1.AnnotationServedBy] != ovnv1.ServedBy", "false"),
		m("overlaps-are-not-compared", agents, "TestEachFieldOfTheStatusCounts", "status.go", "\t\tslices.Equal(s.agent.Overlaps, t.agent.Overlaps) &&\n", ""),
		m("labels-of-the-sandbox", agents, "TestLabelsOfPods", "labels.go", "pod.labels = of\n", "_ = of\n"),
		m("labels-end-with-the-object", agents, "TestLabelsOfPods", "labels.go", "pod.labels, known[pod.uid] = of, of", "_ = of"),
	}
}
