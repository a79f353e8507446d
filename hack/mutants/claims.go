package main

// claimMutants are mistakes in the order in which the controller writes verdicts and claims.
func claimMutants() []mutant {
	return []mutant{
		{
			name: "two-writes-of-one-netnamespace", pkg: controller, test: "TestNoSecondWriteBesideOne", plain: true,
			edits: []edit{{file: "netnamespace.go", old: "return given || r.writes.underWay(writesNetID, name)", new: "return given"}},
		},
		{
			name: "unplaced-is-forgotten", pkg: brain, test: "TestWhatIsDisplaced", plain: true,
			edits: []edit{{file: "displaced.go", old: "range a.Unplaced {", new: "range a.Unplaced[:0] {"}},
		},
		{
			name: "unrequested-is-displaced", pkg: brain, test: "TestWhatIsDisplaced", plain: true,
			edits: []edit{{file: "displaced.go", old: "return r.Reason != ReasonNotRequested", new: "return r.Reason != \"\""}},
		},
		{
			name: "placements-beside-moves", pkg: controller, test: "TestMovesComeBeforePlacements", plain: true,
			edits: []edit{{file: "claim_order.go", old: "\t\t\trest = append(rest, w)\n", new: "\t\t\tmoving = append(moving, w)\n"}},
		},
		{
			name: "placements-beside-verdicts", pkg: controller, test: "TestMovesComeBeforePlacements", plain: true,
			edits: []edit{{file: "allocate.go", old: "\tif len(judged) > 0 {\n\t\tleft", new: "\tif len(judged) > maxClaims {\n\t\tleft"}},
		},
		{
			name: "releases-wait-for-placements", pkg: controller, test: "TestMovesComeBeforePlacements", plain: true,
			edits: []edit{{file: "claim_order.go", old: "released[w.before.Name]) {", new: "nil) {"}},
		},
		{
			name: "displaced-wait-for-placements", pkg: controller, test: "TestMovesComeBeforePlacements", plain: true,
			edits: []edit{{file: "claim_order.go", old: "displaced.Moves(w.wanted.all(), ", new: "displaced.Moves(nil, "}},
		},
		{
			name: "refused-claims-pause-the-rest", pkg: controller, test: "TestRefusalsDoNotPauseTheRest", plain: true,
			edits: []edit{{file: "reconciler.go", old: "case left || leftClaims:", new: "case left || leftClaims && !leftClaims:"}},
		},
		{
			name: "refused-verdicts-pause-the-rest", pkg: controller, test: "TestRefusalsDoNotPauseTheRest", plain: true,
			edits: []edit{{file: "reconciler.go", old: "case left || leftClaims:", new: "case left && !left || leftClaims:"}},
		},
		{
			name: "all-verdicts-first", pkg: controller, test: "TestFirstClaimsWaitForFewVerdicts", plain: true,
			edits: []edit{{file: "reconciler.go", old: "slices.Chunk(changed, verdictsAtOnce)", new: "slices.Chunk(changed, 100*verdictsAtOnce)"}},
		},
		{
			name: "released-before-the-verdict", pkg: controller, test: "TestFirstClaimsWaitForFewVerdicts", plain: true,
			edits: []edit{{file: "reconciler.go", old: "for _, w := range changed {\n\t\tjudged", new: "for _, w := range changed[:min(verdictsAtOnce, len(changed))] {\n\t\tjudged"}},
		},
		{
			name: "verdicts-are-logged-again", pkg: controller, test: "TestFirstClaimsWaitForFewVerdicts", plain: true,
			edits: []edit{{file: "reconciler.go", old: "for _, w := range some {", new: "for _, w := range changed {"}},
		},
	}
}
