package dataplane

import (
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/conntrack"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/nftables"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/rules"
)

// Where only pods differ, their changes alone are those of a pass that looks at all, in the
// same order.
//
// Mutant killed: pods-alone-in-any-order.
func TestPropertyPodsAlone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		strict := rapid.Bool().Draw(t, "strict")
		before := drawState(t, "before", strict)
		after := before
		after.Pods = drawState(t, "after", strict).Pods
		m := DefaultMarks()
		from, _, _ := aim(before, digested(before, nil), m, nil, nil, nil)
		to, _, _ := aim(after, digested(after, nil), m, nil, nil, nil)
		idx := union(from.prepared, from.serving)
		in := orderInput{
			observed: from.desired, desired: to.desired, marks: m, use: []Backend{NFTables}, known: idx,
			rules: rules.Params{Marks: m, Indices: idx},
			table: func(rules.Params) nftables.Table { return nftables.Table{} },
		}
		all, alone := withoutOverlay(order(in)), orderPods(in)
		if len(all)+len(alone) > 0 && !reflect.DeepEqual(all, alone) {
			t.Fatalf("changes are\n%+v\nand of pods alone\n%+v", all, alone)
		}
	})
}

// given: a pod that has connected before it was known; when it gets an egress IP, then that
// connection is forgotten, and those of others are not.
//
// Mutant killed: new-pods-had-no-connections.
func TestConnectionsFromBeforeAPodWasKnown(t *testing.T) {
	w := newWorld(t, 1, ownTable())
	n := w.nodes[0]
	p, other := n.addPod(t, "p", 2), n.addPod(t, "other", 3)
	n.host(eip1, 7)
	n.apply(t)
	n.apply(t) // the sweep after the start is over
	w.connects(t, p, "tcp4", 9001)
	w.connects(t, other, "tcp4", 9002)
	tracked := func(of *podMachine) (count int) {
		n.Do(t, func() {
			found, err := conntrack.Find(func(f conntrack.Flow) bool { return f.Source == of.ip && f.SourceOutside == n.ip })
			must(t, err)
			count = len(found)
		})
		return count
	}
	if tracked(p) != 1 || tracked(other) != 1 {
		t.Fatalf("the test wants a connection of each, not %d and %d", tracked(p), tracked(other))
	}
	p.set(local(eip1, 7))
	n.apply(t)
	if tracked(p) != 0 || tracked(other) != 1 {
		t.Errorf("tracked are %d connections of the pod and %d of the other one", tracked(p), tracked(other))
	}
}
