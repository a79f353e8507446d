package main

// poolMutants are mistakes about pools.
func poolMutants() []mutant {
	m := func(name, test, old, mutated string) mutant {
		return mutant{name: name, pkg: brain, test: test, plain: true, edits: []edit{{file: "pools.go", old: old, new: mutated}}}
	}
	const (
		draw  = "TestDraw"
		stays = "TestGivenStays"
		prop  = "TestPropertyDraw"
	)
	return []mutant{
		m("addresses-of-hosts-are-given", draw, "a.hostIP || a.podsOf", "a.podsOf"),
		m("claims-are-free", draw, "for _, ip := range d.Cluster.Hosts[i].Claims {", "for _, ip := range d.Cluster.Hosts[i].Excess {"),
		m("quota-is-off-by-one", draw, ">= pool.PerNamespace:", "> pool.PerNamespace:"),
		m("one-family-is-enough", draw, "return nil, f.String()", "break"),
		m("anyone-may-draw", draw, "case !pool.Allows(r.Namespace):", "case false:"),
		m("nothing-is-kept", stays, "if left <= 0 ||", "if left <= d.Retention ||"),
		m("kept-for-ever", stays, "if left <= 0 ||", "if left < 0 ||"),
		m("the-quota-takes-away", stays, "\tfor _, i := range order {\n\t\td.keep(i)\n\t}\n", ""),
		m("a-broken-pool-takes-away", stays, `p.Broken == "" && !slices`, "!slices"),
		m("free-forgets-what-it-gave", prop, "d.taken[ip], d.mine[ip] = true, true", "d.mine[ip] = true"),
		m("drawn-in-order-of-the-list", prop, "slices.SortFunc(order, func(a, b int) int {", "slices.SortFunc(order[:0], func(a, b int) int {"),
		m("two-keep-one-address", "TestOneAddressOfTwo", " && !d.twice[before.Name] {", " {"),
		m("again-whoever-asks", "TestMadeAgain", "reason, _ := d.refusal(i)", `reason := Reason("")`),
		m("again-beyond-the-quota", "TestMadeAgain", `if reason == "" && !used`, `if (reason == "" || reason == ReasonQuota) && !used`),
		m("again-although-it-is-used", "TestMadeAgain", "d.mine[ip] || d.asked[ip] ||", "d.mine[ip] ||"),
		m("released-before-the-pods", "TestNamespaceEnds", "g.ReleasedAt.IsZero() && d.Ending[namespace]", "g.ReleasedAt.IsZero() && d.Ending[namespace+g.Name]"),
		m("kept-beyond-the-quota", "TestKeptWithinQuota", "known && d.Pools[p].PerNamespace >= 0 &&", "known && d.Pools[p].PerNamespace > 5 &&"),
		m("out-of-the-pool-is-out-at-once", "TestOutOfPool", "case !has || !before.ReleasedAt.IsZero():", `case !has || before.Name != "":`),
		{
			name: "broken-pods-are-written", pkg: brain, test: "TestSelectorsThatBreak", plain: true,
			edits: []edit{{file: "objects_pools.go", old: "object.Spec.PodSelector = before //", new: "_ = before //"}},
		},
		{
			name: "broken-nodes-are-none", pkg: brain, test: "TestSelectorsThatBreak", plain: true,
			edits: []edit{{file: "objects_pools.go", old: "\tif err != nil {\n\t\treturn nil\n\t}\n\thosts := make", new: "\tif err != nil {\n\t\treturn NewHostSet(nil)\n\t}\n\thosts := make"}},
		},
		{
			name: "pools-choose-no-hosts", pkg: brain, test: "TestPropertyConverges", plain: true,
			edits: []edit{{file: "allocate.go", old: "return n.OnlyOn.Has(h.Name)", new: "return true"}},
		},
	}
}
