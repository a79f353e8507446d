package egress_test

import (
	"testing"

	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// TestBinding: only what this cluster's controller bound may ever be deleted.
//
// Kills the mutants mark-alone-is-ours, any-bound-uid-is-ours and ownerless-is-orphaned.
func TestBinding(t *testing.T) {
	for name, test := range map[string]struct {
		bond egress.Bond
		want egress.Binding
	}{
		"bound, and the owner is there":       {egress.Bond{UID: "o1", BoundUID: "o1", MarkedUID: "n1", OwnerUID: "n1"}, egress.BindingSettled},
		"bound, and the owner is gone":        {egress.Bond{UID: "o1", BoundUID: "o1", MarkedUID: "n1"}, egress.BindingOrphaned},
		"bound, and the owner is another":     {egress.Bond{UID: "o1", BoundUID: "o1", MarkedUID: "n1", OwnerUID: "n2"}, egress.BindingReplaced},
		"a user's, before its owner":          {egress.Bond{UID: "o1"}, egress.BindingLeave},
		"a user's, with its owner":            {egress.Bond{UID: "o1", OwnerUID: "n1"}, egress.BindingBind},
		"restored, before its owner":          {egress.Bond{UID: "o2", BoundUID: "o1", MarkedUID: "n1"}, egress.BindingDoubtful},
		"restored, with a restored owner":     {egress.Bond{UID: "o2", BoundUID: "o1", MarkedUID: "n1", OwnerUID: "n2"}, egress.BindingAdopt},
		"restored, and its owner never went":  {egress.Bond{UID: "o2", BoundUID: "o1", MarkedUID: "n1", OwnerUID: "n1"}, egress.BindingBind},
		"of an older version, with its owner": {egress.Bond{UID: "o1", MarkedUID: "n1", OwnerUID: "n1"}, egress.BindingBind},
		"of an older version, another owner":  {egress.Bond{UID: "o1", MarkedUID: "n1", OwnerUID: "n2"}, egress.BindingAdopt},
		"of an older version, without owner":  {egress.Bond{UID: "o1", MarkedUID: "n1"}, egress.BindingDoubtful},
		"the mark was removed":                {egress.Bond{UID: "o1", BoundUID: "o1", OwnerUID: "n1"}, egress.BindingBind},
		"the mark was removed, owner is gone": {egress.Bond{UID: "o1", BoundUID: "o1"}, egress.BindingOrphaned},
	} {
		t.Run(name, func(t *testing.T) {
			if got := test.bond.Binding(); got != test.want {
				t.Errorf("got %d, want %d", got, test.want)
			}
		})
	}
}
