package conformance

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Match compares a value of the corpus with ours: "" where it fits, otherwise
// what is wrong. Ours is nil, a string, a number or a list of strings; lists
// are compared as sets. An active assignment is written "ip@node" on our side.
// before is our value before the step.
func Match(want, got, before any) string {
	switch want := want.(type) {
	case map[string]any:
		return matchPredicate(want, got, before)
	case []any:
		list, ok := got.([]string)
		if !ok {
			return differ(want, got)
		}
		wanted := make([]string, 0, len(want))
		for _, element := range want {
			wanted = append(wanted, word(element))
		}
		slices.Sort(wanted)
		if !slices.Equal(wanted, slices.Sorted(slices.Values(list))) {
			return differ(wanted, got)
		}
		return ""
	default:
		if word(want) != word(got) {
			return differ(want, got)
		}
		return ""
	}
}

func differ(want, got any) string { return fmt.Sprintf("want %v, got %v", want, got) }

// word writes a single value; an assignment as "ip@node".
func word(value any) string {
	switch value := value.(type) {
	case nil:
		return "null"
	case float64:
		return fmt.Sprintf("%.0f", value)
	case map[string]any:
		if ip, ok := value["egressIP"]; ok {
			return fmt.Sprintf("%v@%v", ip, value["node"])
		}
	}
	return fmt.Sprint(value)
}

func matchPredicate(want map[string]any, got, before any) string {
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if wrong := predicate(name, want[name], got, before); wrong != "" {
			return wrong
		}
	}
	return ""
}

func predicate(name string, argument, got, before any) string {
	list, isList := got.([]string)
	wrong := differ(fmt.Sprintf("%s %v", name, argument), got)
	holds := false
	switch name {
	case "oneOf":
		choices, _ := argument.([]any)
		holds = slices.ContainsFunc(choices, func(choice any) bool { return Match(choice, got, before) == "" })
	case "size":
		holds = isList && number(argument) == float64(len(list))
	case "sizeBetween":
		holds = isList && between(float64(len(list)), argument)
	case "between":
		holds = got != nil && between(number(got), argument)
	case "excludes":
		elements, _ := argument.([]any)
		holds = !slices.ContainsFunc(elements, func(e any) bool { return slices.Contains(list, word(e)) })
	case "contains":
		elements, _ := argument.([]any)
		holds = !slices.ContainsFunc(elements, func(e any) bool { return !slices.Contains(list, word(e)) })
	case "unchanged":
		holds = fmt.Sprint(got) == fmt.Sprint(before)
	case "nonEmpty":
		holds = got != nil && word(got) != "" && (!isList || len(list) > 0)
	default:
		return fmt.Sprintf("predicate %q is not known", name)
	}
	if holds {
		return ""
	}
	return wrong
}

func number(value any) float64 {
	switch value := value.(type) {
	case float64:
		return value
	case int:
		return float64(value)
	case uint32:
		return float64(value)
	}
	return -1
}

func between(value float64, bounds any) bool {
	list, ok := bounds.([]any)
	return ok && len(list) == 2 && number(list[0]) <= value && value <= number(list[1])
}

// State is what a driver sees of its cluster.
type State struct {
	// Assignments are the addresses that some node has on its interface.
	Assignments map[string]string
	// Active is, for each namespace, "none", "dropped", or a list of
	// "ip@node".
	Active map[string]any
	// HostSubnets are the egressIPs of each.
	HostSubnets map[string][]string
	// Requests are the egressIPs of each namespace.
	Requests map[string][]string
	// Conflicts are the reasons for which requested addresses are nobody's.
	Conflicts map[string]string
	// Online tells which nodes are.
	Online map[string]bool
	// Broken names invariants that do not hold.
	Broken []string
}

