package main

// hosts6Mutants are mistakes that concern hosts with addresses of IPv6, or clusters that have
// hosts of both families.
func hosts6Mutants() []mutant {
	in := func(pkg, name, test, file, old, mutated string) mutant {
		return mutant{name: name, pkg: pkg, test: test, plain: true, edits: []edit{{file: file, old: old, new: mutated}}}
	}
	const (
		alone    = "TestHostsWithoutIPv4"
		families = "TestHostsOfTwoFamilies"
	)
	return []mutant{
		in(kernel+"/bpf", "hosts-differ-in-one-word", "TestFlowsOverIPv6", "outer.go", "for i := range int16(o.length / 4) {", "for i := range int16(1) {"),
		in(kernel, "outer-packets-have-no-checksum", alone, "bpf/outer.go", "flags = overIPv6\n\t\tinsns", "flags = overIPv6 | zeroChecksum\n\t\tinsns"),
		in(kernel, "overlay-is-too-wide-for-ipv6", alone, "overlay/overlay.go", "= 50, 70", "= 50, 50"),
		in(kernel, "ipv4-is-missed", alone, "look.go", "if r.state.overIPv6() {\n\t\treturn", "if r.state.overIPv6() && f == nil {\n\t\treturn"),
		in(kernel, "default-route-is-one-of-ipv4", alone, "ways_out.go", "own := ipv6 == r.state.overIPv6()", "own := !ipv6"),
		in(kernel, "anybody-sends-over-ipv6", "TestOverlayOverIPv6TakesPacketsOfHostsAlone", "rules/content.go", "return !b.six || b.OverIPv6", "return !b.six"),
		in(kernel, "probes-are-of-ipv4", "TestProbesTravelTheOverlayOfIPv6", "bpf/programs.go", "unmarked[o.family] = o.sendProbe(probePort)", "unmarked[four] = o.sendProbe(probePort)"),
		in(kernel, "maps-keep-their-layout", "TestOverlayChangesItsFamily", "dataplane.go", "|| maps.OverIPv6() != shape.OverIPv6 {", "{"),
		in(kernel, "ipv6-ends-with-hosts-of-ipv6", "TestOverlayChangesItsFamily", "dataplane.go", "withIPv6 := d.maps.HasIPv6() || over6", "withIPv6 := d.maps.HasIPv6() && !d.maps.OverIPv6() || over6"),
		in(kernel, "ports-open-before-the-overlay-goes", "TestOverlayOfIPv6IsGuardedUntilItIsGone", "apply_round.go", "if p.Serve6 && !p.OverIPv6 {", "if p.Serve6 && !p.OverIPv6 && p.Maps {"),
		in(kernel, "overlay-over-ipv6-anyway", "TestNoOverlayOverIPv6", "apply_round.go", "if r.overErr != nil {", "if r.overErr != nil && r.d == nil {"),
		in(probePackage, "refusals-are-of-ipv4", "TestProbesOverIPv6", "refusal.go", "range refusalKinds() {", "range refusalKinds()[:1] {"),
		in(agent, "pods-know-one-address", "TestHostIPFrom", "transform.go", "HostIPs:                    pod.Status.HostIPs,", ""),
		in(agent, "hosts-of-ipv6-serve-ipv4", "TestStatusOf", "status.go", "if !o.decision.state.HostIP.Is6() {", "if o.decision.state.HostIP.IsValid() {"),
		in(controller, "witnesses-of-any-family", "TestWitnessesOfTwoFamilies", "panel.go", "Zone: c.zone, Family: familyOf(h)}", "Zone: c.zone}"),
		in(brain, "ipv6-comes-first", "TestHostIPsOfANode", "hostip.go", "len(four) > 0 {", "len(four) > 0 && four[0] == internal[0] {"),
		in(brain, "what-the-kubelet-forgets-is-gone", "TestHostKeepsItsIPv4", "hostip.go", "!h.IP.Is4() || !h.Confirmed || !h.AgentReady ||", "!h.IP.Is4() || h.Confirmed || h.AgentReady ||"),
		in(brain, "what-the-agent-has-lost-stays", "TestHostKeepsItsIPv4", "hostip.go", "|| !h.AgentReady ||", "||"),
		in(brain, "host-has-its-address-twice", "TestHostHasItsAddressOnce", "family.go", "if ip := p.Addr(); ip != c.Hosts[h].IP {", "if ip := p.Addr(); ip.IsValid() {"),
		in(brain, "out-of-reach-is-used", families, "decide.go", "c = WithOffline(c, offline)", "_ = offline"),
		in(brain, "out-of-reach-is-probed", families, "watchers.go", "return known && !self.reaches(p.IP) })", "return known && !self.reaches(p.IP) && !p.IP.IsValid() })"),
		in(brain, "controllers-probe-out-of-reach", "TestProbedHostsOfTwoFamilies", "watchers.go", "return HostFamily(p.IP) != HostFamily(from) })", "return !p.IP.IsValid() })"),
		in(brain, "hosts-of-ipv6-take-ipv4", "TestHostOfIPv6", "resolve_index.go", "if ip.Is4() && host.IP.Is6() {", "if ip.Is4() && !host.IP.IsValid() {"),
		in(brain, "strict-misses-ipv4", "TestStrictWithoutIPv4", "decide.go", "return FamilyOf(p.Addr()) == FamilyOf(plan.HostIP) })", "return p.Addr().Is4() })"),
		in(brain, "witnesses-out-of-reach", "TestPanelsOfTwoFamilies", "panel.go", "v.family != host.Family || v.hash", "v.hash"),
	}
}
