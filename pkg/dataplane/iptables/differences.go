package iptables

import (
	"fmt"
	"slices"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/rules"
)

// Differences compares our part of an observed table of a backend and family with the desired one:
// chains and jumps that are not there, rules of others that come before ours, and chains that
// should not be there.
func Differences(b Backend, f Family, name rules.Stage, observed Table, desired RenderedTable) (missing, foreign, stale []string) {
	object := func(chain string) string { return fmt.Sprintf("%s, table %s, chain %s", f.command(b), name, chain) }
	rewrite, extra := diffChains(observed.Own, desired.Chains)
	for _, chain := range rewrite {
		have, exists := observed.Own[chain]
		if !exists {
			missing = append(missing, object(chain))
			continue
		}
		if lost := without(desired.Chains[chain], have); lost > 0 {
			missing = append(missing, fmt.Sprintf("%d of %d rules in %s", lost, len(desired.Chains[chain]), object(chain)))
		} else {
			stale = append(stale, "other rules than ours, or ours in another order, in "+object(chain))
		}
	}
	for _, chain := range extra {
		stale = append(stale, object(chain))
	}
	for _, j := range desired.Jumps {
		if !slices.Contains(observed.Base[j.From], "-j "+j.To) {
			missing = append(missing, fmt.Sprintf("the jump to %s in %s", j.To, object(j.From)))
		}
	}
	for _, o := range ousted(observed, desired.Jumps) {
		foreign = append(foreign, fmt.Sprintf("rule %q before ours in %s", o.Rule, object(o.Chain)))
	}
	return missing, foreign, stale
}

// without counts the rules of one list that another does not have.
func without(list, others []string) (n int) {
	for _, spec := range list {
		if !slices.Contains(others, spec) {
			n++
		}
	}
	return n
}
