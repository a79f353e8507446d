package conformance

import (
	"fmt"
	"iter"
	"maps"
	"slices"

	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// State is what a driver sees of its cluster.
type State struct {
	// Assignments are the addresses that some node has on its interface.
	Assignments map[string]string
	// Active is, for each namespace, "none", "dropped", or a list of
	// "ip@node".
	Active map[string]any
	// HostSubnets are the egressIPs of each.
	HostSubnets map[string][]string
	// Requests are the egressIPs of each namespace, NetIDs their network ids.
	Requests map[string][]string
	NetIDs   map[string]uint32
	// Conflicts are the reasons for which requested addresses are not used.
	Conflicts map[string]string
	// Online reports which nodes are online.
	Online map[string]bool
	// Broken names invariants that do not hold.
	Broken []string
}

// NewState returns an empty one.
func NewState() State {
	return State{
		Assignments: make(map[string]string),
		Active:      make(map[string]any),
		HostSubnets: make(map[string][]string),
		Requests:    make(map[string][]string),
		NetIDs:      make(map[string]uint32),
		Conflicts:   make(map[string]string),
		Online:      make(map[string]bool),
	}
}

// anyConflict stands for any of conflicts.
const anyConflict = "any"

// conflicts are the reference's words for the reasons of an address that is not
// used.
func conflicts() []string {
	return []string{
		ConflictOf(egress.ReasonMultipleHosts),
		ConflictOf(egress.ReasonMultipleNamespaces),
		ConflictOf(egress.ReasonSameHost),
	}
}

// Check returns everything in which the state differs from what is expected.
// before is the state before the step, placed that of the last step that
// placed addresses.
func (e Expect) Check(got, before, placed State) []string {
	wrong := slices.Clone(got.Broken)
	for _, ip := range keys(e.Assignments, e.Exact, got.Assignments) {
		wrong = append(wrong, compare("assignment of "+ip, e.Assignments[ip], ip, got.Assignments, before.Assignments)...)
	}
	for _, name := range keys(e.Active, e.Exact, got.Active) {
		wrong = append(wrong, compare("active of "+name, e.Active[name], name, got.Active, before.Active)...)
	}
	for _, name := range keys(e.HostSubnets, e.Exact, got.HostSubnets) {
		if _, ok := got.HostSubnets[name]; !ok {
			wrong = append(wrong, fmt.Sprintf("hostsubnet %s is missing", name))
			continue
		}
		wrong = append(wrong, compare("egressIPs of hostsubnet "+name, e.HostSubnets[name], name, got.HostSubnets, before.HostSubnets)...)
	}
	for _, ip := range keys(e.Conflicts, e.Exact, got.Conflicts) {
		want, have := e.Conflicts[ip], got.Conflicts[ip]
		if want != have && (want != anyConflict || have == "") {
			wrong = append(wrong, fmt.Sprintf("conflict over %s: %s", ip, differ(want, have)))
		}
	}
	return append(wrong, CheckConstraints(e.Constraints, got, before, placed)...)
}

// compare matches one entry of a map of our state.
func compare[V any](what string, want any, key string, got, before map[string]V) []string {
	of := func(all map[string]V, name string) any {
		if value, ok := all[name]; ok {
			return value
		}
		return nil
	}
	if s := Match(want, Values{
		Got: of(got, key), Before: of(before, key), Of: func(name string) any { return of(got, name) },
	}); s != "" {
		return []string{what + ": " + s}
	}
	return nil
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

// sorted yields the entries of a map in the order of their keys.
func sorted[V any](m map[string]V) iter.Seq2[string, V] {
	return func(yield func(string, V) bool) {
		for _, key := range slices.Sorted(maps.Keys(m)) {
			if !yield(key, m[key]) {
				return
			}
		}
	}
}
