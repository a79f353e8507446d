package dataplane

import (
	"fmt"
	"net/netip"
	"testing"

	"pgregory.net/rapid"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/internal/testenv/tracer"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/iptables"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/rules"
)

// An egress IP keeps its index; none gets one that the kernel still has for
// anything; all differ, and all have the bit that makes them ours.
//
// Mutants killed: taken without used; taken without known; indices that begin
// at 1; known ones given out again.
func TestPropertyIndicesAreStable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := Marks{Mask: rapid.SampledFrom([]uint32{0x1f7f, 0x7, 0x3f, 0xff}).Draw(t, "mask")}
		index := rapid.IntRange(m.FirstIndex(), m.MaxIndex())
		ips := rapid.SliceOfNDistinct(rapid.IntRange(1, 12), 0, 8, rapid.ID[int]).Draw(t, "hosted")
		var hosted []netip.Addr
		for _, i := range ips {
			hosted = append(hosted, testenv.Addr(fmt.Sprintf("192.168.7.%d", i)))
		}
		known, used, owner := indices{}, map[int]bool{}, map[int]bool{}
		for i := 1; i <= 12; i++ {
			if n := index.Draw(t, "known"); rapid.Bool().Draw(t, "is known") && !owner[n] {
				known[testenv.Addr(fmt.Sprintf("192.168.7.%d", i))], owner[n] = n, true
			}
		}
		for _, n := range rapid.SliceOfN(index, 0, 3).Draw(t, "used") {
			used[n] = !owner[n] || used[n]
		}
		got, without := assignIndices(hosted, known, used, m)
		if len(got)+len(without) != len(hosted) {
			t.Fatalf("%d of %d egress IPs accounted for", len(got)+len(without), len(hosted))
		}
		seen := map[int]bool{}
		for ip, n := range got {
			before, had := known[ip]
			switch {
			case seen[n]:
				t.Fatalf("index %d for two", n)
			case m.Index(n)&m.Index(m.FirstIndex()) == 0 || n > m.MaxIndex():
				t.Fatalf("index %d is none of ours", n)
			case had && n != before:
				t.Fatalf("%v had index %d and has %d", ip, before, n)
			case !had && (owner[n] || used[n]):
				t.Fatalf("%v got index %d, which the kernel knows already", ip, n)
			}
			seen[n] = true
		}
		for n := m.FirstIndex(); n <= m.MaxIndex() && len(without) > 0; n++ {
			if !seen[n] && !owner[n] && !used[n] {
				t.Fatalf("index %d is free, and %v got none", n, without)
			}
		}
	})
}

// What is read back from the rules that were written is what was written,
// however many there are.
//
// Mutant killed: a tree whose inner chains match one nibble too few.
func TestPropertyIndicesAreReadBackFromRules(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := DefaultMarks()
		idx := indices{}
		ip := testenv.Addr("10.0.0.1")
		size := rapid.SampledFrom([]int{0, 1, 32, 33, 100}).Draw(t, "size")
		for _, n := range rapid.SliceOfNDistinct(rapid.IntRange(m.FirstIndex(), m.MaxIndex()), size, size, rapid.ID[int]).Draw(t, "indices") {
			idx[ip], ip = n, ip.Next()
		}
		content := rules.Build(rules.Params{Marks: m, Overlay: overlayName, OverlayPort: 9789, Indices: idx})
		nat := iptables.Plan(rules.NAT, iptables.Table{}, iptables.Render(content)[rules.NAT]).After
		observed := map[Backend]iptables.Tables{Legacy: {rules.NAT: nat}}
		known, used := knownIndices(m, kernel{rules: observed})
		if len(known) != len(idx) || len(used) != len(idx) {
			t.Fatalf("%d of %d read back", len(known), len(idx))
		}
		h := newTracedHost(kernel{rules: observed}, m)
		for ip, n := range idx {
			p := tracer.Packet{Out: tracer.Uplink, Mark: m.Index(n), Conn: &tracer.Conn{Mark: m.Index(n)}, State: tracer.New}
			if _, err := h.Walk("nat", "POSTROUTING", &p); err != nil || known[ip] != n || p.Conn.Source != ip {
				t.Fatalf("%v with index %d: read back %d, leaves as %v, error %v", ip, n, known[ip], p.Conn.Source, err)
			}
		}
	})
}

// given: rules that contradict each other after a manual edit; then neither is
// used, and the index is not given out.
func TestContradictoryRulesAreNotBelieved(t *testing.T) {
	m := DefaultMarks()
	n := m.FirstIndex()
	nat := func(specs ...string) iptables.Tables {
		return iptables.Tables{rules.NAT: {Own: map[string][]string{rules.ChainPostrouting: specs}}}
	}
	snat := func(index int, ip string) string {
		return fmt.Sprintf("-m mark --mark %#x/%#x -j SNAT --to-source %s", m.Index(index), m.IndexMask(), ip)
	}
	known, used := knownIndices(m, kernel{rules: map[Backend]iptables.Tables{
		NFT:    nat(snat(n, eip1), snat(n+1, eip3)),
		Legacy: nat(snat(n, eip2), "-m mark --mark 0x1/0x1 -j SNAT --to-source 192.0.2.1"),
	}})
	if len(known) != 1 || known[testenv.Addr(eip3)] != n+1 || len(used) != 2 {
		t.Fatalf("known %v, used %v", known, used)
	}
	got, _ := assignIndices([]netip.Addr{testenv.Addr(eip1), testenv.Addr(eip3)}, known, used, m)
	if got[testenv.Addr(eip3)] != n+1 || got[testenv.Addr(eip1)] != n+2 {
		t.Fatalf("assigned %v", got)
	}
}

// given: egress IPs that a host may have to take over; when it does, then no rule
// changes; and when it no longer may, none of their rules is left.
//
// Mutant killed: standbyIndices that returns none.
func TestStandbyTakesOverWithoutAChangeOfRules(t *testing.T) {
	s := scenario{use: []Backend{NFT, Legacy}}
	state := State{HostIP: testenv.Addr(tracedHostIP), Hosts: []netip.Addr{testenv.Addr(tracedHostIP)}, Hosted: []Hosted{{IP: testenv.Addr(eip1), NetID: 1}}, Standby: []Hosted{{IP: testenv.Addr(eip2), NetID: 2}, {IP: testenv.Addr(eip3), NetID: 3}}}
	k := bareKernel(s.use)
	changed := func(state State) (n int) {
		list, _, _ := s.changes(k, state)
		for _, c := range list {
			if c.op == putRules {
				n++
			}
			k.do(c, func() {})
		}
		return n
	}
	if changed(state) == 0 {
		t.Fatal("the first pass changes no rules")
	}
	if has(k.addresses, testenv.Addr(eip2)) {
		t.Errorf("%s is on the uplink, and on standby", eip2)
	}
	state.Hosted, state.Standby = []Hosted{{IP: testenv.Addr(eip1), NetID: 1}, {IP: testenv.Addr(eip2), NetID: 2}, {IP: testenv.Addr(eip3), NetID: 3}}, nil
	if n := changed(state); n > 0 {
		t.Errorf("%d changes of rules to take over", n)
	}
	state.Hosted = state.Hosted[:2]
	changed(state)
	known, _ := knownIndices(DefaultMarks(), k)
	if _, left := known[testenv.Addr(eip3)]; left || len(known) != 2 {
		t.Errorf("known: %v", known)
	}
}
