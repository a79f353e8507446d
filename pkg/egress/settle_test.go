package egress_test

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// In memory the cluster ends where the objects do that a controller writes.
//
// Mutants killed: settle-forgets-assigned, settle-stops-early.
func TestPropertySettlesAsTheControllerDoes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &world{Objects: drawObjects(t, full())}
		before := w.cluster()
		settled, rounds, ok := egress.Settle(before)
		if !ok {
			t.Fatalf("not settled after %d rounds", rounds)
		}
		w.settle(t)
		for i, h := range w.cluster().Hosts {
			if got := settled.Hosts[i]; !slices.Equal(got.Claims, h.Claims) || !slices.Equal(got.Assigned, h.Assigned) {
				t.Fatalf("%s claims %v, of EgressIPs %v; the controller writes %v, %v", h.Name, got.Claims, got.Assigned, h.Claims, h.Assigned)
			}
		}
		if _, rounds, _ := egress.Settle(settled); rounds != 0 {
			t.Fatal("it moves on")
		}
	})
}
