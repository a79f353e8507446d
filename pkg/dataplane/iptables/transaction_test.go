package iptables

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/rules"
)

// Our jumps come to their places, once, and the rules of others stay as they
// are and in their order.
//
// Mutants killed: jumps of ours not taken out before; last ones put at the
// very end, behind a rule that rejects all.
func TestPropertyJumpsFindTheirPlaces(t *testing.T) {
	jumps := []Jump{{From: "FORWARD", To: rules.ChainLocked}, {From: "FORWARD", To: rules.ChainAccept, Last: true}, {From: "INPUT", To: rules.ChainInput}}
	drawn := rapid.SliceOfN(rapid.SampledFrom([]string{
		"-j KUBE-FORWARD", "-s 10.0.0.0/8 -j ACCEPT", "-j DROP", "-j REJECT --reject-with icmp-port-unreachable", "-j ACCEPT",
		`-m comment --comment "the \"last\" word" -j DROP`, "-m comment --comment last -j REJECT --reject-with icmp-admin-prohibited",
		`-m comment --comment "-j DROP" -j ACCEPT`,
		"-j " + rules.ChainLocked, "-j " + rules.ChainAccept, "-j " + rules.ChainPrefix + "OF-OLD",
	}), 0, 8)
	foreign := func(specs []string) []string { return slices.DeleteFunc(slices.Clone(specs), leadsToOwnChain) }
	rapid.Check(t, func(t *rapid.T) {
		observed := Table{Base: map[string][]string{"FORWARD": drawn.Draw(t, "FORWARD"), "INPUT": drawn.Draw(t, "INPUT"), "OUTPUT": drawn.Draw(t, "OUTPUT")}}
		after := Plan(rules.Filter, observed, RenderedTable{Jumps: jumps}).After
		for base, specs := range after.Base {
			if !slices.Equal(foreign(specs), foreign(observed.Base[base])) {
				t.Fatalf("%s: rules of others were %q, are %q", base, observed.Base[base], specs)
			}
		}
		if got := after.Base["FORWARD"]; got[0] != "-j "+rules.ChainLocked || len(got) != len(foreign(got))+2 {
			t.Fatalf("FORWARD: %q", got)
		}
		accept := slices.Index(after.Base["FORWARD"], "-j "+rules.ChainAccept)
		for i, spec := range after.Base["FORWARD"] {
			if i > accept && !isFinal(spec) || i < accept && isFinal(spec) && !slices.ContainsFunc(after.Base["FORWARD"][i:accept], func(s string) bool { return !isFinal(s) }) {
				t.Fatalf("FORWARD: %q has the accepting jump at %d", after.Base["FORWARD"], accept)
			}
		}
		if slices.ContainsFunc(after.Base["OUTPUT"], leadsToOwnChain) || after.Base["INPUT"][0] != "-j "+rules.ChainInput {
			t.Fatalf("INPUT %q, OUTPUT %q", after.Base["INPUT"], after.Base["OUTPUT"])
		}
		if again := Plan(rules.Filter, after, RenderedTable{Jumps: jumps}); again.Changes != 0 {
			t.Fatalf("not settled after one pass: %s", again.Script)
		}
	})
}

// Mutant killed: comment-hides-the-last-rule.
func TestRulesThatDropEverything(t *testing.T) {
	for spec, want := range map[string]bool{
		"-j DROP":   true,
		"-j REJECT": true,
		"-j REJECT --reject-with icmp-host-prohibited":                    true,
		"-m comment --comment final -j DROP":                              true,
		`-m comment --comment "the \"last\" one" -j REJECT`:               true,
		"-m comment --comment a -m comment --comment b -j DROP":           true,
		`-m comment --comment "-j DROP" -j ACCEPT`:                        false,
		"-m comment --comment final -i eth1 -j DROP":                      false,
		"-i eth1 -m comment --comment final -j DROP":                      false,
		`-m comment --comment "`:                                          false,
		"-m comment --comment last -j REJECT --reject-with tcp-reset":     true,
		"-p tcp -m comment --comment x -j REJECT --reject-with tcp-reset": false,
	} {
		if got := isFinal(spec); got != want {
			t.Errorf("%s: drops everything: %t", spec, got)
		}
	}
}

// Ours are ousted where they are there, and something of others stands before one that comes
// first.
func TestOusted(t *testing.T) {
	jumps := []Jump{{From: "FORWARD", To: rules.ChainReset}, {From: "FORWARD", To: rules.ChainLocked}, {From: "FORWARD", To: rules.ChainAccept, Last: true}}
	const first, second, last, other = "-j " + rules.ChainReset, "-j " + rules.ChainLocked, "-j " + rules.ChainAccept, "-j cali-FORWARD"
	for name, c := range map[string]struct {
		specs []string
		want  string
	}{
		"as it should be":              {[]string{first, second, other, last}, ""},
		"nothing of ours":              {[]string{other}, ""},
		"nothing of others":            {[]string{second, first, last}, ""},
		"others first":                 {[]string{other, "-j DOCKER", first, second, last}, other},
		"others between":               {[]string{first, other, second, last}, other},
		"one is missing":               {[]string{first, other, last}, ""},
		"the last jump before others":  {[]string{last, first, second, other}, ""},
		"a jump of a former version":   {[]string{"-j " + rules.ChainPrefix + "OLD", first, second, other, last}, ""},
		"in another chain than wanted": {nil, ""},
	} {
		got := Plan(rules.Filter, Table{Base: map[string][]string{"FORWARD": c.specs, "OUTPUT": {other, first}}}, RenderedTable{Jumps: jumps}).Ousted
		var want []Ousted
		if c.want != "" {
			want = []Ousted{{Chain: "FORWARD", Rule: c.want}}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v, wanted %v", name, got, want)
		}
	}
}
