package dataplane

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/iptables"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/rules"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/warning"
)

// A chain is reported once others have come first in it three times within ten minutes, for as
// long as the first of these is not longer ago, with the rule that was found last; once or twice
// is a restart.
//
// Mutant killed: ousted-once-is-often.
func TestOthersThatComeFirstAgainAndAgain(t *testing.T) {
	for _, c := range []struct {
		name string
		// at are the moments at which others were found, now is when it is asked.
		at   []time.Duration
		now  time.Duration
		want bool
	}{
		{name: "never", now: time.Hour},
		{name: "twice", at: []time.Duration{1, 2}, now: 3},
		{name: "three times", at: []time.Duration{1, 2, 3}, now: 4, want: true},
		{name: "three times, a while ago", at: []time.Duration{1, 2, 3}, now: oustedWithin, want: true},
		{name: "three times, long ago", at: []time.Duration{1, 2, 3}, now: oustedWithin + 1},
		{name: "long ago, and three times since", at: []time.Duration{1, 2, oustedWithin, oustedWithin + 1, oustedWithin + 2}, now: oustedWithin + 3, want: true},
		{name: "three times, too far apart", at: []time.Duration{1, oustedWithin / 2, oustedWithin + 1}, now: oustedWithin + 2},
	} {
		var o oustings
		last := ""
		for i, at := range c.at {
			last = fmt.Sprintf("-j OTHERS-%d", i)
			o.note("iptables-nft", iptables.Transaction{Table: rules.Filter, Ousted: []iptables.Ousted{{Chain: "FORWARD", Rule: last}}}, at)
		}
		var want []warning.Ousted
		if c.want {
			want = []warning.Ousted{{Chain: "iptables-nft, table filter, chain FORWARD", Rule: last}}
		}
		if got := o.often(c.now); !slices.Equal(got, want) {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
}

// Each chain of each command counts for itself.
func TestOthersInSeveralChains(t *testing.T) {
	var o oustings
	both := iptables.Transaction{Table: rules.NAT, Ousted: []iptables.Ousted{{Chain: "POSTROUTING", Rule: "-j A"}, {Chain: "PREROUTING", Rule: "-j B"}}}
	o.note("iptables-nft", both, 1)
	o.note("iptables-nft", both, 2)
	o.note("ip6tables-nft", both, 3)
	if got := o.often(4); len(got) > 0 {
		t.Errorf("after two and one: %+v", got)
	}
	o.note("iptables-nft", both, 4)
	want := []warning.Ousted{{Chain: "iptables-nft, table nat, chain POSTROUTING", Rule: "-j A"}, {Chain: "iptables-nft, table nat, chain PREROUTING", Rule: "-j B"}}
	if got := o.often(5); !slices.Equal(got, want) {
		t.Errorf("after three and one: %+v", got)
	}
}
