package main

// traceMutants are mistakes in what is said about the way of a packet.
func traceMutants() []mutant {
	m := func(name, test, old, mutated string) mutant {
		return mutant{name: name, pkg: brain, test: test, plain: true, edits: []edit{{file: "trace.go", old: old, new: mutated}}}
	}
	plugin := func(name, test, file, old, mutated string) mutant {
		return mutant{name: name, pkg: "./cmd/kubectl-egressip", test: test, plain: true, edits: []edit{{file: file, old: old, new: mutated}}}
	}
	return []mutant{
		plugin("plugin-hides-the-host-network", "TestExplainPod", "explain_pod.go", "case seen.HostNetwork:", "case seen.HostNetwork && false:"),
		plugin("plugin-forgets-flags", "TestExplainPod", "gather.go", "v.flags.service, v.flags.exclude, v.serv", "v.flags.service, v.serv"),
		plugin("plugin-knows-flags", "TestExplainPodWithLittle", "explain_pod.go", "e.Unknown = append(e.Unknown, v.unknown...)", ""),
		plugin("plugin-finds-no-claims", "TestExplainIP", "explain_ip.go", "if claim.IP == ip {", "if claim.IP == ip && len(h.Claims) > 9 {"),
		{
			name: "ask-finds-no-host", pkg: brain, test: "TestAsk", plain: true,
			edits: []edit{{file: "ask.go", old: "result.Host = h.Host", new: "_ = h.Host"}},
		},
		m("trace-believes-plans", "TestTracePod", "\t\tt.arrive()\n", "\t\tt.Outcome = t.Planned\n"),
		m("trace-forgets-agents", "TestTracePod", "case !host.AgentReady:", "case !host.AgentReady && false:"),
		m("trace-counts-any-report", "TestTracePod", "case hop.Reported && hop.Report.Configured:", "case hop.Reported:"),
		m("trace-sends-inside-out", "TestTraceToward", "if slices.Contains(p.Hosts, to) {", "if len(p.Hosts) == 0 {"),
		m("trace-mixes-families", "TestTraceToward", "case FamilyOf(to) != FamilyOf(t.Pod.IP):", "case FamilyOf(to) != FamilyOf(t.Pod.IP) && false:"),
	}
}
