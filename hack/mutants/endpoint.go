package main

const endpoint = "./internal/endpoint"

// endpointMutants are mistakes about who gets what is served, and about ports that are taken.
func endpointMutants() []mutant {
	return []mutant{
		{
			name: "everyone-may", pkg: endpoint, test: "TestMetricsOfARealCluster", plain: true,
			edits: []edit{{file: "access.go", old: "case !rights.Status.Allowed:", new: "case rights.Status.Denied:"}},
		},
		{
			name: "anonymous-may", pkg: endpoint, test: "TestMetricsOfARealCluster", plain: true,
			edits: []edit{{file: "endpoint.go", old: "guard = a.guard\n", new: "_ = a.guard\n"}},
		},
		{
			name: "asks-for-metrics-alone", pkg: endpoint, test: "TestMetricsOfARealCluster", plain: true,
			edits: []edit{{file: "access.go", old: "Path: path, Verb", new: "Path: metricsPath, Verb"}},
		},
		{
			name: "profiles-of-the-command-line", pkg: endpoint, test: "TestProfiles", plain: true,
			edits: []edit{{file: "profiles.go", old: "mux.HandleFunc(profilesPath+\"/symbol\", pprof.Symbol)", new: "mux.HandleFunc(profilesPath+\"/cmdline\", pprof.Cmdline)"}},
		},
		{
			name: "one-yes-for-all-paths", pkg: endpoint, test: "TestAccessIsByPath", plain: true,
			edits: []edit{{file: "access.go", old: "question{token: sha256.Sum256([]byte(token)), path: path}", new: "question{token: sha256.Sum256([]byte(token))}"}},
		},
		{
			name: "revoked-for-ever", pkg: endpoint, test: "TestAccessIsRemembered", plain: true,
			edits: []edit{{file: "access.go", old: "last.verdict == allowed && a.clock.Since(last.at) < staleFor", new: "last.verdict == allowed"}},
		},
		{
			name: "no-is-stale-too", pkg: endpoint, test: "TestAccessIsRemembered", plain: true,
			edits: []edit{{
				file: "access.go", old: "last.verdict == allowed && a.clock.Since(last.at) < staleFor {\n\t\t\treturn allowed, nil",
				new: "a.clock.Since(last.at) < staleFor {\n\t\t\treturn last.verdict, nil",
			}},
		},
		{
			name: "flood-displaces-scrapers", pkg: endpoint, test: "TestAccessRemembersLittle", plain: true,
			edits: []edit{{file: "access.go", old: "yes != other {", new: "yes && !yes && other {"}},
		},
		{
			name: "flood-goes-on-to-the-api-server", pkg: endpoint, test: "TestAccessAsksLittleAtOnce", plain: true,
			edits: []edit{{
				file: "access.go", old: "return unknown, fmt.Errorf(\"more than %d clients at a time\", askAtOnce)",
				new: "return a.ask(ctx, token, path)",
			}},
		},
		{
			name: "taken-port-ends", pkg: endpoint, test: "TestTakenPort", plain: true,
			edits: []edit{{file: "listener.go", old: "\t\tcase <-again.C:\n", new: "\t\tcase <-again.C:\n\t\t\treturn nil, err\n"}},
		},
		{
			name: "taken-port-is-left", pkg: endpoint, test: "TestTakenPort", plain: true,
			edits: []edit{{file: "listener.go", old: "\t\tcase <-again.C:\n", new: ""}},
		},
	}
}
