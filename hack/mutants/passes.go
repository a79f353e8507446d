package main

// passMutants are mistakes in what a pass knows from the ones before it, and in what it asks
// the kernel.
func passMutants() []mutant {
	m := func(name, test, file, old, mutated string) mutant {
		return mutant{name: name, pkg: kernel, test: test, plain: true, edits: []edit{{file: file, old: old, new: mutated}}}
	}
	return []mutant{
		m("digest-of-former-networks", "TestDigestIsMadeAgainForOthersOnly", "digest.go", " && slices.Equal(former.givenInside, s.Inside)", ""),
		m("table-of-former-egress-ips", "TestTableIsRenderedForTheRulesItIsAskedFor", "apply_round.go", "p.Indices = maps.Clone(p.Indices)", ""),
		m("ousted-once-is-often", "TestOthersThatComeFirstAgainAndAgain", "ousted.go", "len(c.at) >= oustedOften", "len(c.at) >= 1"),
		m("presence-is-renewed-when-it-ends", "TestPresenceIsRenewedInTime", "presence.go", "< stays/renewals", "< stays"),
		m("rules-for-the-main-table-lead-elsewhere", "TestRulesOfOthersThatMatchAPod", "look.go", "|| rule.Table == unix.RT_TABLE_MAIN ", ""),
		m("on-link-routes-make-no-news", "TestWhatIsNews", "news.go", "return ours || n.isNeighbourly(data)", "return ours"),
		m("found-outward-rests-long", "TestPodsAreLocatedFromTimeToTime", "locate.go", "rest = lookSoon", "rest = lookEvery"),
		m("wrong-sources-are-forgotten", "TestSourcesOfOverlayPacketsAreChecked", "overlay_source.go", "if known.wrong == nil {", "if known.next >= 0 {"),
		m("routes-are-not-read-again", "TestRoutesAreReadAgainWhereTheyMayDiffer", "routed.go", "r.asSet && same && monotonic()-r.at < wholeEvery", "r.asSet && same"),
		m("default-route-of-ipv6-is-not-guarded", "TestWaysOut", "ways_out.go", "for _, ipv6 := range []bool{false, true} {", "for _, ipv6 := range []bool{false} {"),
	}
}
