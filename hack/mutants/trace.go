package main

// traceMutants are mistakes in what is said about the way of a packet.
func traceMutants() []mutant {
	m := func(name, test, old, mutated string) mutant {
		return mutant{name: name, pkg: brain, test: test, plain: true, edits: []edit{{file: "trace.go", old: old, new: mutated}}}
	}
	plugin := func(name, test, file, old, mutated string) mutant {
		return mutant{name: name, pkg: "./cmd/kubectl-egressip", test: test, plain: true, edits: []edit{{file: file, old: old, new: mutated}}}
	}
	inBrain := func(name, test, file, old, mutated string) mutant {
		return mutant{name: name, pkg: brain, test: test, edits: []edit{{file: file, old: old, new: mutated}}}
	}
	return []mutant{
		inBrain("settle-forgets-assigned", "TestPropertySettlesAsTheControllerDoes", "settle.go", "h.Claims, h.Assigned = all, assigned", "h.Claims = all"),
		inBrain("settle-stops-early", "TestPropertySettlesAsTheControllerDoes", "settle.go", "if !changed {", "if !changed || rounds > 0 {"),
		inBrain("predict-hides-drops", "TestPredict", "forecast.go", "&& !before.Drops[f] && after.requests(f):", "&& !before.Drops[f] && after.requests(f) && len(before.Active) == 0:"),
		inBrain("predict-forgets-spares", "TestPredict", "forecast.go", "change.Exposed = exposedAfter[name]", "_ = exposedAfter"),
		inBrain("exposed-despite-spares", "TestPropertyExposed", "forecast.go", "if host != \"\" && host != request.Host {", "if host != \"\" && host != request.Host && false {"),
		inBrain("exposed-without-moves", "TestPropertyExposed", "forecast.go", "movable = movable || h.manages(ip)", "_ = h"),
		inBrain("evacuation-ends-early", "TestEvacuated", "evacuation.go", "_, e.Moving = writeOnce(c)", "_, _ = writeOnce(c)"),
		inBrain("evacuation-trusts-claims", "TestEvacuated", "evacuation.go", "&& !other.Reports[claim.IP].Configured:", "&& other.Reports[claim.IP].Configured:"),
		inBrain("regroup-counts-addresses", "TestRegroup", "regroup.go", "if !known || seen[pod] ||", "if !known ||"),
		plugin("plugin-hides-the-host-network", "TestExplainPod", "explain_pod.go", "case seen.HostNetwork:", "case seen.HostNetwork && false:"),
		plugin("plugin-forgets-flags", "TestExplainPod", "gather.go", "v.flags.service, v.flags.exclude, v.serv", "v.flags.service, v.serv"),
		plugin("plugin-knows-flags", "TestExplainPodWithLittle", "explain_pod.go", "e.Unknown = append(e.Unknown, v.unknown...)", ""),
		plugin("evacuate-does-not-wait", "TestEvacuate", "evacuate.go", "return state.Done()", "return state.Asked"),
		plugin("evacuate-forgets-what-stays", "TestEvacuate", "evacuate.go", "if !state.InUse() {", "if len(e.host) > 0 {"),
		plugin("restore-evacuates", "TestEvacuate", "evacuate.go", "value := \"null\"", "value := `\"true\"`"),
		plugin("status-hides-writers", "TestStatusOnAnAPIServer", "hosts.go", "manager = f.Manager", "_ = f.Manager"),
		plugin("status-believes-status", "TestStatusOnAnAPIServer", "status.go", "p.Status != \"-\" && (", "p.Status == \"-\" && ("),
		plugin("check-believes-leases", "TestCheck", "check_install.go", "case !i.renewed[namespace]:", "case !i.renewed[namespace] && false:"),
		plugin("check-trusts-clocks", "TestCheck", "check_install.go", "skew.Abs() > maxSkew {", "skew.Abs() > 99*maxSkew {"),
		plugin("check-misses-nodes", "TestCheck", "check_hosts.go", "if hostSubnetOf(i.HostSubnets, node.Name) == nil {", "if node == nil {"),
		plugin("check-exits-quietly", "TestCheck", "check.go", "return exitError{exitErrors}", "return nil"),
		plugin("bundle-tells-environments", "TestBundle", "bundle_reduce.go", "r := corev1.Container{Name: c.Name,", "r := corev1.Container{Env: c.Env, Name: c.Name,"),
		plugin("bundle-tells-annotations", "TestBundle", "bundle_reduce.go", "Annotations: known(m.Annotations),", "Annotations: m.Annotations,"),
		plugin("bundle-replaces-files", "TestBundle", "bundle.go", "os.O_CREATE|os.O_EXCL", "os.O_CREATE"),
		plugin("plan-exits-quietly", "TestPlan", "plan.go", "return exitError{exitDrops}", "return exitError{exitChanges}"),
		plugin("plan-overwrites-objects", "TestPlan", "merge.go", "if current == nil {", "if current == nil || true {"),
		plugin("plan-plays-foreign-egressips", "TestPlan", "change.go", "case !served:", "case !served && false:"),
		plugin("plugin-finds-no-claims", "TestExplainIP", "explain_ip.go", "if claim.IP == ip {", "if claim.IP == ip && len(h.Claims) > 9 {"),
		{
			name: "ask-finds-no-host", pkg: brain, test: "TestAsk", plain: true,
			edits: []edit{{file: "ask.go", old: "result.Host = h.Host", new: "_ = h.Host"}},
		},
		m("trace-believes-plans", "TestTracePod", "\t\tt.arrive()\n", "\t\tt.Outcome = t.Planned\n"),
		m("trace-forgets-agents", "TestTracePod", "case !host.AgentReady:", "case !host.AgentReady && false:"),
		m("trace-counts-any-report", "TestTracePod", "case hop.Reported && hop.Report.Configured:", "case hop.Reported:"),
		m("trace-sends-inside-out", "TestTraceToward", "if slices.Contains(p.Hosts, to) {", "if len(p.Hosts) == 0 {"),
		m("trace-forgets-excluded", "TestTraceTowardExcluded", "case excluded.IsValid():", "case excluded.IsValid() && t.Outcome == OutcomeEgressIP:"),
		m("trace-mixes-families", "TestTraceToward", "case FamilyOf(to) != FamilyOf(t.Pod.IP):", "case FamilyOf(to) != FamilyOf(t.Pod.IP) && false:"),
	}
}
