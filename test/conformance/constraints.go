package conformance

import (
	"fmt"
	"slices"
	"strings"
)

// constraint is a condition on the whole state.
type constraint struct {
	// lacks names a field that is needed and not given.
	lacks func(c Constraint) string
	// check returns what is wrong; before is the state before the step, placed
	// that of the last step that placed addresses.
	check func(c Constraint, got, before, placed State) string
}

// constraints are the words without a brace in readingGuide.predicates.
func constraints() map[string]constraint {
	return map[string]constraint{
		"assigned-count":  {lacksBounds, Constraint.assignedCount},
		"distinct-nodes":  {lacksIPs, Constraint.distinctNodes},
		"balanced":        {lacksBalance, Constraint.balanced},
		"active-matches":  {lacksNamespaces, Constraint.activeMatches},
		"moved-at-most":   {lacksCount, Constraint.movedAtMost},
		"unmoved":         {lacksIPs, Constraint.unmoved},
		"netids-distinct": {lacksNames, Constraint.netIDsDistinct},
		"netid-in-use":    {lacksOf, Constraint.netIDInUse},
	}
}

// CheckConstraints returns which constraints do not hold, and why.
func CheckConstraints(list []Constraint, got, before, placed State) (wrong []string) {
	known := constraints()
	for _, c := range list {
		rule, ok := known[c.Kind]
		if !ok {
			wrong = append(wrong, fmt.Sprintf("unknown constraint %q", c.Kind))
			continue
		}
		if s := rule.check(c, got, before, placed); s != "" {
			wrong = append(wrong, fmt.Sprintf("%s: %s", c.Kind, s))
		}
	}
	return wrong
}

func (c Constraint) assignedCount(got, _, _ State) string {
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

func (c Constraint) distinctNodes(got, _, _ State) string {
	seen := make(map[string]string)
	for _, ip := range c.IPs {
		node, ok := got.Assignments[ip]
		if other := seen[node]; ok && other != "" {
			return fmt.Sprintf("%s and %s are both on %s", other, ip, node)
		}
		seen[node] = ip
	}
	return ""
}

func (c Constraint) balanced(got, _, _ State) string {
	var counts []int
	for _, node := range c.Nodes {
		counts = append(counts, len(got.HostSubnets[node]))
	}
	if least, most := slices.Min(counts), slices.Max(counts); most-least > *c.MaxMinusMin {
		return fmt.Sprintf("the fullest has %d, the emptiest %d", most, least)
	}
	return ""
}

// activeMatches wants every requested address with an online node in use.
func (c Constraint) activeMatches(got, _, _ State) string {
	for _, namespace := range c.Namespaces {
		var want []string
		for _, ip := range got.Requests[namespace] {
			if node, ok := got.Assignments[ip]; ok && got.Online[node] {
				want = append(want, ip+"@"+node)
			}
		}
		have, _ := got.Active[namespace].([]string)
		if !sameSet(want, have) {
			slices.Sort(want)
			return fmt.Sprintf("%s: want %s, got %v", namespace, strings.Join(want, " "), got.Active[namespace])
		}
	}
	return ""
}

func (c Constraint) movedAtMost(got, _, placed State) string {
	var moved []string
	for ip, node := range sorted(placed.Assignments) {
		if now, ok := got.Assignments[ip]; ok && now != node {
			moved = append(moved, ip)
		}
	}
	if len(moved) > *c.Count {
		return fmt.Sprintf("moved: %v", moved)
	}
	return ""
}

func (c Constraint) unmoved(got, _, placed State) string {
	for _, ip := range c.IPs {
		if got.Assignments[ip] != placed.Assignments[ip] {
			return fmt.Sprintf("%s moved from %q to %q", ip, placed.Assignments[ip], got.Assignments[ip])
		}
	}
	return ""
}

func (c Constraint) netIDsDistinct(got, _, _ State) string {
	seen := make(map[uint32]string)
	for _, name := range c.Names {
		id, ok := got.NetIDs[name]
		if !ok {
			return fmt.Sprintf("there is no NetNamespace %s", name)
		}
		if other, taken := seen[id]; taken {
			return fmt.Sprintf("%s and %s have netid %d", other, name, id)
		}
		seen[id] = name
	}
	return ""
}

// netIDInUse wants a netid to be some NetNamespace's: that of a NetNamespace by
// name, which may have gone with the step, or one that is given as a number.
func (c Constraint) netIDInUse(got, before, _ State) string {
	id, known := uint32(0), false
	if name, isName := c.Of.(string); isName {
		if id, known = got.NetIDs[name]; !known {
			id, known = before.NetIDs[name]
		}
	} else {
		id, known = uint32(number(c.Of)), true
	}
	if !known {
		return fmt.Sprintf("there is no NetNamespace %s, nor was there before the step", word(c.Of))
	}
	for _, taken := range got.NetIDs {
		if taken == id {
			return ""
		}
	}
	return fmt.Sprintf("netid %d of %s belongs to no NetNamespace", id, word(c.Of))
}

func lacksIPs(c Constraint) string { return missing("ips", len(c.IPs) == 0) }

func lacksBounds(c Constraint) string {
	if lacks := lacksIPs(c); lacks != "" {
		return lacks
	}
	return missing("equals, min or max", c.Equals == nil && c.Min == nil && c.Max == nil)
}

func lacksBalance(c Constraint) string {
	if len(c.Nodes) == 0 {
		return "nodes"
	}
	return missing("maxMinusMin", c.MaxMinusMin == nil)
}

func lacksNamespaces(c Constraint) string { return missing("namespaces", len(c.Namespaces) == 0) }

func lacksCount(c Constraint) string { return missing("count", c.Count == nil) }

func lacksNames(c Constraint) string { return missing("names", len(c.Names) == 0) }

func lacksOf(c Constraint) string {
	_, isName := c.Of.(string)
	_, isNumber := c.Of.(float64)
	return missing("of", !isName && !isNumber)
}

func missing(field string, is bool) string {
	if is {
		return field
	}
	return ""
}
