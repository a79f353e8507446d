package main

const probePackage = "./pkg/probe"

// probeMutants are mistakes of the prober: about one host, about all of them together,
// and about which datagram answers which question.
func probeMutants() []mutant {
	in := func(file, test string) func(name, old, replacement string) mutant {
		return func(name, old, replacement string) mutant {
			return mutant{name: name, pkg: probePackage, test: test, edits: []edit{{file: file, old: old, new: replacement}}}
		}
	}
	const (
		counters  = "h.good++\n\t\th.bad, h.unready = 0, 0\n"
		condition = "q.done || q.addr != from || q.sequence != m.Sequence || q.to.hash != m.Host"
		observed  = "\tt.hosts[name] = after\n"
	)
	loss := in("health.go", "TestPropertyNoLossBelowTheBoundTakesAHostOffline")
	flaps := in("health.go", "TestPropertyNoPatternMakesAHostFlap")
	back := in("health.go", "TestPropertyAHostThatAnswersIsBackInTime")
	silent := in("health.go", "TestPropertyAHostThatIsSilentIsOffline")
	outcomes := in("health.go", "TestPropertyOnlyOutcomesDecide")
	forged := in("schedule.go", "TestPropertyForgedAnswersSayNothing")
	spread := in("schedule.go", "TestPropertyProbesAreSpread")
	alone := in("tracker.go", "TestPropertyHostsDoNotInfluenceEachOther")
	isolation := in("tracker.go", "TestPropertyIsolationIsToldBeforeAnyHostIsOffline")
	const dead, slow = "TestPropertyADeadHostIsFoundInTime", "TestPropertyASlowHostStaysOnline"
	unbounded := back("hold-down-without-bound", "now.Add(min(hold, c.MaxHoldDown))", "now.Add(hold)")
	unbounded.edits = append(unbounded.edits, edit{file: "health.go", old: "\t\tif hold >= c.MaxHoldDown {\n\t\t\tbreak\n\t\t}\n"})
	return []mutant{
		loss("failures-add-up", counters, "h.good++\n\t\th.unready = 0\n"),
		flaps("returns-at-once", "h.good >= c.OnlineAfter && !now.Before(h.HoldUntil):", "h.good >= c.OnlineAfter:"),
		flaps("hold-down-stays", "h.flaps++", "h.flaps = 0"),
		unbounded,
		back("never-back", counters, "if h.State != Offline {\n\t\t\th.good++\n\t\t}\n\t\th.bad, h.unready = 0, 0\n"),
		silent("excused-for-ever", "h.refused.IsZero() || now.Sub(h.refused) > c.RefusalHold {", "h.refused.IsZero() {"),
		outcomes("slow-is-bad", counters, counters+"\t\tif o.RTT > c.Timeout/2 {\n\t\t\th.bad++\n\t\t}\n"),
		outcomes("restart-is-failure", "h.Restarts++", "h.Restarts++\n\t\t\th.good = 0"),
		in("schedule.go", dead)("all-begin-again", "\t\t\thave.Target = wanted[t.Name]\n", ""+
			"\t\t\thave.Target = wanted[t.Name]\n\t\t\thave.next = now.Add(s.config.Interval)\n\t\t\theap.Fix(&s.due, have.index)\n"),
		in("health.go", dead)("one-more-miss", "case h.bad >= c.OfflineAfter:", "case h.bad > c.OfflineAfter:"),
		in("schedule.go", slow)("late-is-lost", "s.late = append(s.late, q)", "s.finish(q)"),
		in("health.go", slow)("late-is-nothing", "\t\th.bad = min(h.bad, h.unready)\n\t\th.refused, h.bereft = time.Time{}, time.Time{}\n\tcase Refused:", ""+
			"\t\th.refused, h.bereft = time.Time{}, time.Time{}\n\tcase Refused:"),
		in("schedule.go", "TestPropertyAStalledProberBlamesNobody")("blames-others", "\tif stalled {", "\tif stalled && s.added == 0 {"),
		spread("all-at-once", "math.Modf(float64(s.added) * ", "math.Modf("),
		spread("drifts", "t.next = t.next.Add((skipped + 1) * s.config.Interval)", "t.next = now.Add(min(skipped+1, 1) * s.config.Interval)"),
		forged("any-address", condition, "q.done || q.sequence != m.Sequence || q.to.hash != m.Host"),
		forged("any-sequence", condition, "q.done || q.addr != from || q.to.hash != m.Host"),
		forged("any-host", condition, "q.done || q.addr != from || q.sequence != m.Sequence"),
		forged("question-answers", "m.Kind != Answer || q == nil", "q == nil"),
		forged("answers-twice", "\ts.finish(q)\n\tr := report{", "\tr := report{"),
		alone("leaves-the-round", observed, observed+"\tif after.State == Offline {\n\t\tt.hosts = map[string]Health{name: after}\n\t}\n"),
		alone("counted-together", observed, "\tfor other := range t.hosts {\n\t\tt.hosts[other] = after\n\t}\n"),
		isolation("isolated-too-late", "max(1, t.config.OfflineAfter-1)", "max(1, t.config.OfflineAfter)"),
		isolation("a-third-is-most", "return 2*fell > recent", "return 3*fell > recent"),
		in("wire.go", "TestPropertyMessagesSurviveTheWire")("fields-swapped", "Sequence: binary.BigEndian.Uint64(b[8:])", "Sequence: binary.BigEndian.Uint64(b[16:])"),
	}
}
