package main

// furtherMutants are mistakes about egress IPs of other interfaces than the uplink, in the
// kernel.
func furtherMutants() []mutant {
	const kernel = "./pkg/dataplane"
	m := func(name, pkg, test, file, old, mutated string) mutant {
		return mutant{name: name, pkg: pkg, test: test, plain: true, edits: []edit{{file: file, old: old, new: mutated}}}
	}
	drawn := func(name, old, mutated string) mutant {
		planted := m(name, kernel, "TestPropertyWaysKeepTheirTables", "further.go", old, mutated)
		planted.plain = false
		return planted
	}
	routes := func(name, test, old, mutated string) mutant {
		return m(name, kernel+"/routing", test, "ways.go", old, mutated)
	}
	routes2 := func(name, test, file, old, mutated string) mutant {
		return m(name, kernel+"/routing", test, file, old, mutated)
	}
	return []mutant{
		routes("ways-have-no-inside", "TestWaysOfEgressIPs", "if dst.Addr().BitLen() == bits {\n\t\t\t\trs = append(rs, route{table: w.Table, dst: dst, kind: unix.RTN_THROW", "if false {\n\t\t\t\trs = append(rs, route{table: w.Table, dst: dst, kind: unix.RTN_THROW"),
		routes("ways-have-no-end", "TestWaysOfEgressIPs", "\t\trs = append(rs, route{table: w.Table, dst: everywhere, kind: unix.RTN_UNREACHABLE, metric: unreachableMetric})\n", ""),
		routes("ways-for-the-host-itself", "TestWaysOfEgressIPs", "rules = append(rules, own)", "_ = own"),
		routes("other-tables-come-first", "TestGatewaysOfInterfaces", "other(a)-other(b)", "0*(other(a)-other(b))"),
		routes("our-routes-are-the-hosts", "TestGatewaysOfInterfaces", "protocol == routeProtocol ||", "protocol == 0 ||"),
		m("interfaces-without-carrier", kernel+"/address", "TestFurtherInterfaces", "further.go", "a.RawFlags&unix.IFF_RUNNING != 0 &&", ""),
		m("egress-ips-make-networks", kernel+"/address", "TestFurtherInterfaces", "ipv6.go", "h.addr.Scope == int(netlink.SCOPE_UNIVERSE) &&", ""),
		m("guard-knows-no-interfaces", kernel+"/bpf", "TestGuardOfEgressIPsOfOneInterface", "guard_pins.go", "if !may {", "if !may && link < 0 {"),
		m("guard-takes-any-vlan", kernel+"/bpf", "TestGuardBelowAVLAN", "guard_pins.go", "\t\tasm.JNE.Reg(asm.R2, asm.R3, \"drop\"),\n", ""),
		m("guard-takes-untagged-packets", kernel+"/bpf", "TestGuardBelowAVLAN", "guard_pins.go", "return guarded{Mark: own, Tag: tag}", "_ = tag\n\treturn guarded{Mark: own}"),
		m("vlans-have-no-tags", kernel, "TestInterfacesBelow", "below.go", "tag = bpf.VLANTag(vlan.VlanId)", "_ = vlan"),
		m("guards-below-drop", kernel, "TestEgressIPOfAMacvlanOnTheUplink", "below.go", "if pass(a.ParentIndex, tag) {", "if false && pass(a.ParentIndex, tag) {"),
		m("errors-leave-anywhere", kernel+"/bpf", "TestGuardOfEgressIPsOfOneInterface", "guard_program.go", "if pins {", "if false {"),
		m("further-egress-ips-leave-by-the-uplink", kernel, "TestEgressIPOfASecondNetwork", "apply_round.go", "Indices: r.wayIndices()", "Indices: nil"),
		m("filters-stay-strict", kernel, "TestEgressIPOfASecondNetwork", "filter.go", "strict := max(own, all) == strictFilter", "strict := max(own, all) == 99"),
		m("guard-lets-further-egress-ips-leave", kernel, "TestSecondInterfaceInTrouble", "further.go", "pin(h.IP, place.Link.Attrs().Index)", "_ = place\n\t\t\tdelete(pins, h.IP)"),
		m("further-interfaces-are-not-watched", kernel, "TestSecondInterfaceInTrouble", "news.go", " || n.ofFurther(data)", ""),
		m("loose-filters-are-noted", kernel, "TestFiltersGetBackWhatTheyWere", "filter.go", "strict := max(own, all) == strictFilter", "strict := max(own, all) > 0"),
		m("filters-of-others-are-tightened", kernel, "TestFiltersGetBackWhatTheyWere", "filter.go", "if known && own == looseFilter {", "if known && own <= looseFilter {"),
		m("no-interfaces-are-not-known", kernel, "TestNetworksOfOtherInterfaces", "further.go", "\tr.report.NetworksKnown = r.uplinkErr == nil\n\tif len(r.d.cfg.Interfaces) == 0 {\n", "\tif len(r.d.cfg.Interfaces) == 0 {\n\t\tr.report.NetworksKnown = false\n"),
		m("bridges-suit", kernel, "TestInterfacesThatSuit", "further.go", `"macvlan"}`, `"macvlan", "bridge"}`),
		m("ways-end-before-marks", kernel, "TestWaysOfEgressIPsThatLeave", "apply_round.go", "r.ensureRoutes(r.leavingMarks())", "r.ensureRoutes(nil)"),
		m("unknown-places-are-the-uplink", kernel, "TestWaysOfEgressIPsThatLeave", "further.go", "was[ip] = -1 //", "delete(was, ip) //"),
		m("egress-ips-elsewhere-need-the-uplink", kernel, "TestSecondInterfaceWithoutAnUplink", "further.go", "if len(r.d.cfg.Interfaces) == 0 {", "if r.uplinkErr != nil || len(r.d.cfg.Interfaces) == 0 {"),
		m("one-way-is-all-ways", kernel, "TestOneBadGateway", "routing/ways_errors.go", "if table < firstWay {", "if table > 0 {"),
		m("notes-are-for-ever", kernel, "TestFiltersGetBackWhatTheyWere", "filter.go", "return n.Link == a.Index && n.Was == was })", "return n.Link == a.Index })"),
		m("notes-are-not-put-again", kernel, "TestFiltersWhoseNoteOthersDelete", "filter.go", "\tf[a.Index] = was\n", ""),
		m("notes-go-by-name", kernel, "TestFiltersWhoseNoteOthersDelete", "filter.go", "return nl.LinkByIndex(n.Link)", "return nl.LinkByName(n.Device)"),
		routes2("tables-of-ways-stop-all", "TestTablesOfWaysThatOthersUse", "routing.go", "cmp.Or(inUse[tableRemote], inUse[tableReturn])", "cmp.Or(inUse[tableRemote], inUse[tableReturn], inUse[firstWay])"),
		drawn("ways-have-tables-of-others", "\tmaps.DeleteFunc(r.d.wayTables, func(_ wayKey, table int) bool { return others[table] })\n", ""),
		m("lost-addresses-make-no-news", kernel, "TestNewsOfOtherInterfaces", "elsewhere.go", "return ok && (n.Link == e.uplink || e.links[n.Link])", "return ok && n.Link < 0"),
		m("other-tables-make-no-news", kernel, "TestSteadyPassFindsChangesElsewhere", "elsewhere.go", "return len(e.links) > 0 && e.leadsOut(data)", "return false"),
		m("settings-make-no-news", kernel, "TestSteadyPassFindsChangesElsewhere", "elsewhere.go", "case unix.RTM_NEWNETCONF:", "case unix.RTM_DELNETCONF:"),
		routes2("one-next-hop-only", "TestGatewaysOfRoutesWithSeveralNextHops", "read.go", "case typ == unix.RTA_MULTIPATH:", "case typ == unix.RTA_MULTIPATH && len(value) == 0:"),
		routes2("dead-next-hops-are-gateways", "TestGatewaysOfRoutesWithSeveralNextHops", "read.go", " && hop.Flags&(unix.RTNH_F_DEAD|unix.RTNH_F_LINKDOWN) == 0", ""),
		m("standbys-come-first", kernel, "TestHostedComeBeforeStandbys", "further.go", "return rank(a) - rank(b)", "return 0 * (rank(a) - rank(b))"),
		drawn("ways-share-tables", "!taken[table]", "true"),
		drawn("ways-change-tables", "maps.DeleteFunc(r.d.wayTables, func(key wayKey, _ int) bool { return !wanted[key] })", "clear(r.d.wayTables)"),
	}
}

