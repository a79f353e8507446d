package dataplane

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/iptables"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/rules"
)

// After every prefix of every list of changes, every packet leaves with the
// source that the old State or the new one plans, or is dropped; after the last,
// with the new one's. TestMutantsOfRulesAndOrder has the mutants that it kills.
func TestPropertyNoPacketLeaksAtAnyMoment(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		if err := drawScenario(t).run(mutant{}); err != nil {
			t.Fatal(err)
		}
	})
}

// given: rules in iptables that serve an egress IP of each family, as the kernel shows them; then
// their indices are known from there; when another egress IP of IPv6 takes the place of that one,
// then its source NAT rule stays until no packet has its mark any more, and goes then.
//
// Mutants killed: source-nat-of-ipv6-goes-first, indices-of-ipv6-are-forgotten.
func TestSourceNATOfIPv6GoesLast(t *testing.T) {
	m := DefaultMarks()
	k := emptyKernel()
	k.rules = map[Backend]iptables.Tables{NFT: {}}
	former, four, next := testenv.Addr(eip61), testenv.Addr(eip1), testenv.Addr(eip62)
	plan := func(idx indices) []change {
		known, _ := knownIndices(m, k)
		return order(orderInput{
			observed: k, desired: emptyKernel(), marks: m, use: []Backend{NFT}, use6: []Backend{NFT}, known: known,
			rules: rules.Params{Marks: m, Overlay: overlayName, OverlayPort: 9789, IPv6: true, Serve6: true, Indices: idx},
		})
	}
	sources := func() (list []netip.Addr) {
		for _, nat := range k.rules6[NFT].MarkedNATs() {
			list = append(list, nat.To)
		}
		slices.SortFunc(list, netip.Addr.Compare)
		return list
	}
	first := indices{former: m.FirstIndex(), four: m.FirstIndex() + 1}
	for _, c := range plan(first) {
		k.do(c, func() {})
	}
	if known, used := knownIndices(m, k); !maps.Equal(known, first) || len(used) != len(first) {
		t.Fatalf("known are %v, used %v, want %v", known, used, first)
	}
	for _, c := range plan(indices{next: m.FirstIndex() + 2, four: m.FirstIndex() + 1}) {
		want := []netip.Addr{former, next}
		if c.phase >= phaseRewrite {
			want = []netip.Addr{next}
		}
		k.do(c, func() {})
		if c.ipv6 && c.transaction.Table == rules.NAT && !slices.Equal(sources(), want) {
			t.Errorf("phase %d: sources are %v, want %v", c.phase, sources(), want)
		}
	}
	if !slices.Equal(sources(), []netip.Addr{next}) {
		t.Errorf("sources are %v in the end", sources())
	}
}

func TestMutantsOfRulesAndOrder(t *testing.T) {
	without := func(chain, part string) func(string, string) string {
		return func(c, spec string) string {
			if c == chain && strings.Contains(spec, part) {
				return ""
			}
			return spec
		}
	}
	move := func(from, to phase) func([]change) []change {
		return func(list []change) []change {
			list = slices.Clone(list)
			for i := range list {
				if list[i].phase == from {
					list[i].phase = to
				}
			}
			slices.SortStableFunc(list, func(a, b change) int { return int(a.phase) - int(b.phase) })
			return list
		}
	}
	leave := func(o op) func([]change) []change {
		return func(list []change) []change {
			return slices.DeleteFunc(slices.Clone(list), func(c change) bool { return c.op == o })
		}
	}
	const unnatable = "-m conntrack --ctstate INVALID,UNTRACKED"
	remote := fmt.Sprintf("%#x/%#x", DefaultMarks().Remote(), DefaultMarks().Remote())
	for _, m := range []mutant{
		{name: "answers are marked too", rule: func(c, spec string) string {
			return strings.Replace(spec, "-m conntrack --ctdir ORIGINAL -j "+rules.ChainWay, "-j "+rules.ChainWay, 1)
		}},
		{name: "second lock removed", rule: without(rules.ChainOut, "--mark "+remote+" -j DROP")},
		{name: "INVALID passes", rule: without(rules.ChainOut, unnatable)},
		{name: "INVALID passes from the overlay", rule: without(rules.ChainFrom, unnatable)},
		{name: "unserved networks pass", rule: without(rules.ChainFrom, "--mark 0x0/")},
		{name: "connections are not pinned", rule: without(rules.ChainPinned, "-j DROP")},
		{name: "overlay's packets are masqueraded", rule: without(rules.ChainPostrouting, "-o "+overlayName)},
		{name: "third lock removed", rule: without(rules.ChainHeld, "-j DROP")},
		{name: "marks stay on packets inside", rule: without(rules.ChainForward, "-m set --match-set "+setInside+" dst")},
		{name: "pods may reach the overlay's port", rule: without(rules.ChainPorts, "--dport")},
		{name: "marked before the rules", order: move(phaseMark, phaseGrow)},
		{name: "SNAT taken away before the mark", order: move(phaseRewrite, phaseLock)},
		{name: "unlocked before connections are forgotten", order: move(phaseUnlock, phaseLock)},
		{name: "served before the address is there", order: move(phaseAddress, phaseUnroute)},
		{name: "address released before its packets end", order: move(phaseRelease, phaseGrow)},
		{name: "network still served after its IP moved on", order: leave(delServed)},
		{name: "connections not forgotten", order: leave(forgetFlows)},
		{name: "never locked", order: func(list []change) []change {
			return slices.DeleteFunc(slices.Clone(list), func(c change) bool { return c.set == setLocked })
		}},
	} {
		t.Run(m.name, func(t *testing.T) {
			scenarios := rapid.Custom(drawScenario)
			for i := range 500 {
				if err := scenarios.Example(i).run(m); err != nil {
					t.Logf("killed by scenario %d: %v", i, err)
					return
				}
			}
			t.Fatal("the mutant lives: 500 scenarios do not tell it from the original")
		})
	}
}
