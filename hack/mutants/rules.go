package main

// ruleMutants are mistakes in the rules, in how iptables gets them, and in the
// tracer that judges them.
func ruleMutants() []mutant {
	const (
		iptables = "./pkg/dataplane/iptables"
		tracer   = "./internal/testenv/tracer"
	)
	m := func(name, pkg, test string, plain bool, file, old, mutated string) mutant {
		return mutant{name: name, pkg: pkg, test: test, plain: plain, edits: []edit{{file: file, old: old, new: mutated}}}
	}
	return []mutant{
		m("rule-left-out", kernel, "TestGolden", true, "rules/snat.go", "when(inSet(SetInside, Destination)).then(Return{}),", ""),
		m("tree-mixes-indices", kernel, "TestPropertyIndicesAreReadBackFromRules", false, "rules/snat.go", "(1<<shift - 1)", "(1<<(shift+4) - 1)"),
		m("old-jumps-stay", iptables, "TestPropertyJumpsFindTheirPlaces", false, "transaction.go",
			"foreign := slices.DeleteFunc(slices.Clone(specs), leadsToOwnChain)", "foreign := slices.Clone(specs)"),
		m("last-jump-behind-reject", iptables, "TestPropertyJumpsFindTheirPlaces", false, "transaction.go",
			"for end > 0 && isFinal(foreign[end-1]) {", "for end > 0 && false {"),
		m("matches-not-sorted", iptables, "TestKernelShowsWhatWasRendered", false, "render.go",
			"return cmp.Compare(printOrder(a), printOrder(b))", "return 0 * cmp.Compare(printOrder(a), printOrder(b))"),
		m("own-jumps-are-foreign", iptables, "TestParseSave", false, "table.go", "if !leadsToOwnChain(spec) {\n\t\tt.Foreign++", "if true {\n\t\tt.Foreign++"),
		m("negation-ignored", tracer, "TestMatches", true, "rules.go", "return is(h, p) != negated", "return is(h, p) || negated"),
		m("unknown-match-skipped", tracer, "TestUnknownWordsAreErrors", true, "rules.go",
			`return nil, unknown("match", option)`, "return func(*Host, *Packet) bool { return true }, nil"),
	}
}
