package egress_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

func TestNetIDOfDefaultIsZero(t *testing.T) {
	if id, ok := egress.NextNetID("default", func(uint32) bool { return true }); id != 0 || !ok {
		t.Errorf("got %d, %t", id, ok)
	}
}

func TestNetIDsRunOut(t *testing.T) {
	last := uint32(egress.MaxNetID)
	if id, ok := egress.NextNetID("red", func(id uint32) bool { return id != last }); id != last || !ok {
		t.Errorf("one is free, got %d, %t", id, ok)
	}
	if _, ok := egress.NextNetID("red", func(uint32) bool { return true }); ok {
		t.Error("none is free, and one was chosen")
	}
}

// Netids are distinct, free, in range, and the same whatever the order.
//
// Kills the mutant netid-of-another.
func TestPropertyNetIDs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := make([]string, rapid.IntRange(1, 40).Draw(t, "namespaces"))
		for i := range names {
			names[i] = fmt.Sprintf("ns%d", i)
		}
		inUse := make(map[uint32]bool)
		for _, id := range egress.AllocateNetIDs(names[:len(names)/2], nil) {
			inUse[id] = true
		}
		before := maps.Clone(inUse)
		ids := egress.AllocateNetIDs(names, inUse)
		if !maps.Equal(ids, egress.AllocateNetIDs(rapid.Permutation(names).Draw(t, "names"), inUse)) {
			t.Fatal("depends on the order")
		}
		if !maps.Equal(before, inUse) {
			t.Fatal("changes what is in use")
		}
		distinct := slices.Compact(slices.Sorted(maps.Values(ids)))
		if len(distinct) != len(names) {
			t.Fatalf("%d namespaces, %d netids", len(names), len(distinct))
		}
		for _, id := range distinct {
			if inUse[id] || id < 10 || id > egress.MaxNetID {
				t.Fatalf("%d is in use, or no netid", id)
			}
		}
	})
}
