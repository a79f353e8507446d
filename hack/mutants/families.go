package main

// familyMutants are mistakes about egress IPs of two families.
func familyMutants() []mutant {
	m := func(name, test, file, old, mutated string) mutant {
		return mutant{name: name, pkg: brain, test: test, edits: []edit{{file: file, old: old, new: mutated}}}
	}
	plain := func(name, file, old, mutated string) mutant {
		planted := m(name, "TestFamilies", file, old, mutated)
		planted.plain = true
		return planted
	}
	apart := func(name, file, old, mutated string) mutant {
		planted := plain(name, file, old, mutated)
		planted.test = "TestNamespaceWhoseEgressHostsAreOutOfReach"
		return planted
	}
	const packets, alone, placed = "TestPropertyNoPacketLeavesWithAnotherAddress", "TestPropertyFamiliesAreDecidedByThemselves", "TestPropertyConverges"
	return []mutant{
		m("other-family-leaves", packets, "family.go", "n.Requesting() && n.Other == OtherDropped", "n.Requesting() && n.Other == OtherNode"),
		m("other-familys-way", packets, "family_join.go", "return onlyActive(r.Active, FamilyOf(ip))", "return r.Active"),
		plain("families-share-netid", "resolve_index.go", "(len(n.Requests) > 0 || n.Elsewhere)", "(len(n.Requests) > 0)"),
		m("dropped-family-leaves", packets, "family_join.go", "n.drops(IPv6, len(ipv6.Active) > 0)}", "n.drops(IPv6, len(ipv4.Active) > 0)}"),
		m("loads-of-both", alone, "family.go", "if h.IPv6Capacity != 0 {\n\t\tif both = maxListed; f == IPv6 {", "if h.IPv6Capacity != 0 {\n\t\tif f == IPv6 {"),
		m("capacity-for-each", placed, "family.go", "room := both - counts[f.other()]", "room := both"),
		plain("any-host-serves-ipv6", "resolve_index.go", "if ip.Is6() && !host.ServesIPv6 {", "if ip.Is6() && len(host.Networks) == 0 {"),
		plain("unknown-network-serves-ipv6", "resolve_index.go", "known := ip.Is6()", "known := false"),
		plain("address-of-all-routers", "address.go", "return \"it is the address of all routers of \" + network.String() + \" (RFC 4291)\"", "return \"\""),
		apart("hosts-out-of-reach-are-not-told", "resolve.go", "if f, found := r.outOfReach(n); found {", "if f, found := r.outOfReach(n); found && false {"),
		apart("gone-hosts-are-out-of-reach", "parted.go", "|| !host.Confirmed || host.Gone {", "|| !host.Confirmed {"),
		apart("spare-is-out-of-reach", "parted.go", "if r.tier(a) != useless {", "if r.tier(a) != useless && reached == [2]bool{} {"),
		apart("what-is-out-of-reach-is-remembered", "memo.go", " && partedHosts(before) == partedHosts(now)", ""),
		m("probe-drops-a-family", "TestPropertyProbesNeverDrop", "family_join.go", "if other.Drops[f] || r.Drops[f]", "if r.Drops[f]"),
	}
}
