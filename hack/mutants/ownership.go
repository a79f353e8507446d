package main

// ownershipMutants are mistakes about whose settings and addresses are whose, and for
// how long they are kept.
func ownershipMutants() []mutant {
	return []mutant{
		{
			name: "mark-alone-is-ours", pkg: brain, test: "TestBinding",
			edits: []edit{{file: "binding.go", old: `bound := b.BoundUID != "" && b.BoundUID == b.UID`, new: `bound := b.MarkedUID != ""`}},
		},
		{
			name: "any-bound-uid-is-ours", pkg: brain, test: "TestBinding",
			edits: []edit{{file: "binding.go", old: `b.BoundUID != "" && b.BoundUID == b.UID`, new: `b.BoundUID != ""`}},
		},
		{
			name: "ownerless-is-orphaned", pkg: brain, test: "TestBinding",
			edits: []edit{{file: "binding.go", old: "return BindingLeave", new: "return BindingOrphaned"}},
		},
		{
			name: "first-address-counts", pkg: brain, test: "TestChooseHostIP",
			edits: []edit{{file: "hostip.go", old: "if why == \"\" {", new: "if why != \"none\" {"}},
		},
		{
			name: "present-is-forgotten", pkg: brain, test: "TestChooseHostIP",
			edits: []edit{{file: "hostip.go", old: "if slices.Contains(listed, present) {", new: "if !slices.Contains(listed, listed[0]) {"}},
		},
		{
			name: "binding-waits-for-others", pkg: "./controllers", test: "TestBoundWhateverOthersWrite",
			edits: []edit{{file: "binding.go", old: `"uid": m.UID,`, new: `"uid": m.UID, "resourceVersion": object.GetResourceVersion(),`}},
		},
		{
			name: "binding-of-another", pkg: "./controllers", test: "TestBoundWhateverOthersWrite",
			edits: []edit{{file: "binding.go", old: `"uid": m.UID,`, new: ``}},
		},
		{
			name: "nobody-waits", pkg: brain, test: "TestAwaitedClaims",
			edits: []edit{{file: "allocate.go", old: "reason == ReasonNotRequested && reserve && ", new: "!reserve && reserve && "}},
		},
		{
			name: "awaited-outside-ranges", pkg: brain, test: "TestAwaitedClaims",
			edits: []edit{{file: "allocate.go", old: "awaits(&a.Hosts[h], ip) && inRanges(&a.Hosts[h], ip) &&", new: "awaits(&a.Hosts[h], ip) &&"}},
		},
		{
			name: "first-list-wins", pkg: brain, test: "TestPropertyRestoreInAnyOrder",
			edits: []edit{{file: "allocate.go", old: "case !awaits(&a.Hosts[h], address.ip):\n", new: "case awaits(&a.Hosts[h], address.ip):\n"}},
		},
		{
			name: "balanced-while-restored", pkg: brain, test: "TestAwaitedClaims",
			edits: []edit{{file: "allocate.go", old: "len(a.reasons) == 0 && !awaiting {", new: "len(a.reasons) == 0 && (!awaiting || len(kept) > 0) {"}},
		},
		{
			name: "awaited-takes-a-place", pkg: brain, test: "TestAwaitedClaims",
			edits: []edit{{file: "allocate.go", old: "len(left) < len(unplaced)", new: "len(left) > len(unplaced)"}},
		},
		{
			name: "gone-host-keeps", pkg: brain, test: "TestGoneHostYields",
			edits: []edit{{file: "resolve.go", old: "case !slices.Contains(a.hosts, h):", new: "case !slices.Contains(a.hosts, h) && len(a.hosts) == 0:"}},
		},
		{
			name: "gone-host-counts", pkg: brain, test: "TestNamespaces",
			edits: []edit{{file: "host_addresses.go", old: "if !hosts[h].Gone {", new: "if h >= 0 {"}},
		},
		{
			name: "no-netid-is-zero", pkg: brain, test: "TestNamespaces",
			edits: []edit{{file: "objects.go", old: "Name: object.Name, NetID: id, Unnumbered: !numbered", new: "Name: object.Name, NetID: id, Unnumbered: !numbered && id > 0"}},
		},
	}
}
