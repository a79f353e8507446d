package dataplane

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/conntrack"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/warning"
)

// Ports count for each destination and protocol alone, and only where there are ports.
//
// Mutants killed: ports-of-all-destinations, ports-of-all-protocols.
func TestUsageOfEgressIPs(t *testing.T) {
	one, two := testenv.Addr(eip1), testenv.Addr(eip2)
	server, other := testenv.Addr("203.0.113.9"), testenv.Addr("203.0.113.10")
	c := newCounter()
	for _, f := range []conntrack.Flow{
		{SourceOutside: one, Dest: server, DestPort: 443, Protocol: unix.IPPROTO_TCP},
		{SourceOutside: one, Dest: server, DestPort: 443, Protocol: unix.IPPROTO_TCP},
		{SourceOutside: one, Dest: server, DestPort: 443, Protocol: unix.IPPROTO_UDP},
		{SourceOutside: one, Dest: server, DestPort: 80, Protocol: unix.IPPROTO_TCP},
		{SourceOutside: one, Dest: other, DestPort: 443, Protocol: unix.IPPROTO_TCP},
		{SourceOutside: two, Dest: other, Protocol: unix.IPPROTO_ICMP},
	} {
		c.add(f)
	}
	got := c.usages()
	want := map[netip.Addr]Usage{
		one: {Connections: 5, Ports: 2, Destination: netip.AddrPortFrom(server, 443), Protocol: unix.IPPROTO_TCP},
		two: {Connections: 1},
	}
	if len(got) != len(want) || got[one] != want[one] || got[two] != want[two] {
		t.Errorf("usage is %+v, want %+v", got, want)
	}
}

// The warning begins when few ports are left, and ends when many are again.
//
// Mutant killed: ports-warning-without-end.
func TestWarningBeforePortsRunOut(t *testing.T) {
	ip := testenv.Addr(eip1)
	var u usages
	for i, c := range []struct {
		ports int
		want  bool
	}{{0, false}, {portsMany - 1, false}, {portsMany, true}, {portsAll, true}, {portsFew, true}, {portsFew - 1, false}, {portsFew, false}} {
		u.put(map[netip.Addr]Usage{ip: {Connections: c.ports, Ports: c.ports}})
		r := Report{Hosted: []HostedReport{{IP: ip}, {IP: testenv.Addr(eip2)}}}
		u.report(&r)
		if warned := len(r.Warnings) == 1 && r.Warnings[0].Reason == warning.PortsRunOut; warned != c.want || r.Counts != i+1 || r.Hosted[0].Usage.Ports != c.ports {
			t.Errorf("%d ports: warnings %v, count %d, reported %+v", c.ports, r.Warnings, r.Counts, r.Hosted)
		}
	}
	u.put(nil)
	if r := (Report{Hosted: []HostedReport{{IP: ip}}}); func() bool { u.report(&r); return r.Hosted[0].Usage != (Usage{}) }() {
		t.Errorf("an egress IP without connections: %+v", r.Hosted)
	}
}

// given: connections of pods here and on another node, with an egress IP, and others; then those
// with the egress IP are counted.
func TestConnectionsWithEgressIPsAreCounted(t *testing.T) {
	w := newWorld(t, 2, ownTable())
	n1, n2 := w.nodes[0], w.nodes[1]
	here, there, plain := n1.addPod(t, "here", 2), n2.addPod(t, "there", 2), n1.addPod(t, "plain", 3)
	n1.host(eip1, 7)
	here.set(local(eip1, 7))
	there.set(remote(7, n1))
	plain.set(Pod{Kind: Node})
	w.applyAll(t)
	w.connects(t, here, "tcp4", 9001)
	w.connects(t, there, "tcp4", 9002)
	w.connects(t, there, "udp4", 9003)
	w.connects(t, plain, "tcp4", 9004)
	n1.Do(t, func() {
		got, err := n1.dp.countUsages()
		if u := got[testenv.Addr(eip1)]; err != nil || len(got) != 1 || u.Connections != 3 || u.Ports != 1 || u.Destination.Addr() != testenv.Addr(bastionIP) {
			t.Errorf("counted %+v: %v", got, err)
		}
	})
	n2.Do(t, func() {
		if got, err := n2.dp.countUsages(); err != nil || len(got) != 0 {
			t.Errorf("on the pod's node, counted %+v: %v", got, err)
		}
	})
}
