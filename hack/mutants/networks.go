package main

// networkMutants are mistakes about where pods are, and whose word is believed.
func networkMutants() []mutant {
	const (
		which   = "TestWhichPodNetworksAreInside"
		where   = "TestWhereAHostFindsItsPods"
		made    = "TestNetworksThatTheClusterWasMadeWith"
		listed  = "TestPodNetworksThatAgentsFind"
		missing = "TestPodsInNetworksThatNobodyKnows"
		named   = "TestObjectsThatNameNetworks"
		objects = "TestNetworksThatObjectsName"
		before  = "TestNetworksAreKnownBeforeTheFirstPod"
		servers = "TestAPIServersAreNoEgressIPs"
		route   = "./pkg/dataplane/routing"
	)
	m := func(name, pkg, test, file, old, mutated string) mutant {
		return mutant{name: name, pkg: pkg, test: test, plain: true, edits: []edit{{file: file, old: old, new: mutated}}}
	}
	return []mutant{
		m("one-word-makes-pods", brain, which, "podnetworks.go", "if host.hasPods(network) {", "if true {"),
		m("pods-are-anywhere", brain, which, "podnetworks.go", "!tooWideForPods(p) && p == p.Masked()", "p == p.Masked()"),
		m("pods-on-uplinks", brain, which, "podnetworks.go", "return elsewhere(p)\n", "return elsewhere(p) && false\n"),
		m("pods-among-hosts", brain, which, "podnetworks.go", " || slices.ContainsFunc(own, p.Contains)\n\t}\n}", " || len(own) > 99\n\t}\n}"),
		m("egress-ips-are-pods", brain, which, "podnetworks.go", "return !singles[p.Addr()]", "return false"),
		m("pods-of-the-outside", brain, where, "podnetworks.go", "if route.Outward || !route", "if !route"),
		m("any-route-is-of-pods", brain, where, "podnetworks.go", "tooWideForPods(network) || elsewhere", "elsewhere"),
		m("pods-of-ipv4-alone", brain, where, "podnetworks.go", "if usablePod(pod.IP) && !isHost", "if usable4(pod.IP) && !isHost"),
		m("ipv6-pods-are-anywhere", brain, which, "podnetworks.go", "return p.Bits() < widestPodNetwork6", "return p.Bits() < widestPodNetwork"),
		m("restart-forgets-pods", brain, where, "podnetworks.go", "f.all = believed(c, in.Host) // a restart", "// a restart"),
		m("networks-go-with-their-pods", brain, "TestListedPodNetworks", "podnetworks.go", "slices.Contains(known, network) || slices", "len(known) > 99 || slices"),
		m("notes-are-always-right", brain, made, "podnetworks.go", "case slices.ContainsFunc(onUplinks, p.Overlaps):\n\t\t\treturn whyOnUplink", "case len(onUplinks) > 99:\n\t\t\treturn whyOnUplink"),
		m("notes-are-of-any-width", brain, made, "podnetworks.go", "case p.Bits() < widest:", "case p.Bits() < 0:"),
		m("disabled-pools-are-pods", brain, named, "sources.go", "case disabled:", "case disabled && len(uses) > 99:"),
		m("tunnels-are-pods", brain, named, "sources.go", `case len(uses) > 0 && !slices.Contains(uses, "Workload"):`, "case len(uses) > 99:"),
		m("released-blocks-count", brain, named, "sources.go", `text(object, "spec", "deleted") == "true" ||`, ""),
		m("wanted-networks-hide-deployed", brain, named, "sources.go", `[]string{"status", "spec"}`, `[]string{"spec", "status"}`),
		m("cni-alone-is-inside", brain, objects, "found.go", "case f.Use == v1.UsePods && !slices", "case f.Use != v1.UseServices && !slices"),
		m("problems-do-not-matter", brain, objects, "found.go", `case f.Problem != "":`, "case !f.Network.IsValid():"),
		m("host-in-the-pool-of-ipv6", brain, objects, "podnetworks.go", "own = append(own, p.Addr())", "_ = p.Addr()"),
		m("pools-of-all-ipv6", brain, objects, "podnetworks.go", "widest = widestClusterNetwork6", "widest = 0"),
		m("candidates-need-no-route", brain, before, "podnetworks.go", "ok && candidate == route.Network {", "ok {"),
		m("candidates-are-not-asked", brain, before, "podnetworks.go", "maps.Keys(asked)", "maps.Keys(map[netip.Addr]netip.Prefix{})"),
		m("restart-takes-networks-away", controller, "TestFoundNetworksStayUntilAllIsRead", "observer.go", "\tif !ready {\n\t\tv.found", "\tif !ready && len(v.hosts) > 99 {\n\t\tv.found"),
		m("annotations-are-always-read", controller, "TestFoundNetworksStayUntilAllIsRead", "observer.go", "node != nil && reader.reads() {", "node != nil {"),
		m("kinds-are-looked-up-once", controller, objects, "found_networks.go", "raise(r.wake, struct{}{})", "_ = object"),
		m("kinds-stay", controller, objects, "found_networks.go", `name != "" && known && !crds[name] {`, `name == "none" && known && !crds[name] {`),
		m("one-kind-stops-all", controller, objects, "found_networks.go", "undecided = undecided || !refused", "undecided = true"),
		m("api-server-is-an-egress-ip", brain, servers, "resolve_named.go", "if f := n.apiServers[ip]; f != nil {", "if f := n.apiServers[ip]; f != nil && f.Problem != \"\" {"),
		m("api-servers-give-way-to-hosts", brain, servers, "resolve_named.go", "\t\tfor prefix := range n.lengths.of(c.Hosts[h].IP) {\n", "\t\tdelete(n.apiServers, c.Hosts[h].IP)\n\t\tfor prefix := range n.lengths.of(c.Hosts[h].IP) {\n"),
		m("former-api-servers-hide-others", brain, servers, "apiservers.go", "if named[ip] == nil || named[ip].Source == sourceFormerAPIServer {", "if named[ip] == nil {"),
		m("refused-api-servers-are-outside", brain, servers, "apiservers.go", "if others[ip] || refused[ip] != nil {", "if _ = refused; others[ip] {"),
		m("api-servers-go-with-the-endpoint", brain, "TestFormerAPIServersAreKept", "found.go", "\t\tif listed[ip] {\n", "\t\tif listed[ip] && len(found) > 99 {\n"),
		m("api-servers-stay", brain, "TestFormerAPIServersAreKept", "found.go", "\t\tif listed[ip] {\n", "\t\tif true {\n"),
		m("former-api-servers-are-forgotten", controller, "TestFoundNetworksStayUntilAllIsRead", "observer.go", "\tif reader.reads() {\n", "\tif false {\n"),
		m("what-is-refused-is-no-news", controller, "TestReportsOfAgentsAreNoNews", "predicates.go", "return slices.Equal(before.Status.FoundNetworks, after.Status.FoundNetworks) &&", "return true &&"),
		m("services-are-known", "./cmd/kubectl-egressip", "TestNetworks", "networks.go", "len(f.services) == 0 && !egress.ServicesKnown(known)", "false"),
		m("note-of-kubeadm-is-not-read", brain, "TestKubeadmNetworks", "kubeadm.go", "Pods:     listedPrefixes(configuration.Networking.PodSubnet),", ""),
		m("wrong-notes-are-inside", "./cmd/kubectl-egressip", "TestNetworksOfKubeadm", "../../pkg/egress/kubeadm.go", "why := unusable(p)", `why := ""; _ = unusable`),
		m("tunnels-lead-to-pods", route, "TestToPods", "pods.go", "leads = !hasPods(link)", "leads = !hasPods(link) && false"),
		m("uplinks-lead-to-pods", route, "TestToPods", "pods.go", "devices[index] = true", "_ = index"),
		m("blocks-are-not-seen", route, "TestToPods", "pods.go", "route.Network = blocks[i]", "_ = blocks[i]"),
		m("missing-at-once", agent, "TestPodsOutsideAreReportedWhenItLasts", "missing.go", "now.Sub(m.since) < missingAfter", "now.Before(m.since)"),
		m("no-pod-networks-at-first", agent, "TestPublishKeepsAddressesUntilTheKernelIsRead", "publish.go", "if o.decision.podNetworksUnknown {", "if false {"),
		m("pods-of-any-node", controller, listed, "pod_lookup.go", `fresh, client.MatchingFields{"spec.nodeName": host}`, "fresh"),
		m("pods-are-looked-up-for-ever", controller, "TestLookUpOfPodsCalmsDown", "pod_lookup.go", "pause = min(2*pause, lookAgainAtMost)", "pause = lookAgainAfter"),
		m("other-networks-wait", controller, "TestLookUpOfPodsCalmsDown", "pod_lookup.go", "case !slices.Equal(p.asked[h.Name], published):", "case p.asked[h.Name] == nil:"),
		m("pods-are-looked-up-once", controller, listed, "pod_lookup.go", "if pending {", "if pending && pause < 0 {"),
		m("missing-networks-are-ready", brain, missing, "resolve_messages.go", `ready && missing != ""`, "ready && missing == \"none\""),
		m("namespaces-do-not-care", brain, missing, "resolve.go", "if r.missing.hosts > 0 {", "if r.missing.hosts > 99 {"),
		m("the-dead-miss-pods", brain, missing, "missing.go", "host.PodsMissing == \"\" || !host.Confirmed || host.Gone || host.AgentGone", "host.PodsMissing == \"\""),
		m("one-report-is-inside", "./cmd/kubectl-egressip", "TestNetworks", "../../pkg/egress/networks.go", "add(p, SourcePods, pods.has(p), why)", "add(p, SourcePods, pods.has(p) || true, why)"),
	}
}
