package dataplane

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/iptables"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/rules"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/warning"
)

// felixChains are those of Calico's Felix that matter: both accept what is established, and
// Felix, which inserts by default, puts the jumps to them first whenever they are not.
const (
	felixChains = `
		for t in mangle filter; do IPTABLES -t $t -N cali-$t; IPTABLES -t $t -A cali-$t -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT; done`
	felixFirst = `
		IPTABLES -t mangle -D PREROUTING -j cali-mangle 2>/dev/null || true
		IPTABLES -D FORWARD -j cali-filter 2>/dev/null || true
		IPTABLES -t mangle -I PREROUTING -j cali-mangle
		IPTABLES -I FORWARD -j cali-filter`
)

// given: pods that send without a pause; when other software puts rules that accept what is
// established before ours, in table mangle and in table filter at once, and again after each
// pass, then no packet has another source, and after each pass all come through; with rules in
// iptables, a warning names the chains from the third time on, and goes when that is over; a
// table of our own does not notice.
//
// Mutants killed: lock-in-filter-alone, lost-first-place-is-not-noticed.
func TestOthersPutTheirRulesBeforeOurs(t *testing.T) {
	all := []rulesOf{onlyNFT(), ownTable()}
	if wholeMatrix() {
		all = append(all, onlyLegacy(), bothLegacyFirst(), ownTableLegacy())
	}
	for _, rules := range all {
		t.Run(rules.name, func(t *testing.T) {
			w := newWorld(t, 2, rules)
			n1, n2 := w.nodes[0], w.nodes[1]
			here, there, dropped := n1.addPod(t, "here", 2), n2.addPod(t, "there", 2), n2.addPod(t, "dropped", 3)
			n1.host(eip1, 7)
			here.set(local(eip1, 7))
			there.set(remote(7, n1))
			dropped.set(Pod{Kind: Drop})
			w.applyAll(t)
			w.seen.only(9001, eip1)
			w.seen.only(9002, eip1)
			w.seen.only(9003)
			a, b := startSender(t, here, w.bastion, 9001), startSender(t, there, w.bastion, 9002)
			startSender(t, dropped, w.bastion, 9003)
			w.flows(t, a, eip1)
			w.flows(t, b, eip1)
			first := strings.ReplaceAll(felixFirst, "IPTABLES", rules.iptables())
			for _, n := range w.nodes {
				n.Run(t, strings.ReplaceAll(felixChains, "IPTABLES", rules.iptables()))
			}
			for round := 1; round <= oustedOften; round++ {
				w.seen.says("others come first")
				for _, n := range w.nodes {
					n.Run(t, first)
				}
				w.linger(t)
				w.applyAll(t)
				w.seen.says("after a pass")
				w.flows(t, a, eip1)
				w.flows(t, b, eip1)
				var want []string
				if !rules.table() && round == oustedOften {
					want = []string{rules.iptables() + ", table filter, chain FORWARD", rules.iptables() + ", table mangle, chain PREROUTING"}
				}
				n2.warnsOfFirstPlace(t, want)
			}
			for name, c := range n2.dp.ousted.chains {
				for i := range c.at {
					c.at[i] -= oustedWithin
				}
				n2.dp.ousted.chains[name] = c
			}
			n2.warnsOfFirstPlace(t, nil)
		})
	}
}

// warnsOfFirstPlace expects warnings of these objects, each with a rule and a remedy.
func (n *node) warnsOfFirstPlace(t *testing.T, want []string) {
	t.Helper()
	var objects []string
	found := n.warns(t)
	for _, f := range found {
		if f.Reason != warning.FirstPlaceLost || !strings.Contains(f.Problem, "-j cali-") || !strings.Contains(f.Remedy, "--backend=nftables") {
			t.Errorf("not wanted: %v", f)
		}
		objects = append(objects, f.Object)
	}
	if !slices.Equal(objects, want) {
		t.Errorf("warnings of %q, wanted of %q", objects, want)
	}
}

// Rules of others come first for a moment when they are started; only what comes again and
// again deserves a warning.
func TestFirstPlaceIsLostOften(t *testing.T) {
	var o oustings
	lost := iptables.Transaction{Table: rules.Mangle, Ousted: []iptables.Ousted{{Chain: "PREROUTING", Rule: "-j cali-PREROUTING"}}}
	for _, step := range []struct {
		at   time.Duration
		lost bool
		want bool
	}{
		{1 * time.Minute, true, false},
		{2 * time.Minute, true, false},
		{11*time.Minute + 1, true, false}, // the first was too long ago
		{11*time.Minute + 2, true, true},
		{11*time.Minute + 3, false, true},
		{12 * time.Minute, false, false}, // those of minutes 2 and 11 are too far apart
	} {
		t1 := iptables.Transaction{Table: rules.Mangle}
		if step.lost {
			t1 = lost
		}
		o.note("iptables-nft", t1, step.at)
		if got := o.often(step.at); (len(got) > 0) != step.want {
			t.Errorf("after %v: %v", step.at, got)
		}
	}
	o.note("iptables-nft", lost, 13*time.Minute)
	if got := o.often(13 * time.Minute); !slices.Equal(got, []warning.Ousted{{Chain: "iptables-nft, table mangle, chain PREROUTING", Rule: "-j cali-PREROUTING"}}) {
		t.Errorf("after a third time: %v", got)
	}
}
