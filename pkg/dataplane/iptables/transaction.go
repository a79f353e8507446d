package iptables

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/rules"
)

// Transaction changes one table, whole or not at all and in one moment: a packet
// sees all our rules of the table as they were, or as they will be.
type Transaction struct {
	Table rules.Stage
	// Script is the input of iptables-restore --noflush.
	Script string
	// Changes counts the chains that it changes: ours, and base chains in which
	// jumps of ours change. It is 0 where the table is as it should be.
	Changes int
	// After is what the table holds once it has run.
	After Table
	// Ousted are the base chains in which rules of others stood before ours, in order.
	Ousted []Ousted
}

// Ousted is a base chain in which ours did not come first any more, and the first rule of
// others there.
type Ousted struct{ Chain, Rule string }

// Plan returns the transaction that makes our part of an observed table the
// desired one. The zero RenderedTable removes everything of ours.
func Plan(name rules.Stage, observed Table, desired RenderedTable) Transaction {
	rewrite, stale := diffChains(observed.Own, desired.Chains)
	var b strings.Builder
	fmt.Fprintf(&b, "*%s\n", name)
	// Declaring a chain makes it, or empties it: all of them before the rules,
	// which lead from one to another, and stale ones too, so that nothing
	// leads to them when they are deleted.
	for _, chain := range slices.Concat(rewrite, stale) {
		fmt.Fprintf(&b, ":%s - [0:0]\n", chain)
	}
	for _, chain := range rewrite {
		for _, spec := range desired.Chains[chain] {
			fmt.Fprintf(&b, "-A %s %s\n", chain, spec)
		}
	}
	changes := len(rewrite) + len(stale) + writeJumps(&b, observed, desired.Jumps)
	for _, chain := range stale {
		fmt.Fprintf(&b, "-X %s\n", chain)
	}
	b.WriteString("COMMIT\n")
	if changes == 0 {
		return Transaction{Table: name, After: observed}
	}
	return Transaction{Table: name, Script: b.String(), Changes: changes, After: afterwards(observed, desired), Ousted: ousted(observed, desired.Jumps)}
}

// ousted finds the base chains in which rules of others stand before a jump of ours that
// comes first.
func ousted(observed Table, jumps []Jump) (list []Ousted) {
	for _, base := range baseChains(observed, jumps) {
		specs := observed.Base[base]
		others := slices.IndexFunc(specs, func(spec string) bool { return !leadsToOwnChain(spec) })
		if others < 0 {
			continue
		}
		behind := func(j Jump) bool { return j.From == base && !j.Last && slices.Contains(specs[others:], "-j "+j.To) }
		if slices.ContainsFunc(jumps, behind) {
			list = append(list, Ousted{Chain: base, Rule: specs[others]})
		}
	}
	return list
}

// diffChains returns the names, in order, of our chains that must be written, and
// of those that must go.
func diffChains(observed, desired map[string][]string) (rewrite, stale []string) {
	for _, chain := range slices.Sorted(maps.Keys(desired)) {
		have, exists := observed[chain]
		if !exists || !slices.Equal(have, desired[chain]) {
			rewrite = append(rewrite, chain)
		}
	}
	for _, chain := range slices.Sorted(maps.Keys(observed)) {
		if _, wanted := desired[chain]; !wanted {
			stale = append(stale, chain)
		}
	}
	return rewrite, stale
}

// writeJumps writes the commands that put our jumps in their places and delete
// all others that lead to chains of ours, and counts the base chains that change.
func writeJumps(b *strings.Builder, observed Table, jumps []Jump) int {
	changes := 0
	for _, base := range baseChains(observed, jumps) {
		want, positions := placeJumps(base, observed.Base[base], jumps)
		if slices.Equal(observed.Base[base], want) {
			continue
		}
		changes++
		for _, spec := range observed.Base[base] {
			if leadsToOwnChain(spec) {
				fmt.Fprintf(b, "-D %s %s\n", base, spec)
			}
		}
		for _, at := range positions {
			fmt.Fprintf(b, "-I %s %d %s\n", base, at+1, want[at])
		}
	}
	return changes
}

// baseChains returns the base chains that have or need jumps of ours, in order.
func baseChains(observed Table, jumps []Jump) []string {
	names := slices.Collect(maps.Keys(observed.Base))
	for _, j := range jumps {
		names = append(names, j.From)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// placeJumps returns the rules of a base chain with our jumps in their places,
// and the positions of those.
func placeJumps(base string, specs []string, jumps []Jump) (placed []string, positions []int) {
	place := func(last bool) {
		for _, j := range jumps {
			if j.From == base && j.Last == last {
				positions = append(positions, len(placed))
				placed = append(placed, "-j "+j.To)
			}
		}
	}
	place(false)
	foreign := slices.DeleteFunc(slices.Clone(specs), leadsToOwnChain)
	end := len(foreign)
	for end > 0 && isFinal(foreign[end-1]) {
		end--
	}
	placed = append(placed, foreign[:end]...)
	place(true)
	return append(placed, foreign[end:]...), positions
}

// isFinal reports whether a rule drops or rejects every packet.
func isFinal(spec string) bool {
	spec = withoutComments(spec)
	return spec == "-j DROP" || spec == "-j REJECT" || strings.HasPrefix(spec, "-j REJECT --reject-with ")
}

// withoutComments returns a rule without its comments, which match every packet.
func withoutComments(spec string) string {
	const match = "-m comment --comment "
	for {
		before, rest, found := strings.Cut(spec, match)
		if !found {
			return spec
		}
		spec = before + strings.TrimLeft(rest[commentLength(rest):], " ")
	}
}

// commentLength is the length of the comment at the beginning of the rest of a rule:
// one word, or one in double quotes, in which a backslash takes the meaning from what
// follows it.
func commentLength(rest string) int {
	if !strings.HasPrefix(rest, `"`) {
		return strings.IndexByte(rest+" ", ' ')
	}
	for i := 1; i < len(rest); i++ {
		switch rest[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(rest)
}

// afterwards returns what a table holds once its transaction has run.
func afterwards(observed Table, desired RenderedTable) Table {
	after := Table{Own: maps.Clone(desired.Chains), Base: map[string][]string{}, Foreign: observed.Foreign, Drop: observed.Drop, Accepting: observed.Accepting}
	for _, base := range baseChains(observed, desired.Jumps) {
		after.Base[base], _ = placeJumps(base, observed.Base[base], desired.Jumps)
	}
	return after
}
