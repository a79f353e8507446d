package main

const agent = "./pkg/agent"

// agentMutants are mistakes between the objects and the kernel.
func agentMutants() []mutant {
	return []mutant{
		{
			name: "uninstalled-leaves-all", pkg: agent, test: "TestUninstalledAgentGivesUp",
			edits: []edit{{file: "uninstall.go", old: "egress.NothingRequested(cluster) {", new: "egress.NothingRequested(cluster) && false {"}},
		},
		{
			name: "requests-are-let-out", pkg: agent, test: "TestUninstalledAgentGivesUp",
			edits: []edit{{file: "uninstall.go", old: "egress.NothingRequested(cluster) {", new: "egress.NothingRequested(cluster) || true {"}},
		},
		{
			name: "stray-ipv6-is-not-told", pkg: agent, test: "TestIPv6WithoutNetworksWarns",
			edits: []edit{{file: "decide.go", old: "stray.IsValid()", new: "stray.IsValid() && false"}},
		},
		{
			name: "address-gone-at-once", pkg: agent, test: "TestAnAddressThatGoesCountsForAWhile", plain: true,
			edits: []edit{{file: "sightings.go", old: "now.Sub(at) > addressMemory", new: "now.Sub(at) > 0"}},
		},
		{
			name: "unknown-takes-ipv6-away", pkg: agent, test: "TestPublishKeepsFamilies", plain: true,
			edits: []edit{{file: "publish.go", old: "if !o.report.IPv6.Known && len(base.agent.Families) > 0 {", new: "if false {"}},
		},
		{
			name: "unknown-gives-ipv6", pkg: agent, test: "TestPublishKeepsFamilies", plain: true,
			edits: []edit{{file: "status.go", old: "if o.report.IPv6.Known && o.report.IPv6.Reason == \"\" {", new: "if o.report.IPv6.Reason == \"\" {"}},
		},
		{
			name: "no-addresses-at-first", pkg: agent, test: "TestPublishKeepsAddressesUntilTheKernelIsRead", plain: true,
			edits: []edit{{file: "publish.go", old: "if o.decision.addressesUnknown {", new: "if false {"}},
		},
		{
			name: "drop-is-node", pkg: agent, test: "TestPropertyNoPodThatRequestsGoesByItself",
			edits: []edit{{
				file: "state.go", old: "default:\n\t\treturn dataplane.Pod{IP: p.IP, Kind: dataplane.Drop}",
				new: "default:\n\t\treturn dataplane.Pod{IP: p.IP, Kind: dataplane.Node}",
			}},
		},
		{
			name: "stranger-leaks", pkg: agent, test: "TestPropertyNoPodThatRequestsGoesByItself",
			edits: []edit{{
				file: "decide.go", old: "if !ok {", new: "if !ok || decided.NoHostSubnet {",
			}},
		},
		{
			name: "local-without-address", pkg: agent, test: "TestStateOf",
			edits: []edit{{
				file: "state.go", old: "case p.Kind == egress.PathLocal && hosted[p.EgressIP]:", new: "case p.Kind == egress.PathLocal:",
			}},
		},
		{
			name: "every-status-is-news", pkg: agent, test: "TestStatusRaisesNoPass", plain: true,
			edits: []edit{{file: "caches.go", old: "if !sameInput(before, after) {", new: "if before != after {"}},
		},
		{
			name: "slow-is-away", pkg: agent, test: "TestIsolation", plain: true,
			edits: []edit{{file: "isolation.go", old: "askWithin = time.Second", new: "askWithin = 400 * time.Millisecond"}},
		},
		{
			name: "mtus-of-others-are-not-read", pkg: agent, test: "TestLoopWarnsOfOtherMTUs", plain: true,
			edits: []edit{{file: "decide.go", old: "if h := &in.hostSubnets[i]; uplinkMTU(h) > 0 &&", new: "if h := &in.hostSubnets[i]; uplinkMTU(h) > 9000 &&"}},
		},
		{
			name: "omitted-addresses-are-not-told", pkg: agent, test: "TestAddressesThatAreNotPublishedWarn", plain: true,
			edits: []edit{{file: "decide.go", old: "if decided.AddressesOmitted > 0 {", new: "if decided.AddressesOmitted > 2 {"}},
		},
		{
			name: "hosts-of-the-other-family-are-not-told", pkg: agent, test: "TestHostsOutOfReachWarn", plain: true,
			edits: []edit{{file: "decide.go", old: "if len(decided.OutOfReach) > 0 {", new: "if len(decided.OutOfReach) > 1 {"}},
		},
		{
			name: "ready-for-ever", pkg: agent, test: "TestLoopHealth", plain: true,
			edits: []edit{{file: "health.go", old: "case h.lastErr != nil && h.clock", new: "case h.lastErr != nil && false && h.clock"}},
		},
		{
			name: "late-delete", pkg: agent, test: "TestPodsOf",
			edits: []edit{{file: "../egress/seen.go", old: "!taken || pod.Succeeds(owner)", new: "!taken || owner == nil"}},
		},
		{
			name: "deleted-is-gone", pkg: agent, test: "TestPodsOf",
			edits: []edit{{file: "../egress/seen.go", old: "!l.Running && (l.Terminal || l.AllEnded)", new: "(l.Deleted || !l.Running) && (l.Deleted || l.AllEnded)"}},
		},
		{
			name: "no-daemonset-is-an-upgrade", pkg: agent, test: "TestUninstalledAgentGivesUp",
			edits: []edit{{file: "uninstall.go", old: "if !o.found {", new: "if !o.found && o.gone {"}},
		},
		{
			name: "useless-hosts-are-out-of-reach", pkg: agent, test: "TestPeersTellWhoIsSilent",
			edits: []edit{{file: "peers.go", old: "Reached: h.Reached(),", new: "Reached: h.Reached() && h.State == probe.Online,"}},
		},
		{
			name: "no-rest", pkg: agent, test: "TestLoopServesAStormAtHalfPower",
			edits: []edit{{file: "loop.go", old: "rest := min(max(worked, minRest), maxRest)", new: "rest := min(worked, minRest)"}},
		},
		{
			name: "objects-starve-the-kernel", pkg: agent, test: "TestLoopLooksAtTheKernelInAStormOfObjects",
			edits: []edit{{
				file: "loop.go", old: "!why.kernel && l.applied && l.clock.Since(l.appliedAt) < l.resync &&", new: "!why.kernel && l.applied &&",
			}},
		},
		{
			name: "always-apply", pkg: agent, test: "TestLoopLooksAtTheKernelInAStormOfObjects",
			edits: []edit{{file: "loop.go", old: "settled = !why.kernel && l.applied &&", new: "settled = why.kernel && l.applied &&"}},
		},
		{
			name: "failure-sets-the-pace", pkg: agent, test: "TestLoopFailsCalmly",
			edits: []edit{{file: "loop.go", old: "drift = nil\n", new: ""}},
		},
		{
			name: "forget-what-could-not-be-read", pkg: agent, test: "TestLoopWithoutReadableObjects",
			edits: []edit{{file: "loop.go", old: "l.stale = err != nil", new: "l.stale = err != nil && l.desired == nil"}},
		},
		{
			name: "status-from-the-cache-alone", pkg: agent, test: "TestPublishOnlyWhatDiffers",
			edits: []edit{{file: "publish.go", old: "case p.before == object.ResourceVersion:", new: "case p.before == object.ResourceVersion && p.uid == \"\":"}},
		},
		{
			name: "in-use-by-absence", pkg: agent, test: "TestPublishAddressInUse", plain: true,
			edits: []edit{{file: "publish.go", old: "\tif s.inUseKnown {", new: "\tif s.inUse != \"\" {"}},
		},
		{
			name: "words-count", pkg: agent, test: "TestPublishWordsSeldom",
			edits: []edit{{file: "publish.go", old: "p.clock.Since(p.writtenAt) >= rewordAfter", new: "p.clock.Since(p.writtenAt) >= 0"}},
		},
		{
			name: "generation-too-early", pkg: agent, test: "TestPublishGeneration",
			edits: []edit{{file: "publish.go", old: "if o.err == nil {\n\t\tp.applied", new: "if o != nil {\n\t\tp.applied"}},
		},
		{
			name: "silent-to-all-is-a-pair", pkg: agent, test: "TestLoopWarnsOfUnreachedHosts", plain: true,
			edits: []edit{{file: "loop.go", old: "return !serves", new: "return !serves && name == \"\""}},
		},
		{
			name: "just-silent-is-unreached", pkg: agent, test: "TestSilentForLong", plain: true,
			edits: []edit{{file: "peers.go", old: ">= unreachedAfter", new: ">= 0"}},
		},
		{
			name: "answers-are-forgotten", pkg: agent, test: "TestPropertyOwnHostSubnetIsTheNewestKnown", plain: true,
			edits: []edit{{file: "own.go", old: "o.live.Generation > cached.Generation", new: "false"}},
		},
		{
			name: "answers-beat-the-watch", pkg: agent, test: "TestPropertyOwnHostSubnetIsTheNewestKnown", plain: true,
			edits: []edit{{file: "own.go", old: "o.live.Generation > cached.Generation", new: "true"}},
		},
		{
			name: "answers-out-of-order", pkg: agent, test: "TestPropertyOwnHostSubnetIsTheNewestKnown", plain: true,
			edits: []edit{{file: "own.go", old: "if q.number < o.answered {", new: "if q.number < 0 {"}},
		},
		{
			name: "deletions-are-not-answers", pkg: agent, test: "TestPropertyOwnHostSubnetIsTheNewestKnown", plain: true,
			edits: []edit{{file: "own.go", old: "cached = slices.Clone(cached)\n\tif o.live == nil {", new: "cached = slices.Clone(cached)\n\tif o.live == nil {\n\t\treturn cached\n\t}\n\tif o.live == nil {"}},
		},
		{
			name: "successors-are-overlooked", pkg: agent, test: "TestPropertyOwnHostSubnetIsTheNewestKnown", plain: true,
			edits: []edit{{file: "own.go", old: "return o.cached.uid == cached.UID", new: "return o.live == nil && o.cached.uid == cached.UID"}},
		},
		{
			name: "answers-do-not-count", pkg: agent, test: "TestClaimsThatADeadWatchDoesNotDeliver", plain: true,
			edits: []edit{{file: "caches.go", old: "c.own.correct(c.options.NodeName, hostSubnets.Items)", new: "hostSubnets.Items"}},
		},
		{
			name: "answers-bring-back-the-deleted", pkg: agent, test: "TestOwnHostSubnetThatTheWatchHasNotDelivered", plain: true,
			edits: []edit{{file: "own.go", old: "\tif o.answered == 0 ||", new: "\tif i < 0 && o.live != nil {\n\t\treturn append(cached, *o.live)\n\t}\n\tif o.answered == 0 ||"}},
		},
	}
}
