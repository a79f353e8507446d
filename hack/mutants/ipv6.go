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
	)
	return []mutant{
		in(programs, "families-share-networks", "TestMapsKeepTheFamiliesApart", "maps.go", "if n.IPv6 {\n\t\treturn m.ip6.hosted", "if n.IPv6 && m == nil {\n\t\treturn m.ip6.hosted"),
		in(programs, "ports-behind-no-header", flows, "programs.go", "asm.Add.Imm(asm.R1, 8),", "asm.Add.Imm(asm.R1, 0),"),
		in(programs, "later-fragments-have-ports", flows, "programs.go", `asm.JNE.Imm(asm.R1, 0, "later6"),`, `asm.JNE.Imm(asm.R1, 0, "ports6"),`),
		in(programs, "guard-ignores-ipv6", guard, "guard_program.go", "if marks6 != nil {", "if marks6 != nil && marks == nil {"),
		in(programs, "nobody-finds-neighbours-by-egress-ip", guard, "guard_program.go", `asm.JGT.Imm(asm.R1, icmp6NDLast, "drop"),`, `asm.JGT.Imm(asm.R1, icmp6NDFirst, "drop"),`),
		in(tracked, "connections-are-all-ipv4", "TestFlowsAreDeletedByWhatTheyReallyAre", "conntrack.go", "msg[nl.SizeofNfgenmsg:]...), msg[0]", "msg[nl.SizeofNfgenmsg:]...), unix.AF_INET"),
		in(segment, "solicitations-go-nowhere", "TestNeighbourDiscoveryFindsAnotherOwner", "nd.go", "13: to[13], 14: to[14], 15: to[15]}", "13: to[13], 14: to[14]}"),
		in(segment, "announcements-do-not-override", "TestNeighbourAdvertisementMovesAnAddress", "nd.go", "ndRouter | ndOverride,", "ndRouter,"),
		in(uplink, "ipv6-egress-ip-is-preferred", "TestEgressAddressOfIPv6", "ipv6.go", "life := binary.NativeEndian.AppendUint32(nil, 0)", "life := binary.NativeEndian.AppendUint32(nil, math.MaxUint32)"),
		in(uplink, "anybodys-ipv6-is-ours", "TestAddressOfIPv6OfOthersIsRefused", "ipv6.go", "h.ours = h.form.protocol == protocol", "h.ours = h.form.protocol == protocol || h.addr.LinkIndex > 1"),
		in("/routing", "ipv6-has-no-end", "TestRoutesOfOurTablesOnly", "routing.go", "rs := []route{{table: tableRemote, dst: everywhere, kind: unix.RTN_UNREACHABLE, metric: unreachableMetric}}", "rs := []route{{table: tableRemote, dst: everywhere, kind: unix.RTN_UNREACHABLE, metric: unreachableMetric}}[metric/metric6:]"),
	}
}
