package dataplane

import (
	"testing"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/iptables"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/warning"
)

// unreadable adds a rule of others to table nat of a family, ip or ip6, that iptables cannot
// show, and returns how to take it away.
func (n *node) unreadable(t *testing.T, family string) (mend func()) {
	t.Helper()
	n.Run(t, "nft 'table "+family+" nat { chain POSTROUTING { type nat hook postrouting priority srcnat; masquerade random; }; }'")
	return func() { n.Run(t, "nft flush chain "+family+" nat POSTROUTING") }
}

// given: rules in a table of our own, and a rule of others that iptables cannot show; then a
// warning names the backend and the table, and goes with the rule.
//
// Mutant killed: unreadable-rules-are-not-told.
func TestWarningOfRulesThatCannotBeRead(t *testing.T) {
	n := newWorld(t, 1, ownTableLegacy()).nodes[0]
	n.warnsNoMore(t)
	mend := n.unreadable(t, "ip")
	n.warnsOnly(t, warning.RulesUnreadable, "iptables-nft", "rules of others there go unnoticed", "table nat", "mend what the error names")
	mend()
	n.warnsNoMore(t)
}

// given: rules in iptables, and pods that must not leave by IPv6; when the rules of one backend
// of ip6tables cannot be read, then a warning says so, and the other keeps the pods from it;
// when none is left that can be read, then a warning says that pods leave by IPv6, as they do.
// Each goes with its cause.
//
// Mutants killed: unreadable-ip6tables-are-open, open-ipv6-is-not-told.
func TestWarningOfIPv6ThatIsNotDropped(t *testing.T) {
	w := newWorld(t, 1, onlyNFT()).withIPv6(t)
	n := w.nodes[0]
	here := n.addPod6(t, "here", 2)
	w.bastion.serve6(t, bastionIP6)
	n.host(eip1, 7)
	here.set(local(eip1, 7))
	here.set6(Refuse)
	leaves := func(want bool) {
		t.Helper()
		if err := here.ask6(t, bastionIP6); (err == nil) != want {
			t.Errorf("the pod leaves by IPv6, want %t: %v", want, err)
		}
	}
	n.warnsNoMore(t)
	leaves(false)

	mend := n.unreadable(t, "ip6")
	n.warnsOnly(t, warning.RulesUnreadable, "ip6tables-nft", "table nat")
	leaves(false)
	mend()
	n.warnsNoMore(t)

	// The same on a host that has no other backend, from its boot on.
	n.Run(t, "ip6tables-legacy -F; ip6tables-legacy -t mangle -F; ip6tables-nft -F; ip6tables-nft -t mangle -F")
	n.start(t)
	n.dp.ip6tables = map[Backend]*iptables.Driver{NFT: n.dp.ip6tables[NFT]}
	mend = n.unreadable(t, "ip6")
	n.warnsOnly(t, warning.IPv6NotDropped, "ip6tables", "with IPv6 addresses of their own", "table nat", "set --backend=nftables")
	testenv.UntilWithin(t, patience, "the pod leaves by IPv6", func() bool { return here.ask6(t, bastionIP6) == nil })
	mend()
	n.warnsNoMore(t)
	leaves(false)
}

// given: rules in both backends of iptables, as others translate sources in both, or in one
// backend, as configured, while others do so in the other; then a warning names the backends, and
// goes when the others have moved.
//
// Mutant killed: mixed-backends-are-not-told.
func TestWarningOfNATInAnotherBackend(t *testing.T) {
	n := newWorld(t, 1, bothNFTFirst()).nodes[0]
	n.warnsOnly(t, warning.ForeignNATFirst, "iptables-nft and iptables-legacy", "let all software on the host use one")
	n.cfg.Backends = []Backend{Legacy}
	n.start(t)
	n.warnsOnly(t, warning.ForeignNATFirst, "iptables-nft", "a MASQUERADE there may come before", "set --backend to that")
	n.Run(t, "iptables-nft -t nat -F POSTROUTING")
	n.warnsNoMore(t)
	n.cfg.Backends = nil
	n.start(t)
	n.warnsNoMore(t)
}

// given: rules in iptables; when firewalld is there, whose reload takes them away, then a
// warning says so, and goes with it.
//
// Mutant killed: firewalld-is-not-seen.
func TestWarningOfRulesThatAreFlushed(t *testing.T) {
	n := newWorld(t, 1, onlyLegacy()).nodes[0]
	n.warnsNoMore(t)
	n.Run(t, "nft 'table inet firewalld { chain filter_INPUT { type filter hook input priority filter + 10; }; }'")
	n.warnsOnly(t, warning.RulesFlushed, "firewalld", "set --backend=nftables")
	n.Run(t, "nft delete table inet firewalld")
	n.warnsNoMore(t)
}
