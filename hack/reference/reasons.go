package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// reasonTables are the tables of docs/reference/conditions.md.
func reasonTables(root string) (map[string]string, error) {
	var errs []error
	read := func(dir string) []constant {
		c, err := readConstants(root, dir)
		errs = append(errs, err)
		return c
	}
	api, pools, brain := read("api/v1"), read("api/egressip/v1alpha1"), read("pkg/egress")
	online, warnings, agent, controller := read("pkg/online"), read("pkg/dataplane/warning"), read("pkg/agent"), read("controllers")
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	tables := make(map[string]string)
	for _, t := range []struct {
		name     string
		of       []constant
		remedies map[string]string
		rule     func(constant) bool
	}{
		{"conditions", append(api, pools...), nil, func(c constant) bool { return strings.HasPrefix(c.name, "Condition") }},
		{"states", api, nil, func(c constant) bool { return c.typ == "EgressIPState" }},
		{"reasons", brain, remedies(), func(c constant) bool { return c.typ == "Reason" && c.file != "pools.go" }},
		{"reasons of requests", brain, poolRemedies(), func(c constant) bool { return c.typ == "Reason" && c.file == "pools.go" }},
		{"reasons of online", online, onlineRemedies(), func(c constant) bool { return c.typ == "Reason" }},
		{"reasons of agents", agent, agentRemedies(), func(c constant) bool { return strings.HasPrefix(c.name, "Reason") }},
		{"reasons of warnings", warnings, nil, func(c constant) bool { return c.typ == "Reason" }},
		{"other reasons", controller, nil, func(c constant) bool {
			return strings.HasPrefix(c.name, "reason") && c.file != "moves.go" // those of metrics
		}},
	} {
		chosen, err := which(t.of, t.name, t.rule)
		if err != nil {
			return nil, err
		}
		if tables[t.name], err = reasonTable(chosen, t.remedies); err != nil {
			return nil, fmt.Errorf("table of %s: %w", t.name, err)
		}
	}
	return tables, nil
}

// reasonTable is a table of words with their meaning and, where there are remedies, what to do.
func reasonTable(constants []constant, remedies map[string]string) (string, error) {
	var b strings.Builder
	if remedies == nil {
		b.WriteString("| | meaning |\n|---|---|\n")
	} else {
		b.WriteString("| reason | meaning | what to do |\n|---|---|---|\n")
	}
	left := maps.Clone(remedies)
	var errs []error
	for _, c := range constants {
		fmt.Fprintf(&b, "| `%s` | %s |", c.value, cell(sentence(c.about)))
		if remedies != nil {
			remedy, known := remedies[c.value]
			if !known {
				errs = append(errs, fmt.Errorf("%s: hack/reference/remedies.go does not say what to do", c.value))
			}
			delete(left, c.value)
			fmt.Fprintf(&b, " %s |", cell(remedy))
		}
		b.WriteString("\n")
	}
	for _, word := range slices.Sorted(maps.Keys(left)) {
		errs = append(errs, fmt.Errorf("%s: hack/reference/remedies.go has it, and there is no such constant", word))
	}
	return b.String(), errors.Join(errs...)
}

// eventTable is the table of docs/reference/events.md.
func eventTable(root string) (string, error) {
	constants, err := readConstants(root, "controllers")
	if err != nil {
		return "", err
	}
	var b strings.Builder
	b.WriteString("| reason | type | on | meaning | what to do |\n|---|---|---|---|---|\n")
	known := events()
	var errs []error
	for _, c := range constants {
		if c.file != "events.go" || !strings.HasPrefix(c.name, "event") {
			continue
		}
		e, ok := known[c.value]
		if !ok {
			errs = append(errs, fmt.Errorf("event %s: hack/reference/events.go does not have it", c.value))
		}
		delete(known, c.value)
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", c.value, e.kind, e.on, cell(e.means), cell(e.remedy))
	}
	for _, word := range slices.Sorted(maps.Keys(known)) {
		errs = append(errs, fmt.Errorf("event %s: hack/reference/events.go has it, and there is no such constant", word))
	}
	return b.String(), errors.Join(errs...)
}
