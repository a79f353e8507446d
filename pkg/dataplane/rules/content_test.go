package rules

import (
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
)

// testMarks are 6 bits of index above 2 flags.
type testMarks struct{}

func (testMarks) Remote() uint32    { return 2 }
func (testMarks) Return() uint32    { return 1 }
func (testMarks) IndexMask() uint32 { return 0x3fc }
func (testMarks) Index(i int) uint32 {
	return uint32(i) << 2
}
func (testMarks) FirstIndex() int { return 128 }
func (testMarks) MaxIndex() int   { return 255 }

func params(egressIPs int) Params {
	p := Params{
		Marks: testMarks{}, Overlay: "egress0", OverlayPort: 9789, ProbePort: 9790, Resets: true,
		Indices: map[netip.Addr]int{},
		Strict:  []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")},
	}
	for i := range egressIPs {
		p.Indices[netip.AddrFrom4([4]byte{192, 168, 7, byte(i)})] = 128 + i
	}
	return p
}

// All chains are ours by name, what rules and jumps lead to is there, and no
// chain of the tree is long.
//
// Mutants killed: a child of the tree without rules; more than 4 bits a level.
func TestContentHoldsTogether(t *testing.T) {
	for _, n := range []int{0, 1, maxLinear, maxLinear + 1, 128} {
		content := Build(params(n))
		if len(content) != len(Stages()) {
			t.Errorf("%d stages of %d", len(content), len(Stages()))
		}
		for stage, set := range content {
			exists := func(by, chain string) {
				if _, ok := set.Chains[chain]; !ok {
					t.Errorf("%d egress IPs, %s: %s leads to %s, which is not there", n, stage, by, chain)
				}
			}
			for _, j := range set.Jumps {
				exists(string(j.From), j.To)
			}
			for chain, list := range set.Chains {
				if !strings.HasPrefix(chain, ChainPrefix) {
					t.Errorf("chain %s does not have our prefix", chain)
				}
				if strings.HasPrefix(chain, ChainSNAT) && len(list) > 16 {
					t.Errorf("%d egress IPs: %s has %d rules", n, chain, len(list))
				}
				for _, r := range list {
					switch a := r.Action.(type) {
					case Jump:
						exists(chain, a.Chain)
					case Goto:
						exists(chain, a.Chain)
					}
				}
			}
		}
	}
}

// Every egress IP has one source NAT rule, with the mark of its index. One of IPv6, which the
// kernel may still have from rules in nftables, has none.
func TestContentHasASourceForEachEgressIP(t *testing.T) {
	for _, n := range []int{0, 1, maxLinear, maxLinear + 1, 127} {
		p := params(n)
		with6 := p
		with6.Indices = maps.Clone(p.Indices)
		with6.Indices[netip.MustParseAddr("2001:db8::7")] = 255
		got := map[netip.Addr]uint32{}
		for _, list := range Build(with6)[NAT].Chains {
			for _, r := range list {
				if a, ok := r.Action.(SourceNAT); ok {
					got[a.To] = r.Matches[0].(Mark).Value
				}
			}
		}
		want := map[netip.Addr]uint32{}
		for ip, i := range p.Indices {
			want[ip] = p.Marks.Index(i)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%d egress IPs: %v", n, got)
		}
	}
}

// The same input gives the same rules, in the same order.
func TestContentIsDeterministic(t *testing.T) {
	first := fmt.Sprintf("%#v", Build(params(100)))
	for range 10 {
		if fmt.Sprintf("%#v", Build(params(100))) != first {
			t.Fatal("two builds differ")
		}
	}
}

// Params that differ in anything are not equal: rules are not rendered again for the same.
//
// Mutants killed: ports-are-no-params.
func TestParamsAreComparedWhole(t *testing.T) {
	testenv.EachField(t, func(name string, p Params) {
		same := p
		if p.Equal(Params{}) || !p.Equal(same) {
			t.Errorf("%s: equal to none: %t; to itself: %t", name, p.Equal(Params{}), p.Equal(same))
		}
	}, testMarks{})
}
