package main

const (
	pagePackage = "./internal/page"
	pagePlugin  = "./cmd/kubectl-egressip"
	pageRuns    = "./controllers"
)

// pageMutants are mistakes about what the page shows, and who may see it.
func pageMutants() []mutant {
	return []mutant{
		{
			name: "page-unknown-is-ok", pkg: pagePackage, test: "TestLevels", plain: true,
			edits: []edit{{file: "group.go", old: "case g.Ready == string(egress.ReadyUnknown):\n\t\treturn worst(level, LevelUnknown)", new: "case g.Ready == string(egress.ReadyUnknown):\n\t\treturn LevelOK"}},
		},
		{
			name: "page-conflict-is-failed", pkg: pagePackage, test: "TestLevels", plain: true,
			edits: []edit{{file: "group.go", old: "case egress.Conflict:\n\t\treturn LevelConflict", new: "case egress.Conflict:\n\t\treturn LevelDegraded"}, {file: "group.go", old: "case contrary(g.Reason):", new: "case contrary(g.Reason) && !g.Dropped:"}},
		},
		{
			name: "page-forgets-what-is-gone", pkg: pagePackage, test: "TestFeedCatchesUp", plain: true,
			edits: []edit{{file: "feed.go", old: "gone = append(gone, id)", new: "_ = append(gone, id)"}},
		},
		{
			name: "page-moves-of-standbys", pkg: pagePackage, test: "TestMoves", plain: true,
			edits: []edit{{file: "model.go", old: "if r.State == string(egress.Active) {", new: "if r.State == string(egress.Active) || r.State == string(egress.Standby) {"}},
		},
		{
			name: "page-takes-any-number", pkg: pagePackage, test: "TestFeedCatchesUp", plain: true,
			edits: []edit{{file: "feed.go", old: "err == nil && epoch == f.epoch && n >= 1", new: "err == nil && epoch != \"\" && n >= 1"}},
		},
		{
			name: "page-without-policy", pkg: pagePackage, test: "TestHeaders", plain: true,
			edits: []edit{{file: "page.go", old: "h.Set(\"Content-Security-Policy\", policy)", new: "h.Set(\"Content-Security-Policy\", \"script-src 'self' 'unsafe-inline'\")"}},
		},
		{
			name: "page-has-room-for-all", pkg: pagePackage, test: "TestStreamsAreBounded", plain: true,
			edits: []edit{{file: "page.go", old: "clients: make(chan struct{}, clientsAtMost)", new: "clients: make(chan struct{}, 1000*clientsAtMost)"}},
		},
		{
			name: "page-swaps-who-leads", pkg: pageRuns, test: "TestPageOfEveryReplica", plain: true,
			edits: []edit{{file: "page.go", old: "if s.led() {\n\t\t\t\treturn", new: "if !s.led() {\n\t\t\t\treturn"}},
		},
		{
			name: "page-misses-status-of-egressips", pkg: pageRuns, test: "TestPageOfEveryReplica", plain: true,
			edits: []edit{{file: "egressips.go", old: "} else if e.seen != nil {", new: "} else if e.seen != nil && e.repair == nil {"}},
		},
		{
			name: "page-for-any-host", pkg: pagePlugin, test: "TestPage", plain: true,
			edits: []edit{{file: "page_proxy.go", old: "case r.Host != p.host:", new: "case r.Host == \"\":"}},
		},
		{
			name: "page-for-other-sites", pkg: pagePlugin, test: "TestPage", plain: true,
			edits: []edit{{file: "page_proxy.go", old: "site != \"same-origin\"", new: "site != \"same-origin\" && site != \"same-site\""}},
		},
		{
			name: "page-without-secret", pkg: pagePlugin, test: "TestPage", plain: true,
			edits: []edit{{file: "page_proxy.go", old: "ok && subtle.ConstantTimeCompare([]byte(secret), []byte(p.secret)) == 1 &&", new: "ok && secret != \"\" &&"}},
		},
		{
			name: "page-once-for-ever", pkg: pagePlugin, test: "TestPage", plain: true,
			edits: []edit{{file: "page_proxy.go", old: "&& p.once.CompareAndSwap(known, new(\"\"))", new: "&& p.once.CompareAndSwap(known, known)"}},
		},
	}
}
