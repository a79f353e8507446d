package dataplane

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/bpf"
)

// The table of untilProbed, row by row: egress IPs of a host with one pod each, of
// which some are on the uplink (present) and some in service (served) before.
func TestRoundUntilAddressesAreProbed(t *testing.T) {
	m := DefaultMarks()
	mark1, mark2 := m.Index(m.FirstIndex()), m.Index(m.FirstIndex()+1)
	pod1, pod2 := testenv.Addr("10.244.1.2"), testenv.Addr("10.244.1.3")
	ip1, ip2 := testenv.Addr(eip1), testenv.Addr(eip2)
	set := func(ips ...netip.Addr) map[netip.Addr]struct{} {
		s := map[netip.Addr]struct{}{}
		for _, ip := range ips {
			s[ip] = struct{}{}
		}
		return s
	}
	for _, c := range []struct {
		name            string
		pending, served []netip.Addr
		// wanted of the kernel
		pods      map[netip.Addr]uint32
		networks  map[bpf.Network]uint32
		addresses map[netip.Addr]struct{}
		prepared  indices
	}{
		{
			name: "all new", pending: []netip.Addr{ip1, ip2},
			pods: map[netip.Addr]uint32{pod1: m.Remote(), pod2: m.Remote()}, networks: map[bpf.Network]uint32{},
			addresses: set(), prepared: indices{ip1: m.FirstIndex(), ip2: m.FirstIndex() + 1},
		},
		{
			name: "one new, one in place", pending: []netip.Addr{ip2}, served: []netip.Addr{ip1},
			pods: map[netip.Addr]uint32{pod1: mark1, pod2: m.Remote()}, networks: map[bpf.Network]uint32{{NetID: 7}: mark1},
			addresses: set(ip1), prepared: indices{ip2: m.FirstIndex() + 1},
		},
		{
			name: "one lost, one in place", pending: []netip.Addr{ip1}, served: []netip.Addr{ip1, ip2},
			pods: map[netip.Addr]uint32{pod1: mark1, pod2: mark2}, networks: map[bpf.Network]uint32{{NetID: 7}: mark1, {NetID: 8}: mark2},
			addresses: set(ip2), prepared: indices{},
		},
		{
			name: "one lost, one new", pending: []netip.Addr{ip1, ip2}, served: []netip.Addr{ip1},
			pods: map[netip.Addr]uint32{pod1: mark1, pod2: m.Remote()}, networks: map[bpf.Network]uint32{{NetID: 7}: mark1},
			addresses: set(), prepared: indices{ip2: m.FirstIndex() + 1},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := State{
				Hosted: []Hosted{{IP: ip1, NetID: 7}, {IP: ip2, NetID: 8}},
				Pods:   []Pod{{IP: pod1, Kind: Local, NetID: 7, EgressIP: ip1}, {IP: pod2, Kind: Local, NetID: 8, EgressIP: ip2}},
			}
			all, problems, without := aim(s, digested(s, nil), m, nil, nil, nil)
			if len(problems)+len(without) > 0 || len(all.desired.addresses) != 2 {
				t.Fatalf("the goal is %+v with problems %v, without an index: %v", all, problems, without)
			}
			got := all.untilProbed(m, c.pending, set(c.served...))
			for what, diff := range map[string]string{
				"pods":      cmp.Diff(c.pods, got.desired.pods, cmp.Comparer(sameAddr)),
				"networks":  cmp.Diff(c.networks, got.desired.served),
				"addresses": cmp.Diff(c.addresses, got.desired.addresses, cmp.Comparer(sameAddr)),
				"prepared":  cmp.Diff(c.prepared, got.prepared, cmp.Comparer(sameAddr)),
				"rules":     cmp.Diff(union(all.serving, all.prepared), union(got.serving, got.prepared), cmp.Comparer(sameAddr)),
				"locks":     cmp.Diff(all.desired.locked, got.desired.locked, cmp.Comparer(sameAddr)),
			} {
				if diff != "" {
					t.Errorf("%s (-want +got):\n%s", what, diff)
				}
			}
			if len(all.serving) != 2 || len(all.desired.addresses) != 2 {
				t.Error("the goal itself was changed")
			}
		})
	}
}

func sameAddr(a, b netip.Addr) bool { return a == b }

// Kills the mutant that goes on without the egress IPs that have no index.
func TestAimSaysForWhomNoIndexIsLeft(t *testing.T) {
	m := Marks{Mask: 0x7} // one bit for the index
	s := State{Hosted: []Hosted{{IP: testenv.Addr(eip1), NetID: 7}, {IP: testenv.Addr(eip2), NetID: 8}}}
	g, _, without := aim(s, digested(s, nil), m, nil, nil, nil)
	if len(without) != 1 || without[0] != testenv.Addr(eip2) || len(g.serving) != 0 {
		t.Errorf("without an index: %v, goal %+v", without, g)
	}
}
