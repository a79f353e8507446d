package dataplane

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// savedTable is what iptables-save shows of one table.
type savedTable struct {
	// own holds our chains, by name; rules without the leading "-A CHAIN ".
	own map[string][]string
	// base holds the kernel's own chains, by name, with everybody's rules.
	base map[string][]string
	// foreign counts the rules of others, in all chains.
	foreign int
}

// parseSave reads the output of iptables-save. Tables that the kernel does not
// have are absent.
func parseSave(out string) map[table]savedTable {
	saved := map[table]savedTable{}
	var name table
	var current savedTable
	for line := range strings.Lines(out) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case strings.HasPrefix(line, "*"):
			name = table(line[1:])
			current = savedTable{own: map[string][]string{}, base: map[string][]string{}}
		case strings.HasPrefix(line, ":"):
			chain, rest, _ := strings.Cut(line[1:], " ")
			if strings.HasPrefix(chain, chainPrefix) {
				current.own[chain] = nil
			} else if !strings.HasPrefix(rest, "-") {
				current.base[chain] = nil
			}
		case strings.HasPrefix(line, "-A "):
			chain, spec, _ := strings.Cut(line[len("-A "):], " ")
			spec = strings.TrimRight(spec, " ")
			switch {
			case strings.HasPrefix(chain, chainPrefix):
				current.own[chain] = append(current.own[chain], spec)
			default:
				if _, base := current.base[chain]; base {
					current.base[chain] = append(current.base[chain], spec)
				}
				if !leadsToOurs(spec) {
					current.foreign++
				}
			}
		case line == "COMMIT":
			saved[name] = current
		}
	}
	return saved
}

// parseList reads the output of iptables --list-rules: that of iptables-save,
// but for the chains.
func parseList(name table, out string) savedTable {
	var save strings.Builder
	fmt.Fprintf(&save, "*%s\n", name)
	for line := range strings.Lines(out) {
		if chain, ok := strings.CutPrefix(line, "-P "); ok {
			line = ":" + chain
		} else if chain, ok := strings.CutPrefix(line, "-N "); ok {
			line = ":" + strings.TrimSpace(chain) + " -\n"
		}
		save.WriteString(line)
	}
	save.WriteString("COMMIT\n")
	return parseSave(save.String())[name]
}

// target of a rule, such as DROP or the name of a chain.
func target(spec string) string {
	fields := strings.Fields(spec)
	for i, f := range fields {
		if (f == "-j" || f == "-g") && i+1 < len(fields) {
			return fields[i+1]
		}
	}
	return ""
}

func leadsToOurs(spec string) bool { return strings.HasPrefix(target(spec), chainPrefix) }

// diffTable gives the input of "iptables-restore --noflush" that makes our
// part of a table what it should be, and the number of chains and jumps that
// it changes. The kernel takes it whole or not at all, and in one moment: a
// packet sees all our rules of the table as they were or as they will be.
func diffTable(name table, observed savedTable, desired tableRules) (script string, changes int) {
	var b strings.Builder
	fmt.Fprintf(&b, "*%s\n", name)

	var rewrite, stale []string
	for _, chain := range slices.Sorted(maps.Keys(desired.chains)) {
		have, exists := observed.own[chain]
		if !exists || !slices.Equal(have, desired.chains[chain]) {
			rewrite = append(rewrite, chain)
		}
	}
	for _, chain := range slices.Sorted(maps.Keys(observed.own)) {
		if _, wanted := desired.chains[chain]; !wanted {
			stale = append(stale, chain)
		}
	}
	// Declaring a chain makes it, or empties it: all of them before the rules,
	// which lead from one to another, and stale ones too, so that nothing
	// leads to them when they go.
	for _, chain := range slices.Concat(rewrite, stale) {
		fmt.Fprintf(&b, ":%s - [0:0]\n", chain)
	}
	for _, chain := range rewrite {
		for _, spec := range desired.chains[chain] {
			fmt.Fprintf(&b, "-A %s %s\n", chain, spec)
		}
	}
	changes = len(rewrite) + len(stale)
	changes += diffJumps(&b, observed, desired.jumps)
	for _, chain := range stale {
		fmt.Fprintf(&b, "-X %s\n", chain)
	}
	b.WriteString("COMMIT\n")
	if changes == 0 {
		return "", 0
	}
	return b.String(), changes
}

// diffJumps writes the commands that put our jumps in their places and take
// away all others that lead to chains of ours.
func diffJumps(b *strings.Builder, observed savedTable, jumps []jump) int {
	changes := 0
	for _, base := range bases(observed, jumps) {
		want, firsts, lasts := placeJumps(base, observed.base[base], jumps)
		if slices.Equal(observed.base[base], want) {
			continue
		}
		changes++
		for _, spec := range observed.base[base] {
			if leadsToOurs(spec) {
				fmt.Fprintf(b, "-D %s %s\n", base, spec)
			}
		}
		for _, at := range slices.Concat(firsts, lasts) {
			fmt.Fprintf(b, "-I %s %d %s\n", base, at+1, want[at])
		}
	}
	return changes
}

// bases are the kernel's chains that have or need jumps of ours, in order.
func bases(observed savedTable, jumps []jump) []string {
	names := slices.Collect(maps.Keys(observed.base))
	for _, j := range jumps {
		names = append(names, j.from)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// placeJumps gives the rules of one of the kernel's chains with our jumps in
// their places, and the positions of those.
func placeJumps(base string, rules []string, jumps []jump) (placed []string, firsts, lasts []int) {
	for _, j := range jumps {
		if j.from == base && !j.last {
			firsts = append(firsts, len(placed))
			placed = append(placed, "-j "+j.to)
		}
	}
	foreign := slices.DeleteFunc(slices.Clone(rules), leadsToOurs)
	end := len(foreign)
	for end > 0 && final(foreign[end-1]) {
		end--
	}
	placed = append(placed, foreign[:end]...)
	for _, j := range jumps {
		if j.from == base && j.last {
			lasts = append(lasts, len(placed))
			placed = append(placed, "-j "+j.to)
		}
	}
	return append(placed, foreign[end:]...), firsts, lasts
}

// afterRestore gives what a table is once the script of diffTable has run.
func afterRestore(observed savedTable, desired tableRules) savedTable {
	after := savedTable{own: maps.Clone(desired.chains), base: map[string][]string{}, foreign: observed.foreign}
	for _, base := range bases(observed, desired.jumps) {
		after.base[base], _, _ = placeJumps(base, observed.base[base], desired.jumps)
	}
	return after
}

// final tells whether a rule ends the walk of every packet without letting it
// through.
func final(spec string) bool {
	return spec == "-j DROP" || spec == "-j REJECT" || strings.HasPrefix(spec, "-j REJECT --reject-with ")
}
