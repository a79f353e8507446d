package main

// conformanceMutants are mistakes that make our answers to the cases of EgressIPs others than
// those that are written down.
func conformanceMutants() []mutant {
	m := func(name, file, old, mutated string) mutant {
		return mutant{
			name: name, pkg: "./test/conformance/egressip", test: "TestBrain", plain: true,
			edits: []edit{{file: "../../../pkg/" + file, old: old, new: mutated}},
		}
	}
	return []mutant{
		m("without-a-host-by-the-node", "egress/planfor.go", "case drops:", `case drops && pod.Group == "":`),
		m("not-in-demands-a-label", "egress/group.go", "r.Operator() == selection.In && values.Len() == 1", "values.Len() == 1"),
		m("egress-nodes-spread", "egress/planfor.go", "if assignment.Host == p.host {", `if assignment.Host == p.host && pod.Group == "" {`),
		m("silent-hosts-are-dropped", "online/judge.go", "Doubtful: e.Node == NodeReady, Reason: ReasonSilent", "Doubtful: false, Reason: ReasonSilent"),
	}
}
