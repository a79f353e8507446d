package dataplane

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestBackendsFollowTheRulesOfOthers(t *testing.T) {
	none := map[table]savedTable{}
	nat := map[table]savedTable{natTable: {foreign: 3}}
	filter := map[table]savedTable{filterTable: {foreign: 1}}
	ours := map[table]savedTable{natTable: {own: map[string][]string{chainPostrouting: nil}}}
	type found = map[Backend]map[table]savedTable
	for _, c := range []struct {
		name       string
		configured []Backend
		saved      found
		want       []Backend
		warned     bool
	}{
		{"a host without rules", nil, found{NFT: none, Legacy: none}, []Backend{NFT}, false},
		{"legacy alone is installed", nil, found{Legacy: none}, []Backend{Legacy}, false},
		{"kube-proxy in nft", nil, found{NFT: nat, Legacy: none}, []Backend{NFT}, false},
		{"kube-proxy in legacy", nil, found{NFT: none, Legacy: nat}, []Backend{Legacy}, false},
		{"a firewall in nft, kube-proxy in legacy", nil, found{NFT: filter, Legacy: nat}, []Backend{Legacy}, false},
		{"NAT in both", nil, found{NFT: nat, Legacy: nat}, []Backend{NFT, Legacy}, true},
		{"no NAT, a firewall in legacy", nil, found{NFT: none, Legacy: filter}, []Backend{Legacy}, false},
		{"firewalls in both", nil, found{NFT: filter, Legacy: filter}, []Backend{NFT}, false},
		{"before kube-proxy starts, we stay where we are", nil, found{NFT: none, Legacy: ours}, []Backend{Legacy}, false},
		{"configured", []Backend{Legacy}, found{NFT: none, Legacy: none}, []Backend{Legacy}, false},
		{"configured, against what is found", []Backend{Legacy}, found{NFT: nat, Legacy: none}, []Backend{Legacy}, true},
		{"configured both, twice", []Backend{NFT, Legacy, NFT}, found{NFT: none, Legacy: none}, []Backend{NFT, Legacy}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			use, warnings, err := chooseBackends(c.configured, c.saved)
			if err != nil || !slices.Equal(use, c.want) || (len(warnings) > 0) != c.warned {
				t.Fatalf("use %v (want %v), warnings %v, error %v", use, c.want, warnings, err)
			}
		})
	}
	if _, _, err := chooseBackends([]Backend{NFT}, found{Legacy: none}); err == nil {
		t.Fatal("a configured backend that is not installed was accepted")
	}
}

// Our jumps come to their places, once, and the rules of others stay as they
// are and in their order.
//
// Mutants killed: jumps of ours not taken out before; last ones put at the
// very end, behind a rule that rejects all.
func TestPropertyJumpsFindTheirPlaces(t *testing.T) {
	jumps := []jump{{from: "FORWARD", to: chainLocked}, {from: "FORWARD", to: chainAccept, last: true}, {from: "INPUT", to: chainInput}}
	rules := rapid.SliceOfN(rapid.SampledFrom([]string{
		"-j KUBE-FORWARD", "-s 10.0.0.0/8 -j ACCEPT", "-j DROP", "-j REJECT --reject-with icmp-port-unreachable", "-j ACCEPT",
		"-j " + chainLocked, "-j " + chainAccept, "-j " + chainPrefix + "OF-OLD",
	}), 0, 8)
	foreign := func(specs []string) []string { return slices.DeleteFunc(slices.Clone(specs), leadsToOurs) }
	rapid.Check(t, func(t *rapid.T) {
		observed := savedTable{base: map[string][]string{"FORWARD": rules.Draw(t, "FORWARD"), "INPUT": rules.Draw(t, "INPUT"), "OUTPUT": rules.Draw(t, "OUTPUT")}}
		after := afterRestore(observed, tableRules{jumps: jumps})
		for base, specs := range after.base {
			if !slices.Equal(foreign(specs), foreign(observed.base[base])) {
				t.Fatalf("%s: rules of others were %q, are %q", base, observed.base[base], specs)
			}
		}
		if got := after.base["FORWARD"]; got[0] != "-j "+chainLocked || len(got) != len(foreign(got))+2 {
			t.Fatalf("FORWARD: %q", got)
		}
		accept := slices.Index(after.base["FORWARD"], "-j "+chainAccept)
		for i, spec := range after.base["FORWARD"] {
			if i > accept && !final(spec) || i < accept && final(spec) && !slices.ContainsFunc(after.base["FORWARD"][i:accept], func(s string) bool { return !final(s) }) {
				t.Fatalf("FORWARD: %q has the accepting jump at %d", after.base["FORWARD"], accept)
			}
		}
		if slices.ContainsFunc(after.base["OUTPUT"], leadsToOurs) || after.base["INPUT"][0] != "-j "+chainInput {
			t.Fatalf("INPUT %q, OUTPUT %q", after.base["INPUT"], after.base["OUTPUT"])
		}
		if script, n := diffTable(filterTable, after, tableRules{jumps: jumps}); n != 0 {
			t.Fatalf("not settled after one pass: %s", script)
		}
	})
}
