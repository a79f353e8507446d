package dataplane

import (
	"errors"
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
