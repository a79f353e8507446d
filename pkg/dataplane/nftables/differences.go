package nftables

import (
	"fmt"
	"maps"
	"slices"
)

// Differences compares an observed table with the desired one, but for members of sets that
// change with pods and hosts: chains, rules and elements that are not there, and those that should
// not be there.
func Differences(observed, desired Table) (missing, stale []string) {
	for _, name := range slices.Sorted(maps.Keys(desired.Chains)) {
		have, exists := observed.Chains[name]
		want := desired.Chains[name]
		object := fmt.Sprintf("chain %s of table inet %s", name, Name)
		if !exists {
			missing = append(missing, object)
			continue
		}
		if !sameBase(have.Base, want.Base) {
			missing = append(missing, object+" at its hook and priority")
		}
		if lost := without(want.Rules, have.Rules); lost > 0 {
			missing = append(missing, fmt.Sprintf("%d of %d rules in %s", lost, len(want.Rules), object))
		}
		if extra := without(have.Rules, want.Rules); extra > 0 {
			stale = append(stale, fmt.Sprintf("%d rules in %s that are none of ours, or of another time", extra, object))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(observed.Chains)) {
		if _, wanted := desired.Chains[name]; !wanted {
			stale = append(stale, fmt.Sprintf("chain %s of table inet %s", name, Name))
		}
	}
	for _, name := range observed.Unknown {
		stale = append(stale, fmt.Sprintf("set %s of table inet %s", name, Name))
	}
	for _, name := range mapNames() {
		del, put := difference(observed.Maps[name], desired.Maps[name])
		if len(put) > 0 {
			missing = append(missing, fmt.Sprintf("%d of %d elements in map %s of table inet %s", len(put), len(desired.Maps[name]), name, Name))
		}
		if len(del) > 0 {
			stale = append(stale, fmt.Sprintf("%d elements in map %s of table inet %s", len(del), name, Name))
		}
	}
	return missing, stale
}

// without counts the rules of one list that another does not have, each as often as it is there.
func without(rules, others []Rule) (n int) {
	have := map[string]int{}
	for _, r := range others {
		have[r.ID]++
	}
	for _, r := range rules {
		if have[r.ID] == 0 {
			n++
			continue
		}
		have[r.ID]--
	}
	return n
}
