package main

// liveMutants are mistakes in what is said about kernels.
func liveMutants() []mutant {
	m := func(name, pkg, test, file, old, mutated string) mutant {
		return mutant{name: name, pkg: pkg, test: test, plain: true, edits: []edit{{file: file, old: old, new: mutated}}}
	}
	const (
		live, agent, plugin = "./pkg/live", "./pkg/agent", "./cmd/kubectl-egressip"
		kernel              = "./pkg/dataplane"
	)
	return []mutant{
		m("live-from-memory", kernel, "TestLiveNamesFaults", "live.go", "nftables.Differences(l.k.table, want)", "nftables.Differences(want, want)"),
		m("live-blind-to-neighbours", kernel, "TestLiveNamesFaults", "live.go", "o.NextHop, err = overlay.HasNextHop(l.d.nl, l.over, ipv6)", "o.NextHop, err = true, nil"),
		m("live-takes-any-address", kernel, "TestLiveNamesFaults", "live.go", "Ours: p.Ours", "Ours: true"),
		m("live-stale-is-fine", live, "TestCompareNamesWhatDiffers", "compare.go", "if want == have {", "if want == have || bad == Stale {"),
		m("live-unread-is-fine", live, "TestCompareNamesWhatDiffers", "compare.go", `c.add(unread, "read", "not read", Unknown)`, `c.add(unread, "read", "not read", OK)`),
		m("looks-without-rest", agent, "TestLooksAreBounded", "live.go", "rest > 0 {", "rest > time.Hour {"),
		m("looks-without-limit", agent, "TestLooksAreBounded", "live.go", "make(chan struct{}, maxWaiting)", "make(chan struct{}, 99*maxWaiting)"),
		m("live-asks-the-pods-host-alone", plugin, "TestExplainPodLive", "explain_live.go", "range t.Hops {", "range t.Hops[:0] {"),
		m("live-silence-is-fine", plugin, "TestExplainPodLive", "explain_live.go", "Have: err.Error(), Verdict: live.Unknown", "Have: err.Error(), Verdict: live.OK"),
	}
}
