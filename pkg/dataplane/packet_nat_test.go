package dataplane

import (
	"strings"
	"testing"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/warning"
)

// given: rules in iptables; when other software adds source NAT in a chain of nftables that
// comes before, then a pod with an egress IP leaves with it or not at all, and a warning names
// the chain, and the table of our own, where ours would come before it; when that has gone, or
// comes behind ours, then all is well.
//
// Mutants killed: native-nat-before-iptables-is-not-told, table-behind-others-is-a-remedy.
func TestNativeNATBesideRulesInIPTables(t *testing.T) {
	all := []rulesOf{onlyNFT()}
	if wholeMatrix() {
		all = append(all, onlyLegacy())
	}
	for _, rules := range all {
		t.Run(rules.name, func(t *testing.T) {
			w := newWorld(t, 2, rules)
			n1, n2 := w.nodes[0], w.nodes[1]
			here, there := n1.addPod(t, "here", 2), n2.addPod(t, "there", 2)
			n1.host(eip1, 7)
			here.set(local(eip1, 7))
			there.set(remote(7, n1))
			w.applyAll(t)
			w.seen.only(9001, eip1)
			w.seen.only(9002, eip1)
			a, b := startSender(t, here, w.bastion, 9001), startSender(t, there, w.bastion, 9002)
			for priority, want := range map[string]struct{ first, tableHelps bool }{"49": {true, false}, "99": {true, true}, "101": {false, false}} {
				w.flows(t, a, eip1)
				w.flows(t, b, eip1)
				w.seen.says("native source NAT at priority " + priority)
				n1.Run(t, `nft 'table ip cni { chain post { type nat hook postrouting priority `+priority+`; ip saddr 10.244.0.0/16 ip daddr != 10.244.0.0/16 masquerade; }; }'`)
				found := n1.warns(t)
				if want.first {
					w.linger(t)
					if len(found) != 1 || found[0].Reason != warning.ForeignNATFirst || found[0].Object != "table ip cni chain post" ||
						strings.Contains(found[0].Remedy, "--backend=nftables") != want.tableHelps {
						t.Errorf("at %s, warnings: %s", priority, warning.Lines(found))
					}
				} else {
					w.flows(t, a, eip1)
					w.flows(t, b, eip1)
					if len(found) > 0 {
						t.Errorf("behind ours, warnings: %s", warning.Lines(found))
					}
				}
				n1.Run(t, "nft delete table ip cni")
				if found := n1.warns(t); len(found) > 0 {
					t.Errorf("afterwards, warnings: %s", warning.Lines(found))
				}
			}
			w.flows(t, a, eip1)
			w.flows(t, b, eip1)
		})
	}
}
