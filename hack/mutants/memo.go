package main

// memoMutants are mistakes of a decision that remembers the one before.
func memoMutants() []mutant {
	memo := func(name, old, replacement string) mutant {
		return mutant{
			name: name, pkg: brain, test: "TestPropertyMemoryChangesNothing",
			edits: []edit{{file: "memo.go", old: old, new: replacement}},
		}
	}
	costs := func(name, old, replacement string) mutant {
		m := memo(name, old, replacement)
		m.test, m.plain = "TestMemoryCostsLittle", true
		return m
	}
	rare := func(name, old, replacement string) mutant {
		m := memo(name, old, replacement)
		m.test, m.plain = "TestMemoryOfRareChanges", true
		return m
	}
	patch := func(name, old, replacement string) mutant {
		m := memo(name, old, replacement)
		m.edits[0].file = "resolve_patch.go"
		return m
	}
	indexes := func(name, file, old, replacement string) mutant {
		m := memo(name, old, replacement)
		m.test, m.plain, m.edits[0].file = "TestMemoryChangesTheIndex", true, file
		return m
	}
	return []mutant{
		memo("version-forgotten", "|| read.version != now || !read.given", "|| !read.given"),
		memo("given-forgotten", "read.version != now || !read.given.equal(given)", "read.version != now"),
		memo("changed-host-holds", "e.hosts[a.hosts[0]] == none ||", "false ||"),
		memo("new-result-old-claim", "|| !held[a.groups[0]] {", "{"),
		memo("other-host-holds", "r.Host == host && (", "("),
		memo("capacity-needs-no-allocation", "h.Witnesses, h.Invalid = nil, false, nil, nil", "h.Witnesses, h.Invalid, h.Capacity = nil, false, nil, nil, 0"),
		memo("index-of-other-claims", "\treturn slices.Equal(h.Claims, other.Claims) && slices.Equal(h.Excess, other.Excess) && ", "\treturn slices.Equal(h.Excess, other.Excess) && "),
		{
			name: "index-of-others-to-manage", pkg: brain, test: "TestMemoryOfWhoManages", plain: true,
			edits: []edit{{file: "memo.go", old: "slices.Equal(h.Excess, other.Excess) && slices.Equal(h.Assigned, other.Assigned)\n", new: "slices.Equal(h.Excess, other.Excess)\n"}},
		},
		memo("index-of-other-pods", "\t\tslices.Equal(h.Subnets, other.Subnets) && slices.Equal(h.IPv6, other.IPv6) &&\n", "\t\tslices.Equal(h.IPv6, other.IPv6) &&\n"),
		memo("index-of-other-networks", "h.ServesIPv6 == other.ServesIPv6 && slices.Equal(h.Networks, other.Networks) &&\n\t\tslices.Equal(h.Subnets", "h.ServesIPv6 == other.ServesIPv6 &&\n\t\tslices.Equal(h.Subnets"),
		memo("index-of-other-found", "slices.Equal(h.IPv6, other.IPv6) &&\n\t\th.sameFound(other)\n}", "slices.Equal(h.IPv6, other.IPv6)\n}"),
		patch("patch-keeps-siblings", "\t\ta.sameHost = false\n", ""),
		patch("patch-keeps-numbers", "if reason != was[n] {", "if n < 0 && reason != was[n] {"),
		patch("patch-counts-gone", "\t\ta.countHosts(p.Hosts)\n", "\t\ta.hosts = a.listed\n"),
		patch("patch-forgets-other-requests", "\t\tfor _, a := range p.requested[n] {\n\t\t\tp.touched[a] = true\n\t\t}\n\t}\n\t// Others", "\t}\n\t// Others"),
		memo("index-of-other-further", "slices.Equal(h.Further, other.Further) &&\n\t\th.Gone", "h.Gone"),
		rare("index-of-other-addresses", "slices.Equal(h.Subnets, other.Subnets) && slices.Equal(h.IPv6, other.IPv6) &&\n", "slices.Equal(h.Subnets, other.Subnets) &&\n"),
		memo("places-are-forgotten", "m.allocated && sameCapacities(m.places, places)", "m.allocated"),
		rare("missing-pods-are-forgotten", "len(x.requested[n]) > 0 && !e.everywhere ||", "false ||"),
		indexes("always-indexes", "memo.go", "!same.aligned ||", "same.aligned ||"),
		indexes("never-indexes", "resolve_patch.go", "2*x.built+100", "9*x.built+9999"),
		indexes("patch-in-any-order", "resolve_patch.go", "slices.Insert(p.sorted, at, a)", "slices.Insert(p.sorted, at-at, a)"),
		costs("nothing-holds", "return result, true", "return result, false"),
		costs("always-allocates", "same.allocation && m.allocated", "same.allocation && !m.allocated"),
	}
}
