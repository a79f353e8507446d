package main

// pluginMutants are mistakes of the kubectl plugin about EgressIPs.
func pluginMutants() []mutant {
	m := func(name, test, file, old, mutated string) mutant {
		return mutant{name: name, pkg: "./cmd/kubectl-egressip", test: test, plain: true, edits: []edit{{file: file, old: old, new: mutated}}}
	}
	return []mutant{
		m("plugin-reads-foreign-egressips", "TestEgressIPsThatAreOurs", "connect.go", "crd.Annotations[ovnv1.AnnotationServedBy] != ovnv1.ServedBy", "false"),
		m("plugin-believes-any-egressip", "TestEgressIPsThatAreOurs", "connect.go", "return hidden && !numbered", "return false && numbered"),
	}
}
