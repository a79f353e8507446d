package main

// failBackMutants are mistakes about namespaces that keep the egress IP that they use.
func failBackMutants() []mutant {
	m := func(name, test, file, old, mutated string) mutant {
		return mutant{name: name, pkg: brain, test: test, plain: true, edits: []edit{{file: file, old: old, new: mutated}}}
	}
	const keeps = "TestNamespaceKeepsItsEgressIP"
	return []mutant{
		m("what-is-kept-is-remembered", "TestWhatIsKeptIsReadAgain", "memo.go", " && slices.Equal(n.Keeps, other.Keeps)", ""),
		m("namespaces-always-fail-back", keeps, "resolve.go", "r.tier(a) == best && (!kept || r.keeps(n, a))", "r.tier(a) == best"),
		m("kept-though-it-is-worse", keeps, "resolve.go", "best, count, kept = t, 1, r.keeps(n, a)", "best, count, kept = t, 1, kept || r.keeps(n, a)"),
		m("balanced-keeps-one", keeps, "resolve.go", "return group.Mode == Ordered && len(group.Keeps) > 0 &&", "return len(group.Keeps) > 0 &&"),
		m("kept-is-not-said", keeps, "resolve.go", "\t\treturn ReasonKept\n", "\t\treturn ReasonAssigned\n"),
	}
}
