package dataplane

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/iptables"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/rules"
)

// After a transaction that failed, what iptables holds is not known, whatever succeeds next.
func TestWhatIPTablesHoldIsUnknownAfterAFailure(t *testing.T) {
	d := &Dataplane{iptablesSeen: map[Backend]iptables.Tables{NFT: {}, Legacy: {}}}
	first, next := iptables.Transaction{Table: rules.NAT}, iptables.Transaction{Table: rules.Mangle}
	d.iptablesChanged(NFT, first, errors.New("refused"))
	d.iptablesChanged(NFT, next, nil)
	d.iptablesChanged(Legacy, first, nil)
	if _, known := d.iptablesSeen[NFT]; known {
		t.Error("it is known after a failure")
	}
	if seen := d.iptablesSeen[Legacy]; len(seen) != 1 {
		t.Errorf("after one that succeeded: %v", seen)
	}
}

// given: rules in a table of our own, and iptables that cannot be read; then each pass
// says so, and works.
//
// Mutant killed: warning-of-one-pass.
func TestUnreadableIPTablesIsAWarningInEachPass(t *testing.T) {
	w := newWorld(t, 1, ownTable())
	n := w.nodes[0]
	broken := &iptables.Driver{}
	n.dp.iptables[Legacy] = broken
	for range 2 {
		var r Report
		n.Do(t, func() {
			var err error
			r, err = n.dp.Apply(context.WithoutCancel(t.Context()), n.state)
			must(t, err)
		})
		if len(r.Warnings) != 1 {
			t.Errorf("warnings %q", r.Warnings)
		}
	}
}

// given: networks inside of which one contains another, as the cluster's pod network does those
// of nodes; then passes settle, and when the larger one goes, then the others are inside still.
//
// Mutant killed: networks-within-networks-change-for-ever.
func TestNetworksWithinNetworks(t *testing.T) {
	w := newWorld(t, 1, ownTable())
	n := w.nodes[0]
	within := n.state.Inside
	n.state.Inside = slices.Concat(within, []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("10.244.1.0/24")})
	n.apply(t)
	if r := n.apply(t); r.Changes != 0 {
		t.Fatalf("a second pass made %d changes", r.Changes)
	}
	n.settled(t)
	n.state.Inside = within
	n.apply(t)
	n.settled(t)
	content, err := n.dp.nft.Observe()
	must(t, err)
	for _, want := range within {
		found := false
		for _, p := range content.Inside() {
			found = found || p.Overlaps(want) && p.Bits() <= want.Bits()
		}
		if !found {
			t.Errorf("%v is not inside any more", want)
		}
	}
}