// networkChoiceMutants are mistakes about which network an egress IP is in.
func networkChoiceMutants() []mutant {
	m := func(name, test, file, old, mutated string) mutant {
		return mutant{name: name, pkg: brain, test: test, plain: true, edits: []edit{{file: file, old: old, new: mutated}}}
	}
	const choice = "TestNetworkOfAnEgressIP"
	return []mutant{
		m("widest-network-wins", choice, "further.go", "n.CIDR.Bits() > found.CIDR.Bits()", "n.CIDR.Bits() < found.CIDR.Bits()"),
		m("last-interface-wins", choice, "further.go", "n.CIDR.Bits() > found.CIDR.Bits()", "n.CIDR.Bits() >= found.CIDR.Bits()"),
		m("uplink-comes-last", choice, "further.go", " || slices.ContainsFunc(h.Networks, func(n netip.Prefix) bool { return n.Contains(ip) })", ""),
		m("gateway-becomes-an-egress-ip-elsewhere", choice, "further.go", "if ip == n.Gateway {", "if false {"),
		m("groups-overrule-routes", choice, "further.go", "if n.Gateway.IsValid() {", "if n.Gateway.IsValid() && !g.Gateways[FamilyOf(ip)].IsValid() {"),
		m("gateways-of-groups-are-anywhere", "TestGatewaysOfGroupsThatCanBe", "further.go", "if own || !reached {", "if own || !reached && !ip.IsValid() {"),
		m("gateways-of-groups-are-the-host", "TestGatewaysOfGroupsThatCanBe", "further.go", "if own || !reached {", "if own && !ip.IsValid() || !reached {"),
		m("clouds-have-further-networks", "TestCloudsHaveNoFurtherNetworks", "objects_networks.go", "!h.Clouded && object.Status.Agent != nil", "object.Status.Agent != nil"),
		m("clouds-of-the-kernel", "TestCloudsHaveNoFurtherNetworks", "decide.go", "in.NetworksKnown && !c.Hosts[i].Clouded", "in.NetworksKnown"),
		m("ranges-end-at-the-uplink", "TestEgressIPsFollowFurtherNetworks", "resolve_eligibility.go", "networks := host.allNetworks()", "networks := host.Networks"),
		m("further-addresses-are-free", "TestAddressesOfHostsInFurtherNetworks", "host_addresses.go", "if count[cidr] > 1 {", "if count[cidr] > 99 {"),
		{name: "index-of-other-further-networks", pkg: brain, test: "TestPropertyMemoryChangesNothing", edits: []edit{{file: "memo.go", old: "h.sameFurtherNetworks(other) && h.SharesSegment", new: "h.SharesSegment"}}},
		m("too-many-together-are-not-named", "TestTooManyNetworksTogetherAreNamed", "destinations.go", "\t\te.tooMany[strings.Join(objects, \", \")] = true\n", ""),
		m("requests-pass-on-for-ever", "TestRequestsPassAnnotationsOn", "objects_pools.go", "case slices.Contains(before, key):", "case has && slices.Contains(before, key):"),
		{name: "statuses-need-all-fields", pkg: controller, test: "TestStatusWithOlderDefinitions", plain: true, edits: []edit{{file: "../internal/statusapply/statusapply.go", old: "if !left {", new: "if !left || len(missing) > 0 {"}}},
		{name: "pools-have-no-gateways", pkg: controller, test: "TestPools", plain: true, edits: []edit{{file: "pools.go", old: "if pool := v.pool(g.Pool); pool != nil {", new: "if pool := v.pool(g.Pool); pool != nil && false {"}}},
		{name: "request-status-unlocked", pkg: controller, test: "TestToldOnce", plain: true, edits: []edit{{file: "pools.go", old: "client.MergeFromWithOptions(q, client.MergeFromWithOptimisticLock{})", new: "client.MergeFrom(q)"}}},
		{name: "pool-status-unlocked", pkg: controller, test: "TestToldOnce", plain: true, edits: []edit{{file: "pools.go", old: "client.MergeFromWithOptions(p, client.MergeFromWithOptimisticLock{})", new: "client.MergeFrom(p)"}}},
		{name: "unknown-networks-are-none", pkg: agent, test: "TestPublishKeepsFurtherNetworks", plain: true, edits: []edit{{file: "publish.go", old: "if o.decision.networksUnknown {", new: "if false {"}}},
	}
}
