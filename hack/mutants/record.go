package main

// recordMutants are mistakes about the record of use, and about how it is read.
func recordMutants() []mutant {
	m := func(name, pkg, test, file, old, mutated string) mutant {
		return mutant{name: name, pkg: pkg, test: test, plain: true, edits: []edit{{file: file, old: old, new: mutated}}}
	}
	return []mutant{
		m("own-token-first", "./cmd/kubectl-egressip", "TestReach", "reach.go", "\tclient, err := corev1client.NewForConfig(r.cfg)\n",
			"\tif own, err := ownToken(r.cfg); err == nil {\n\t\treturn own, nil\n\t}\n\tclient, err := corev1client.NewForConfig(r.cfg)\n"),
	}
}
