package dataplane

import (
	"testing"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
)

// given: pods that send without a pause by IPv6; when the agent of the egress host starts
// again with its rules in iptables, where they do not serve IPv6, and the pods' nodes do not
// know that yet, then the egress host forwards nothing of what they send; also where it
// has no ip6tables. IPv4 goes on. With rules in nftables again, so does IPv6.
//
// Mutant killed: overlay-takes-ipv6-without-rules.
func TestEgressHostThatStopsServingIPv6(t *testing.T) {
	w := newDualWorld(t)
	w.applyAll(t)
	port := map[*podMachine]uint16{w.here: 9101, w.third: 9103}
	for p, to := range port {
		w.seen6.only(to, eip61)
		p.sendsAll6(t, to)
	}
	flows := func() {
		t.Helper()
		for p, to := range port {
			before := w.seen6.from(to, eip61)
			testenv.UntilWithin(t, patience, "packets of "+p.Name, func() bool { return w.seen6.from(to, eip61) > before+20 })
		}
	}
	flows()
	for _, without := range []bool{false, true} {
		w.seen6.says("rules in iptables")
		w.n2.cfg.IPTables = true
		w.n2.start(t)
		if without {
			w.seen6.says("rules in iptables, without ip6tables")
			w.n2.dp.ip6tables = nil
		}
		r, err := w.n2.tryApply(t)
		if want := "egress IP " + eip61 + ": " + errIPv6InIPTables.Error(); err == nil || err.Error() != want || r.IPv6.Reason != errIPv6InIPTables.Error() {
			t.Errorf("reported are %+v, %v", r.IPv6, err)
		}
		w.silent6(t, 9101, 9103)
		for _, p := range w.members() {
			p.leaves(t, eip1)
		}
		w.seen6.says("rules in nftables again")
		w.n2.cfg.IPTables = false
		w.n2.start(t)
		w.n2.apply(t)
		flows()
		w.n2.settled(t)
	}
}

// silent6 expects that nothing comes outside for a while at some ports.
func (w dualWorld) silent6(t *testing.T, ports ...uint16) {
	t.Helper()
	w.drain6(t)
	for _, port := range ports {
		w.seen6.only(port)
	}
	w.linger(t)
	w.drain6(t)
	for _, port := range ports {
		w.seen6.only(port, eip61)
	}
}
