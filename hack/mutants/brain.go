package main

import "slices"

const (
	brain         = "./pkg/egress"
	onlinePackage = "./pkg/online"
)

// mutants is the whole list.
func mutants() []mutant {
	return slices.Concat(resolveMutants(), insideMutants(), networkMutants(), memoMutants(), familyMutants(), failBackMutants(), egressIPMutants(), conformanceMutants(), poolMutants(), destinationMutants(), healthMutants(), probeMutants(), allocateMutants(), ownershipMutants(), netIDMutants(), agentMutants(), controllerMutants(), claimMutants(), endpointMutants(), criMutants(), kernelMutants(), passMutants(), ruleMutants(), ipv6Mutants(), hosts6Mutants(), bootMutants(), pluginMutants(), traceMutants(), liveMutants(), furtherMutants(), networkChoiceMutants(), recordMutants(), pageMutants())
}

// insideMutants are mistakes about whose word makes an address one of the cluster.
func insideMutants() []mutant {
	m := func(name, old, mutated string) mutant {
		return mutant{
			name: name, pkg: brain, test: "TestWhichAddressesOfNodesAreInside", plain: true,
			edits: []edit{{file: "inside.go", old: old, new: mutated}},
		}
	}
	return []mutant{
		{
			name: "one-host-makes-a-segment", pkg: brain, test: "TestWhichAddressesOfNodesAreInside", plain: true,
			edits: []edit{{file: "host_addresses.go", old: "count[host.network()] > 1", new: "count[host.network()] > 0"}},
		},
		m("agents-word-is-enough", "shared && host.network().Contains(ip) ||", "shared ||"),
		m("nodes-word-is-enough", "for _, ip := range host.Addresses {\n\t\t\tif shared", "for _, ip := range slices.Concat(host.Addresses, host.Listed) {\n\t\t\tif shared"),
		{
			name: "api-servers-are-outside", pkg: brain, test: "TestAPIServersAreInside", plain: true,
			edits: []edit{{file: "decide.go", old: "services, apiServers(cluster, in.APIServers))", new: "services)"}},
		},
		{
			name: "strict-covers-the-pod-cidr-alone", pkg: brain, test: "TestStrictCoversWherePodsAre", plain: true,
			edits: []edit{{file: "strict.go", old: "if i := slices.IndexFunc(cluster, within); i >= 0 {", new: "if i := slices.IndexFunc(cluster, within); i > len(cluster) {"}},
		},
		m("egress-ips-are-inside", "withoutEgressIPs(c, believed)", ""),
		{
			name: "further-unpublished", pkg: brain, test: "TestWhatAHostPublishesOfItsAddresses", plain: true,
			edits: []edit{{file: "inside.go", old: "	for ip := range left {", new: "	withoutEgressIPs(c, left)\n	for ip := range left {"}},
		},
		{
			name: "further-of-anyone", pkg: brain, test: "TestFurtherAddressesAreNoEgressIPs", plain: true,
			edits: []edit{{file: "host_addresses.go", old: "onUplink := host.SharesSegment && host.network()", new: "onUplink := host.network()"}, {file: "host_addresses.go", old: "!host.SharesSegment && len(host.SharedNetworks) == 0", new: "host.Gone"}},
		},
		{
			name: "further-anywhere", pkg: brain, test: "TestFurtherAddressesAreNoEgressIPs", plain: true,
			edits: []edit{
				{file: "host_addresses.go", old: "onUplink := host.SharesSegment && host.network().Contains(ip)", new: "onUplink := ip.IsValid()"},
				{file: "host_addresses.go", old: "!host.SharesSegment && len(host.SharedNetworks) == 0", new: "host.Gone"},
			},
		},
		{
			name: "further-wins", pkg: brain, test: "TestFurtherAddressesAreNoEgressIPs", plain: true,
			edits: []edit{{file: "host_addresses.go", old: "if report.Configured {", new: "if report.Configured && report.Reason != \"\" {"}},
		},
		{
			name: "further-of-its-own", pkg: brain, test: "TestFurtherAddressesAreNoEgressIPs", plain: true,
			edits: []edit{{file: "resolve_index.go", old: "if host.hasItself(ip) {", new: "if host.hasItself(ip) && host.Gone {"}},
		},
	}
}

func netIDMutants() []mutant {
	return []mutant{{
		name: "netid-of-another", pkg: brain, test: "TestPropertyNetIDs",
		edits: []edit{{file: "netid.go", old: "return inUse[id] || taken[id]", new: "return taken[id]"}},
	}}
}

