package main

import (
	"fmt"
	"path"
	"strings"
)

// loadingOrder returns the files of modules, with all that these depend on, each after
// what it depends on. dependencies is the content of modules.dep. A module that is not in
// it is built in, or absent: the kernel says what it lacks when it boots.
func loadingOrder(dependencies string, names ...string) ([]string, error) {
	needs, byName := map[string][]string{}, map[string]string{}
	for line := range strings.Lines(dependencies) {
		file, rest, ok := strings.Cut(strings.TrimSpace(line), ":")
		if !ok {
			return nil, fmt.Errorf("modules.dep: no colon in %q", line)
		}
		needs[file] = strings.Fields(rest)
		byName[moduleName(file)] = file
	}
	var order []string
	seen := map[string]bool{}
	var visit func(file string)
	visit = func(file string) {
		if seen[file] {
			return
		}
		seen[file] = true
		for _, other := range needs[file] {
			visit(other)
		}
		order = append(order, file)
	}
	for _, name := range names {
		if file, ok := byName[name]; ok {
			visit(file)
		}
	}
	return order, nil
}

// moduleName is the name of the module in a file such as nf-nat.ko.xz: nf_nat.
func moduleName(file string) string {
	name, _, _ := strings.Cut(path.Base(file), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}
