package dataplane

import (
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/bpf"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/conntrack"
)

func TestStaleConnections(t *testing.T) {
	m := DefaultMarks()
	pod, outside, other := testenv.Addr("10.244.1.2"), testenv.Addr("203.0.113.9"), testenv.Addr(eip2)
	index := m.Index(m.FirstIndex())
	before := func(f func(*kernel)) kernel {
		k := emptyKernel()
		f(&k)
		return k
	}
	remote := before(func(k *kernel) { k.pods[pod], k.locked[pod] = m.Remote(), struct{}{} })
	local := before(func(k *kernel) {
		k.pods[pod], k.locked[pod] = index, struct{}{}
		k.addresses[testenv.Addr(eip1)] = struct{}{}
	})
	idx := indices{testenv.Addr(eip1): m.FirstIndex()}
	for _, c := range []struct {
		name         string
		from, to     kernel
		known, after indices
		flow         conntrack.Flow
		stale        bool
	}{
		{name: "goes on", from: remote, to: remote, flow: conntrack.Flow{Dest: outside, Mark: m.Remote()}},
		{name: "pod is remote now", from: local, to: remote, known: idx, flow: conntrack.Flow{Dest: outside, Mark: index, SourceOutside: testenv.Addr(eip1)}, stale: true},
		{name: "pod is local now", from: remote, to: local, after: idx, flow: conntrack.Flow{Dest: outside, Mark: m.Remote()}, stale: true},
		{name: "began before the pod was known", from: emptyKernel(), to: remote, flow: conntrack.Flow{Dest: outside}, stale: true},
		{name: "freed pod, with a mark", from: remote, to: emptyKernel(), flow: conntrack.Flow{Dest: outside, Mark: m.Remote()}, stale: true},
		{name: "freed pod, without a mark", from: remote, to: emptyKernel(), flow: conntrack.Flow{Dest: outside}},
		{
			name: "to the inside", from: emptyKernel(),
			to: before(func(k *kernel) {
				k.pods[pod] = m.Remote()
				k.inside[netip.MustParsePrefix("203.0.113.0/24")] = struct{}{}
			}),
			flow: conntrack.Flow{Dest: outside},
		},
		{name: "got another source", from: local, to: local, known: idx, after: idx, flow: conntrack.Flow{Dest: outside, Mark: index, SourceOutside: other}, stale: true},
		{name: "got its source", from: local, to: local, known: idx, after: idx, flow: conntrack.Flow{Dest: outside, Mark: index, SourceOutside: testenv.Addr(eip1)}},
		{name: "from the overlay, index ended", from: local, to: emptyKernel(), known: idx, flow: conntrack.Flow{Mark: m.Return() | index, SourceOutside: testenv.Addr(eip1)}, stale: true},
		{name: "from the overlay, index stays", from: local, to: local, known: idx, after: idx, flow: conntrack.Flow{Mark: m.Return() | index, SourceOutside: testenv.Addr(eip1)}},
	} {
		c.flow.Source = pod
		if got := newStaleness(m, c.from, c.to, c.known, c.after).stale(c.flow); got != c.stale {
			t.Errorf("%s: stale is %t", c.name, got)
		}
	}
}

func TestChangedRouteChangesASourceOrNot(t *testing.T) {
	a, b := testenv.Addr("192.168.7.11"), testenv.Addr("192.168.7.12")
	route := func(args ...netip.Addr) (r bpf.Route) {
		for i := 0; i < len(args); i += 2 {
			r.Via, r.Sources = append(r.Via, args[i]), append(r.Sources, args[i+1])
		}
		return r
	}
	var unknown netip.Addr
	for _, c := range []struct {
		name   string
		before bpf.Route
		after  bpf.Route
		want   bool
	}{
		{"host stays", route(a, testenv.Addr(eip1)), route(b, testenv.Addr(eip2), a, testenv.Addr(eip1)), false},
		{"host gives another source", route(a, testenv.Addr(eip1)), route(a, testenv.Addr(eip2)), true},
		{"other host, other source", route(a, testenv.Addr(eip1)), route(b, testenv.Addr(eip2)), true},
		{"address moved to another host", route(a, testenv.Addr(eip1)), route(b, testenv.Addr(eip1)), false},
		{"source before is not known", route(a, unknown), route(b, testenv.Addr(eip2)), false},
		{"source after is not known", route(a, testenv.Addr(eip1)), route(b, unknown), false},
		{"did not begin with this host", route(b, testenv.Addr(eip1)), route(b, testenv.Addr(eip2)), false},
	} {
		if got := changesSource(c.before, c.after, a); got != c.want {
			t.Errorf("%s: %t", c.name, got)
		}
	}
}

func TestConnectionsThatGetAReset(t *testing.T) {
	m := DefaultMarks()
	pod, outside := testenv.Addr("10.244.1.2"), testenv.Addr("203.0.113.9")
	s := staleness{marks: m, pods: map[netip.Addr]uint32{pod: m.Remote()}}
	good := conntrack.Flow{
		Source: pod, Dest: outside, Asked: netip.AddrPortFrom(outside, 80), DestPort: 80,
		Protocol: unix.IPPROTO_TCP, State: nl.TCP_CONNTRACK_ESTABLISHED, Mark: m.Remote(),
	}
	for name, c := range map[string]struct {
		change func(*conntrack.Flow)
		want   bool
	}{
		"established":        {func(*conntrack.Flow) {}, true},
		"closed":             {func(f *conntrack.Flow) { f.State = nl.TCP_CONNTRACK_TIME_WAIT }, false},
		"not TCP":            {func(f *conntrack.Flow) { f.Protocol = unix.IPPROTO_UDP }, false},
		"through a service":  {func(f *conntrack.Flow) { f.Asked = netip.MustParseAddrPort("10.96.0.10:80") }, false},
		"from the overlay":   {func(f *conntrack.Flow) { f.Mark |= m.Return() }, false},
		"not of a pod here":  {func(f *conntrack.Flow) { f.Source = testenv.Addr("10.244.9.9") }, false},
		"port is translated": {func(f *conntrack.Flow) { f.DestPort = 8080 }, false},
	} {
		f := good
		c.change(&f)
		if got := s.resettable(f); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}