func resolveMutants() []mutant {
	return []mutant{
		{
			name: "hosts-unsorted", pkg: brain, test: "TestPropertyOrderOfObjectsMeansNothing",
			edits: []edit{{
				file: "objects.go",
				old:  "slices.SortFunc(cluster.Hosts, func(a, b Host) int { return strings.Compare(a.Name, b.Name) })",
			}},
		},
		{
			name: "claims-unsorted", pkg: brain, test: "TestPropertyOrderOfObjectsMeansNothing",
			edits: []edit{{file: "objects.go", old: "h.Claims = sortedUnique(slices.Concat(h.Claims, h.Assigned))", new: "h.Claims = slices.Compact(slices.Concat(h.Claims, h.Assigned))"}},
		},
		{
			name: "netid-shared", pkg: brain, test: "TestPropertyNoPacketLeavesWithAnotherAddress",
			edits: []edit{{file: "resolve_index.go", old: "requesting[group.NetID] > 1", new: "requesting[group.NetID] > 2"}},
		},
		{
			name: "same-host-used", pkg: brain, test: "TestPropertyNoPacketLeavesWithAnotherAddress",
			edits: []edit{{file: "resolve_index.go", old: "f.host == h }); i >= 0 {", new: "f.host == h }); i >= 0 && len(requests) > 9 {"}},
		},
		{
			name: "invalid-forgotten", pkg: brain, test: "TestPropertyNoPacketLeavesWithAnotherAddress",
			edits: []edit{{
				file: "cluster.go", old: "return len(n.Requests)+len(n.Invalid) > 0", new: "return len(n.Requests) > 0",
			}},
		},
		{
			name: "unknown-is-node", pkg: brain, test: "TestPropertyNoPacketLeavesWithAnotherAddress",
			edits: []edit{{file: "planfor.go", old: "return PodPath{}, false", new: "return PodPath{IP: pod.IP, Namespace: pod.Namespace}, true"}},
		},
		{
			name: "two-hosts-have-it", pkg: brain, test: "TestPropertyOneHostHasAnAddress",
			edits: []edit{{file: "resolve_index.go", old: "if len(a.hosts) > 1 {\n\t\treturn ReasonMultipleHosts", new: "if len(a.hosts) > 2 {\n\t\treturn ReasonMultipleHosts"}},
		},
		{
			name: "offline-releases", pkg: brain, test: "TestPropertyOfflineHostKeepsItsAddresses",
			edits: []edit{{file: "resolve_index.go", old: `if x.bad[h] != "" {`, new: `if x.bad[h] != "" || !x.Hosts[h].Online {`}},
		},
		{
			name: "anyone-sinks-all", pkg: brain, test: "TestPropertyStrangersDoNoHarm",
			edits: []edit{{
				file: "resolve_index.go", old: "if len(a.hosts) != 1 || a.hostIP ||",
				new: "if a.sameHost = len(x.Hosts) > 3; len(a.hosts) != 1 || a.hostIP ||",
			}},
		},
		{
			name: "silent-offline", pkg: brain, test: "TestPropertyEverythingIsExplained",
			edits: []edit{{file: "resolve_messages.go", old: "case result.State == HostOffline:\n\t\treturn fmt.Sprintf(\"The host", new: "case result.State == Invalid:\n\t\treturn fmt.Sprintf(\"The host"}},
		},
	}
}

func allocateMutants() []mutant {
	return []mutant{
		{
			name: "rebalance-for-ever", pkg: brain, test: "TestPropertyConverges",
			edits: []edit{
				{file: "allocate_rebalance.go", old: "if !next.betterThan(now) {", new: "if next == nil {"},
				{file: "allocate_rebalance.go", old: "load >= d.after.load[h]+2", new: "load >= d.after.load[h]"},
				{file: "allocate_rebalance.go", old: "now.load[h] >= share/2", new: "now.load[h] >= share"},
			},
		},
		{
			name: "unrequested-kept", pkg: brain, test: "TestPropertyConverges",
			edits: []edit{{
				file: "allocate.go", old: "\tfor ip, h := range p.reserved {",
				new: "" +
					"\tfor gone, reason := range a.reasons {\n\t\tif reason == ReasonNotRequested {\n" +
					"\t\t\tclaims[gone.host] = append(claims[gone.host], gone.ip)\n\t\t}\n\t}\n\tfor ip, h := range p.reserved {",
			}},
		},
		{
			name: "siblings-together", pkg: brain, test: "TestPropertyNamespaceNeverTwiceOnAHost",
			edits: []edit{{file: "allocate_placement.go", old: "return !sibling && ", new: "return (!sibling || p.load[h] < 2) && "}},
		},
		{
			name: "claim-before-release", pkg: brain, test: "TestPropertyNoDoubleClaim",
			edits: []edit{{file: "allocate.go", old: "if !listed[request.id] {", new: "if _, stays := now.host(request); !stays || !listed[request.id] {"}},
		},
		{
			name: "last-claim-forgotten", pkg: brain, test: "TestPropertySettledClusterDoesNotMove",
			edits: []edit{{file: "allocate.go", old: "case p.full(h):\n\t\treturn ReasonCapacity", new: "case p.full(h) || p.load[h] > 1:\n\t\treturn ReasonCapacity"}},
		},
		{
			name: "balance-at-any-price", pkg: brain, test: "TestPropertyHostGoesOthersStay",
			edits: []edit{{file: "allocate_rebalance.go", old: "now.load[h] >= share/2", new: "now.load[h] >= share"}},
		},
		{
			name: "all-move", pkg: brain, test: "TestPropertyHostComesFewMove",
			edits: []edit{{file: "allocate_rebalance.go", old: "moving[r.ip] = true", new: "for _, k := range kept {\n\t\t\t\tmoving[k.ip] = true\n\t\t\t}"}},
		},
		{
			name: "no-augmenting-path", pkg: brain, test: "TestPropertyWhatCanBePlacedIsPlaced",
			edits: []edit{{file: "allocate_placement.go", old: "return newAugmenter(p, pool, requests).placeAll(unplaced)", new: "return unplaced"}},
		},
		{
			name: "capacity-off-by-one", pkg: brain, test: "TestPropertyWhatCanBePlacedIsPlaced",
			edits: []edit{{file: "allocate_placement.go", old: "func (p *placement) full(h int) bool { return p.free(h) <= 0 }", new: "func (p *placement) full(h int) bool { return p.free(h) <= 1 }"}},
		},
	}
}