// Check returns everything in which the state differs from what is expected.
// before is the state before the step, placed that of the last step that
// placed addresses.
func (e Expect) Check(got, before, placed State) []string {
	wrong := slices.Clone(got.Broken)
	note := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	lookup := func(m map[string]string, key string) any {
		if value, ok := m[key]; ok {
			return value
		}
		return nil
	}
	for _, ip := range keys(e.Assignments, e.Exact, got.Assignments) {
		if s := Match(e.Assignments[ip], lookup(got.Assignments, ip), lookup(before.Assignments, ip)); s != "" {
			note("assignment of %s: %s", ip, s)
		}
	}
	for _, name := range keys(e.Active, e.Exact, got.Active) {
		if s := Match(e.Active[name], got.Active[name], before.Active[name]); s != "" {
			note("active of %s: %s", name, s)
		}
	}
	for _, name := range keys(e.HostSubnets, e.Exact, got.HostSubnets) {
		list, ok := got.HostSubnets[name]
		if !ok {
			note("hostsubnet %s is missing", name)
			continue
		}
		if s := Match(e.HostSubnets[name], list, before.HostSubnets[name]); s != "" {
			note("egressIPs of hostsubnet %s: %s", name, s)
		}
	}
	for _, ip := range keys(e.Conflicts, e.Exact, got.Conflicts) {
		want, have := e.Conflicts[ip], got.Conflicts[ip]
		if want != have && (want != "any" || have == "") {
			note("conflict over %s: %s", ip, differ(want, have))
		}
	}
	for _, c := range e.Constraints {
		if s := c.check(got, placed); s != "" {
			note("%s: %s", c.Kind, s)
		}
	}
	return wrong
}

// keys are those that are expected, and where all are to be compared, those
// that there are.
func keys[W, G any](want map[string]W, exact bool, got map[string]G) []string {
	all := slices.Collect(maps.Keys(want))
	if exact {
		all = slices.AppendSeq(all, maps.Keys(got))
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func (c Constraint) check(got, placed State) string {
	switch c.Kind {
	case "assigned-count":
		return c.checkCount(got)
	case "distinct-nodes":
		seen := make(map[string]string)
		for _, ip := range c.IPs {
			node, ok := got.Assignments[ip]
			if other := seen[node]; ok && other != "" {
				return fmt.Sprintf("%s and %s are both on %s", other, ip, node)
			}
			seen[node] = ip
		}
	case "balanced":
		least, most := -1, 0
		for _, node := range c.Nodes {
			n := len(got.HostSubnets[node])
			if least < 0 || n < least {
				least = n
			}
			most = max(most, n)
		}
		if c.MaxMinusMin == nil || most-least > *c.MaxMinusMin {
			return fmt.Sprintf("the fullest has %d, the emptiest %d", most, least)
		}
	case "active-matches":
		return c.checkActive(got)
	case "moved-at-most":
		var moved []string
		for ip, node := range placed.Assignments {
			if now, ok := got.Assignments[ip]; ok && now != node {
				moved = append(moved, ip)
			}
		}
		if c.Count == nil || len(moved) > *c.Count {
			return fmt.Sprintf("moved: %v", moved)
		}
	case "unmoved":
		for _, ip := range c.IPs {
			if got.Assignments[ip] != placed.Assignments[ip] {
				return fmt.Sprintf("%s moved from %q to %q", ip, placed.Assignments[ip], got.Assignments[ip])
			}
		}
	default:
		return "constraint is not known"
	}
	return ""
}

func (c Constraint) checkCount(got State) string {
	count := 0
	for _, ip := range c.IPs {
		if _, ok := got.Assignments[ip]; ok {
			count++
		}
	}
	switch {
	case c.Equals != nil && count != *c.Equals:
		return fmt.Sprintf("want %d, got %d", *c.Equals, count)
	case c.Min != nil && count < *c.Min:
		return fmt.Sprintf("want at least %d, got %d", *c.Min, count)
	case c.Max != nil && count > *c.Max:
		return fmt.Sprintf("want at most %d, got %d", *c.Max, count)
	}
	return ""
}

// checkActive wants every requested address with an online node in use.
func (c Constraint) checkActive(got State) string {
	for _, namespace := range c.Namespaces {
		var want []string
		for _, ip := range got.Requests[namespace] {
			if node, ok := got.Assignments[ip]; ok && got.Online[node] {
				want = append(want, ip+"@"+node)
			}
		}
		have, _ := got.Active[namespace].([]string)
		slices.Sort(want)
		if !slices.Equal(want, slices.Sorted(slices.Values(have))) {
			return fmt.Sprintf("%s: want %s, got %v", namespace, strings.Join(want, " "), got.Active[namespace])
		}
	}
	return ""
}
