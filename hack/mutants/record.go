package main

// recordMutants are mistakes about the record of use, and about how it is read.
func recordMutants() []mutant {
	m := func(name, pkg, test, file, old, mutated string) mutant {
		return mutant{name: name, pkg: pkg, test: test, plain: true, edits: []edit{{file: file, old: old, new: mutated}}}
	}
	const pkg, invented = "./internal/record", "TestNothingIsInvented"
	return []mutant{
		m("record-bridges-gaps", pkg, invented, "rows.go", "case last.To.Before(s.From):", "case last.To.Before(s.From) && false:"),
		m("record-skips-lost-lines", pkg, invented, "history.go", "case l.Number != b.number+1 || l.Time.Before(b.last):", "case l.Time.Before(b.last):"),
		m("record-goes-on-after-crashes", pkg, invented, "rows.go", "(at.Before(p.To) || p.Open && !at.After(p.To))", "(at.Before(p.To) || p.Open)"),
		m("record-rotates-without-uses", pkg, invented, "files.go", "for _, p := range b.uses() {", "for _, p := range b.uses()[:0] {"),
		m("record-grows", pkg, invented, "files.go", "\t\ttotal -= sizes[i]", "\t\ttotal = 0 * sizes[i]"),
		m("record-believes-writes", pkg, "TestFullDisk", "recorder.go", "\tif err != nil {\n\t\tr.fresh, r.waiting = true, nil\n\t}", ""),
		m("record-repeats-pages", pkg, "TestPages", "serve.go", "all[limit-1].String()", "all[0].String()"),
		m("use-is-reported-twice", "./controllers", "TestUsesAreReportedOnce", "uses.go", "if ok && !older(was, object) {", "if ok && !older(was, object) && false {"),
		m("use-base-is-empty", "./controllers", "TestUsesAreReportedOnce", "uses.go", "\t\tu.known[object.GetUID()] = object\n\t\tinUse", "\t\tinUse"),
		m("deleted-use-goes-on", "./controllers", "TestUsesAreReportedOnce", "uses.go", "\tu.changed(was, without, useDeleted)\n", ""),
		m("forged-use-is-recorded", "./controllers", "TestForgedUseIsNotRecorded", "publisher.go", "if p.repairLater(stored) || p.uses == nil", "if p.repairLater(stored); p.uses == nil"),
		m("use-ends-without-event", "./controllers", "TestEachChangeOfUseHasOneEvent", "events.go", "case a.to == \"\":\n\t\t\tnotices", "case a.to == \"\" && now.State == v1.StateStandby:\n\t\t\tnotices"),
		m("own-token-first", "./cmd/kubectl-egressip", "TestReach", "reach.go", "\tclient, err := corev1client.NewForConfig(r.cfg)\n",
			"\tif own, err := ownToken(r.cfg); err == nil {\n\t\treturn own, nil\n\t}\n\tclient, err := corev1client.NewForConfig(r.cfg)\n"),
	}
}
