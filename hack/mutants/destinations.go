package main

// destinationMutants are mistakes about the destinations that egress IPs apply to.
func destinationMutants() []mutant {
	const (
		reached = "TestExcludedNetworksAreReachedAsWithoutUs"
		leaks   = "TestNoPacketLeaksWhileNetworksAreExcluded"
		counts  = "TestMostSpecificDestinationCounts"
		wrong   = "TestProblemsOfDestinations"
	)
	packets := func(name, test, file, old, mutated string) mutant {
		return mutant{name: name, pkg: kernel, test: test, plain: true, edits: []edit{{file: file, old: old, new: mutated}}}
	}
	decides := func(name, test, file, old, mutated string) mutant {
		return mutant{name: name, pkg: brain, test: test, plain: true, edits: []edit{{file: file, old: old, new: mutated}}}
	}
	return []mutant{
		packets("excluded-is-marked", reached, "rules/marking.go", "rules = append(rules, when(b.marked(), PairInSet{SetExcluded}, notInSet(SetInside, Destination)).then(SetMark{0, b.allBits()}))", ""),
		packets("excluded-is-held", reached, "rules/filter.go", "\trules = append(rules, b.excludedThen(Return{})...)\n\trules = append(rules, b.refused()...)", "\trules = append(rules, b.refused()...)"),
		packets("excluded-is-lost", reached, "rules/marking.go", "\trules = append(rules, b.excludedThen(Return{})...)\n", ""),
		packets("excluded-of-ipv6-is-closed", reached, "rules/ipv6.go", "rules = append(rules, ruleOfIPv6(r))\n\t}\n\tvar unmarked", "_ = r\n\t}\n\tvar unmarked"),
		packets("excluded-goes-on-its-way", leaks, "rules/content.go", "m = append(m, b.ofNoWay())", "_ = m"),
		packets("excluded-is-not-forgotten", "TestConnectionsToExcludedNetworksEnd", "apply_flows.go", "inside := s.isInside(f.Dest) || slices.ContainsFunc(s.excluded[f.Source], func(p netip.Prefix) bool { return p.Contains(f.Dest) })", "inside := s.isInside(f.Dest)"),
		packets("other-connections-of-the-pod-end", "TestConnectionsToExcludedNetworksEnd", "apply_flows.go", "return p.Contains(f.Dest) })", "return p.IsValid() })"),
		packets("included-before-the-way", leaks, "excluded.go", "c.exclude(phaseGrow, pod, before[pod], all)", "c.exclude(phaseGrow, pod, before[pod], after[pod])"),
		packets("missing-types-are-asked-for-again", "TestMissingTypesAreAskedForOnceInAWhile", "sets.go", "missing.err != nil && !missing.due()", "false"),
		packets("former-exclusions-stay", "TestExclusionsThatWereNotInEffect", "excluded.go", "in.sweep || !locked ||", "!locked ||"),
		packets("exclusions-of-others-stay", "TestExclusionsThatWereNotInEffect", "excluded.go", "in.sweep || !locked ||", "in.sweep ||"),
		packets("excluded-without-a-set", "TestAllElseWorksWithoutExcludedNetworks", "ipv6.go", "s = withoutExcluded(s)", "_ = s"),
		packets("excluded-by-others-stays", "TestExcludedNetworksAreRepaired", "nftables/excluded.go", "found[pod] = append(found[pod], netip.Prefix{})", ""),
		decides("least-specific-counts", counts, "destinations.go", "return a.network.Bits() - b.network.Bits() })", "return b.network.Bits() - a.network.Bits() })"),
		decides("cluster-before-group", counts, "destinations.go", "\tif len(included) > 0 || d != nil", "\tslices.Reverse(entries)\n\tif len(included) > 0 || d != nil"),
		decides("first-groups-destinations-alone", counts, "destinations.go", "append([]string{pod.group()}, pod.Others...)", "[]string{pod.group()}"),
		{
			name: "excluded-destinations-are-no-news", pkg: controller, test: "TestAnnotationsThatAreNews", plain: true,
			edits: []edit{{file: "predicates.go", old: "before.Annotations[v1.AnnotationExcludeCIDRs] == after.Annotations[v1.AnnotationExcludeCIDRs] &&", new: ""}},
		},
		{
			name: "included-destinations-of-egressips-are-no-news", pkg: controller, test: "TestAnnotationsThatAreNews", plain: true,
			edits: []edit{{file: "egressips.go", old: "v1.AnnotationIncludeCIDRs, v1alpha1", new: "v1alpha1"}},
		},
		decides("half-an-include-list", wrong, "objects_destinations.go", "if !whole {", "if !whole && len(include) == 0 {"),
		decides("mistakes-let-others-decide", "TestDestinations$", "objects_destinations.go", "if !whole {\n\t\treturn &Destinations{All: true}", "if !whole {\n\t\treturn &Destinations{Exclude: exclude}"),
		decides("too-many-destinations", wrong, "objects_destinations.go", "if len(networks) == MaxDestinations {", "if len(networks) > MaxDestinations {"),
		decides("too-many-excluded", wrong, "objects_destinations.go", "len(set.Prefixes()) <= MaxExcluded", "len(set.Prefixes()) <= 100*MaxExcluded"),
	}
}
