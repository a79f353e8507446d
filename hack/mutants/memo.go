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
	return []mutant{
		memo("version-forgotten", "|| read.version != now || !read.given", "|| !read.given"),
		memo("given-forgotten", "read.version != now || !read.given.equal(given)", "read.version != now"),
		memo("changed-host-holds", "e.hosts[a.hosts[0]] == none ||", "false ||"),
		memo("new-result-old-claim", "|| !held[a.namespaces[0]] {", "{"),
		memo("other-host-holds", "r.Host == host && (", "("),
		memo("capacity-needs-no-allocation", "h.Invalid, h.IPv6 = nil, false, nil, nil, nil", "h.Invalid, h.IPv6, h.Capacity = nil, false, nil, nil, nil, 0"),
		memo("index-of-other-claims", "\t\tslices.Equal(h.Claims, other.Claims) && slices.Equal(h.Excess, other.Excess)\n}", "\t\tslices.Equal(h.Excess, other.Excess)\n}"),
		memo("index-of-other-pods", "\t\tslices.Equal(h.Subnets, other.Subnets) &&\n", ""),
		memo("index-of-other-networks", "h.Gone == other.Gone && h.Network == other.Network &&", "h.Gone == other.Gone &&"),
		memo("missing-pods-are-forgotten", "len(x.requested[n]) > 0 && !e.missing ||", "false ||"),
		costs("nothing-holds", "return result, true", "return result, false"),
		costs("always-allocates", "same.allocation && m.allocated", "same.allocation && !m.allocated"),
	}
}
