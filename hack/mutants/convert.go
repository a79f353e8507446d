package main

// pluginMutants are mistakes of the kubectl plugin about EgressIPs, and of what it converts.
func pluginMutants() []mutant {
	m := func(name, test, file, old, mutated string) mutant {
		return mutant{name: name, pkg: "./cmd/kubectl-egressip", test: test, plain: true, edits: []edit{{file: file, old: old, new: mutated}}}
	}
	drawn := func(name, file, old, mutated string) mutant {
		converted := m(name, "TestPropertyConvertAndBack", file, old, mutated)
		converted.plain = false
		return converted
	}
	return []mutant{
		m("plugin-reads-foreign-egressips", "TestEgressIPsThatAreOurs", "connect.go", "crd.Annotations[ovnv1.AnnotationServedBy] == ovnv1.ServedBy", "crd.Annotations != nil"),
		m("plugin-believes-any-egressip", "TestEgressIPsThatAreOurs", "connect.go", "return hidden && !numbered", "return false && numbered"),
		m("convert-creates-nodes", "TestNodesThatAreGone", "convert.go", "in.complete && !there {", "in.complete && !there && h.Gone {"),
		m("convert-hides-who-counts", "TestConvertFiles", "convert_back.go", "case counts[selected[0]] != e.Name:", "case counts[selected[0]] == \"\":"),
		m("convert-forgets-claims", "TestConvertFiles", "convert_back.go", "slices.Concat(old.EgressIPs, claims)", "slices.Clone(claims)"),
		m("convert-guesses-namespaces", "TestConvertFiles", "convert_back.go", "case !spaces.given[selected[0]] && !onlyName(&e.Spec.NamespaceSelector):", "case false:"),
		m("convert-takes-from-requests", "TestConvertFiles", "convert_back.go", "	case ofRequest:\n", "	case ofRequest && !all:\n"),
		m("convert-uncovers", "TestConvertFiles", "convert_back.go", "return other <= name })", "return other >= name })"),
		m("convert-overtakes", "TestConvertFiles", "convert.go", "if name > namespace {", "if name < namespace {"),
		drawn("convert-leaves-old-annotations", "convert_back.go", "e.Annotations, old.Annotations, ", "e.Annotations, nil, "),
		drawn("convert-forgets-the-order", "convert.go", "old.Annotations, egress.Balanced)", "old.Annotations, egress.Ordered)"),
		drawn("convert-forgets-balance", "convert_back.go", "old.Annotations, egress.Ordered)", "old.Annotations, egress.Balanced)"),
		drawn("convert-drops-annotations", "convert.go", "value := annotations[annotation]; slices.Contains(values, value)", "value := annotations[annotation]; value == values[0]"),
		drawn("convert-sorts-addresses", "convert_back.go", "EgressIPs: texts(g.Requests),", "EgressIPs: texts(slices.SortedFunc(slices.Values(g.Requests), netip.Addr.Compare)),"),
		drawn("convert-loses-items", "convert_back.go", "hosts.claims[item.Node] = append(hosts.claims[item.Node], ip)", "hosts.claims[item.Node] = []netip.Addr{ip}"),
		drawn("convert-writes-empty-egressips", "convert.go", "if len(g.Requests) == 0 {\n", "if len(g.Requests) == 0 && g.Mode == egress.Balanced {\n"),
	}
}
