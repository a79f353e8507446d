package iptables

import (
	"slices"
	"testing"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/rules"
)

// TestDifferencesNameWhatDiffers: chains, rules and jumps that are not there, chains that should not
// be, and rules of others before ours are named; a table that is as desired has no differences.
func TestDifferencesNameWhatDiffers(t *testing.T) {
	desired := RenderedTable{
		Chains: map[string][]string{"EGRESSIP-FORWARD": {"-j A", "-j B"}, "EGRESSIP-LOCKED": {"-j DROP"}},
		Jumps:  []Jump{{From: "FORWARD", To: "EGRESSIP-FORWARD"}, {From: "INPUT", To: "EGRESSIP-LOCKED"}},
	}
	good := Table{Own: desired.Chains, Base: map[string][]string{"FORWARD": {"-j EGRESSIP-FORWARD", "-j OTHERS"}, "INPUT": {"-j EGRESSIP-LOCKED"}}}
	if missing, foreign, stale := Differences(NFT, IPv4, rules.Filter, good, desired); len(missing)+len(foreign)+len(stale) > 0 {
		t.Errorf("as desired: missing %q, foreign %q, stale %q", missing, foreign, stale)
	}
	bad := Table{
		Own:  map[string][]string{"EGRESSIP-FORWARD": {"-j B"}, "EGRESSIP-OLD": nil},
		Base: map[string][]string{"FORWARD": {"-j OTHERS", "-j EGRESSIP-FORWARD"}},
	}
	missing, foreign, stale := Differences(NFT, IPv4, rules.Filter, bad, desired)
	for _, c := range []struct{ got, want []string }{
		{missing, []string{
			"1 of 2 rules in iptables-nft, table filter, chain EGRESSIP-FORWARD", "iptables-nft, table filter, chain EGRESSIP-LOCKED",
			"the jump to EGRESSIP-LOCKED in iptables-nft, table filter, chain INPUT",
		}},
		{foreign, []string{`rule "-j OTHERS" before ours in iptables-nft, table filter, chain FORWARD`}},
		{stale, []string{"iptables-nft, table filter, chain EGRESSIP-OLD"}},
	} {
		if !slices.Equal(c.got, c.want) {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
}
