package dataplane

import (
	"testing"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
)

// given: pods that send without a pause by IPv6; when the agent of the egress host starts
// again with its rules in iptables, then these go on to leave with their egress IP; when there is
// no ip6tables, and the pods' nodes do not know that yet, then the egress host forwards nothing of
// what they send. IPv4 goes on. With rules in nftables again, so does IPv6.
//
// Mutant killed: overlay-takes-ipv6-without-rules.
func TestEgressHostThatStopsServingIPv6(t *testing.T) {
	w := newDualWorld(t, ownTable())
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
		for _, p := range w.members() {
			p.leaves(t, eip1)
		}
		w.n2.settled(t)
	}
	begin := func(what string, inIPTables bool) {
		w.seen6.says(what)
		w.n2.cfg.IPTables = inIPTables
		w.n2.start(t)
	}
	flows()
	for range 2 {
		begin("rules in iptables", true)
		w.n2.apply(t)
		flows()

		begin("rules in iptables, without ip6tables", true)
		w.n2.dp.ip6tables = nil
		r, err := w.n2.tryApply(t)
		if want := "egress IP " + eip61 + ": " + errNoIP6Tables.Error(); err == nil || err.Error() != want || r.IPv6.Reason != errNoIP6Tables.Error() {
			t.Errorf("reported are %+v, %v", r.IPv6, err)
		}
		if w.n2.dp.maps.HasIPv6() {
			t.Error("the programs at the overlay take packets of IPv6")
		}
		w.silent6(t, 9101, 9103)
		for _, p := range w.members() {
			p.leaves(t, eip1)
		}

		begin("rules in nftables again", false)
		w.n2.apply(t)
		flows()
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
