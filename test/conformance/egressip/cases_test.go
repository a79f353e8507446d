package egressip_test

import (
	"flag"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/egressip-operator/egressip-operator/test/conformance"
	"github.com/egressip-operator/egressip-operator/test/conformance/egressip"
)

func load(t *testing.T) []egressip.Case {
	t.Helper()
	cases, err := egressip.Load("testdata")
	if err != nil {
		t.Fatal(err)
	}
	return cases
}

// tally counts what became of the cases.
type tally struct{ same, deviating, failed, notHere atomic.Int64 }

func (c *tally) count(t *testing.T, out egressip.Outcome) {
	t.Helper()
	switch {
	case len(out.Wrong) > 0:
		c.failed.Add(1)
		t.Error(strings.Join(out.Wrong, "\n"))
	case len(out.Differs) > 0:
		c.deviating.Add(1)
		t.Logf("deviates on purpose: %s", strings.Join(out.Differs, "\n"))
	default:
		c.same.Add(1)
	}
}

func (c *tally) report(t *testing.T, player string, total int) {
	t.Helper()
	t.Logf("CONFORMANCE EgressIP cases on %s: %d in all, %d as the peers do, %d otherwise on purpose, %d failed, %d not playable there",
		player, total, c.same.Load(), c.deviating.Load(), c.failed.Load(), c.notHere.Load())
	all := flag.Lookup("test.run").Value.String() == "" // with -run, some are left out on purpose
	if sum := c.same.Load() + c.deviating.Load() + c.failed.Load() + c.notHere.Load(); all && sum != int64(total) {
		t.Errorf("%d cases, but %d were played", total, sum)
	}
}

// TestBrain plays the cases on pure functions.
//
// Mutants killed: without-a-host-by-the-node, not-in-demands-a-label, egress-nodes-spread,
// silent-hosts-are-dropped.
func TestBrain(t *testing.T) {
	cases := load(t)
	var count tally
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			count.count(t, egressip.Play(t.Context(), egressip.NewBrain(), c))
		})
	}
	count.report(t, "the brain", len(cases))
}

// heading is that of the list of deviations.
const heading = "Deviations from OVN-Kubernetes"

// TestDeviations: docs/compatibility.md lists the cases that we answer otherwise, and no others.
func TestDeviations(t *testing.T) {
	document, err := os.ReadFile("../../../docs/compatibility.md")
	if err != nil {
		t.Fatal(err)
	}
	listed := conformance.DeviationsUnder(heading, string(document))
	names := make(map[string]bool)
	for _, c := range load(t) {
		if names[c.Name] {
			t.Errorf("two cases have the name %s", c.Name)
		}
		names[c.Name] = true
		switch reason, ok := listed[c.Name]; {
		case c.Differs() && !ok:
			t.Errorf("docs/compatibility.md does not list %s under %q", c.Name, heading)
		case !c.Differs() && ok:
			t.Errorf("docs/compatibility.md lists %s under %q, which is answered as the peer does", c.Name, heading)
		case ok && len(reason) < 20:
			t.Errorf("docs/compatibility.md gives no reason for %s", c.Name)
		}
	}
	for name := range listed {
		if !names[name] {
			t.Errorf("docs/compatibility.md lists %q under %q, which is no case", name, heading)
		}
	}
}
