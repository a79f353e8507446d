package dataplane

import (
	"errors"
	"strings"
	"testing"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/iptables"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/warning"
)

// given: a host that serves IPv6 with rules in iptables, and on which ip6tables refuses them after
// a restart of the agent; then IPv6 is dropped there, the report says why, and IPv4 goes on; when
// ip6tables takes them, then IPv6 goes on within a minute.
//
// Mutant killed: refused-rules-serve-ipv6.
func TestRefusedRulesOfIPv6AreTriedAgain(t *testing.T) {
	w := newDualWorld(t, onlyNFT())
	w.seen6.only(9101, eip61)
	w.seen6.only(9102, eip61)
	w.applyAll(t)
	w.here.sendsAll6(t, 9101)
	w.there.sendsAll6(t, 9102)
	flows := func() {
		t.Helper()
		for _, port := range []uint16{9101, 9102} {
			before := w.seen6.from(port, eip61)
			testenv.UntilWithin(t, patience, "packets with the egress IP", func() bool { return w.seen6.from(port, eip61) > before+20 })
		}
	}
	flows()
	w.n2.start(t)
	w.n2.dp.serve6.rules = made(errors.New("no such match"))
	r, err := w.n2.tryApply(t)
	if err == nil || !r.IPv6.Known || !strings.Contains(r.IPv6.Reason, "no such match") || !strings.Contains(r.IPv6.Reason, "tried again") || !r.IPv6Locked {
		t.Errorf("reported are %+v, %v", r, err)
	}
	w.silent6(t, 9101, 9102)
	w.there.leaves(t, eip1)
	w.n2.dp.serve6.rules.at -= againAfter
	w.n2.apply(t)
	flows()
	w.there.leaves(t, eip1)
	w.n2.settled(t)
}

// given: a host that serves IPv6 with rules in iptables, by the only backend that it has; when the
// rules of that cannot be read any more, then IPv6 is dropped there and the report says why, and
// IPv4 goes on; when they can, then so does IPv6.
//
// Mutant killed: unreadable-rules-serve-ipv6.
func TestUnreadableRulesServeNoIPv6(t *testing.T) {
	w := newDualWorld(t, onlyNFT())
	w.n2.dp.ip6tables = map[Backend]*iptables.Driver{NFT: w.n2.dp.ip6tables[NFT]}
	w.applyAll(t)
	port := w.membersSend(t)
	flows := func() {
		t.Helper()
		for p, to := range port {
			before := w.seen6.from(to, eip61)
			testenv.UntilWithin(t, patience, "packets of "+p.Name, func() bool { return w.seen6.from(to, eip61) > before+20 })
		}
	}
	flows()
	mend := w.n2.unreadable(t, "ip6")
	r, err := w.n2.tryApply(t)
	if !errors.Is(err, errUnreadable6) || r.IPv6.Reason != errUnreadable6.Error() {
		t.Errorf("reported are %+v, %v", r, err)
	}
	w.silent6(t, 9101, 9102, 9103)
	w.there.leaves(t, eip1)
	mend()
	w.n2.apply(t)
	flows()
	w.there.leaves(t, eip1)
	w.n2.settled(t)
}

// given: a host with rules in one backend of iptables, on which others translate sources of IPv6 in
// the other; then pods leave with their egress IP of IPv6 all the same, and a warning names both
// backends if they do so in both, or the one that is not configured.
//
// Mutants killed: source-nat-of-ipv6-is-beside-that-of-others, mixed-backends-of-ipv6-are-not-told.
func TestSourcesOfIPv6AreTranslatedInTheOtherBackend(t *testing.T) {
	w := newDualWorld(t, onlyNFT())
	const masquerade = " -t nat -A POSTROUTING -s fd00:10:244::/48 ! -d fd00:10:244::/48 -j MASQUERADE"
	w.n2.Run(t, "ip6tables-legacy"+masquerade)
	w.applyAll(t)
	w.seen6.only(9102, eip61)
	w.there.sendsAll6(t, 9102)
	for _, p := range w.members() {
		p.leaves6(t, eip61)
	}
	w.plain.leaves6(t, w.n2.ip6())
	w.n2.warnsNoMore(t)
	w.n2.Run(t, "ip6tables-nft"+masquerade)
	w.n2.warnsOnly(t, warning.ForeignNATFirst, "ip6tables-nft and ip6tables-legacy", "let all software on the host use one")
	w.there.leaves6(t, eip61)
	w.n2.settled(t)

	w.n2.cfg.Backends, w.n2.cfg.IPTables = []Backend{NFT}, false
	w.n2.start(t)
	w.n2.warnsOnly(t, warning.ForeignNATFirst, "ip6tables-legacy", "set --backend to that")
	w.n2.Run(t, "ip6tables-legacy -t nat -F POSTROUTING")
	w.n2.warnsNoMore(t)
	w.there.leaves6(t, eip61)
	w.n2.settled(t)
}
