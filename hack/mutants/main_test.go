package main

import (
	"slices"
	"testing"
)

// TestMutantsFit: each mutant can be planted in the code as it is, so that the list
// does not rot between two runs of it, which take long.
func TestMutantsFit(t *testing.T) {
	root, err := moduleRoot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	names := make(map[string]bool)
	for _, m := range mutants() {
		if names[m.name] {
			t.Errorf("two mutants are named %s", m.name)
		}
		names[m.name] = true
		if _, err := m.plant(root, t.TempDir()); err != nil {
			t.Errorf("%s: %v", m.name, err)
		}
	}
}

func TestFlagsChooseMutants(t *testing.T) {
	all := []mutant{{name: "a", pkg: "./pkg/one"}, {name: "b", pkg: "./pkg/two"}, {name: "c", pkg: "./pkg/one"}}
	for _, c := range []struct {
		o    options
		want []string
	}{
		{options{}, []string{"a", "b", "c"}},
		{options{only: "b"}, []string{"b"}},
		{options{pkg: "pkg/one"}, []string{"a", "c"}},
		{options{after: "a"}, []string{"b", "c"}},
		{options{after: "a", pkg: "./pkg/one"}, []string{"c"}},
		{options{after: "c"}, nil},
		{options{after: "none"}, nil},
		{options{only: "b", pkg: "./pkg/one"}, nil},
	} {
		chosen, err := c.o.choose(all)
		var names []string
		for _, m := range chosen {
			names = append(names, m.name)
		}
		if !slices.Equal(names, c.want) || (err == nil) != (len(c.want) > 0) {
			t.Errorf("%+v: %v, %v", c.o, names, err)
		}
	}
}
