package nftables

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"github.com/google/nftables/expr"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/rules"
)

// Name is the name of our table, of family inet.
const Name = "egressip"

// Table is what our table holds, apart from the members of sets that change with
// pods and hosts.
type Table struct {
	// Chains are all chains, by name.
	Chains map[string]Chain
	// Maps are the elements of the sets and maps that the rules of one
	// configuration need, by the name of the set.
	Maps map[string]Elements
	// Unknown are sets and maps, as observed, that another version of ours has made. A plan
	// takes them away.
	Unknown []string
}

// Chain is a chain and its rules.
type Chain struct {
	// Base says where packets enter the chain, nil for a chain that rules lead to.
	Base  *Base
	Rules []Rule
}

// Base is the place of a base chain.
type Base struct {
	Hook     rules.Hook
	Priority int32
	NAT      bool
}

// Rule is one rule of the kernel.
type Rule struct {
	// ID identifies the rule's expressions.
	ID string
	// Exprs is empty in a rule that was observed.
	Exprs []expr.Any
}

// Elements are those of a set, each with its value, "" in a set that is no map. Keys
// are the kernel's bytes. Values are the kernel's bytes, and of maps to verdicts the
// verdict in words, such as "jump save-40".
type Elements map[string]string

// Transaction changes our table, whole or not at all and in one moment.
type Transaction struct {
	// flush are chains whose rules go, drop those that go themselves, add those that
	// are new, write those that get rules.
	flush, drop, add, write []string
	chains                  map[string]Chain
	// del and put are elements of maps.
	del, put map[string]Elements
	// unknown are sets and maps that go.
	unknown []string
	// Changes counts the chains and maps that it changes. It is 0 where the table is
	// as it should be.
	Changes int
	// After is what the table holds once it has run.
	After Table
}

// Plan returns the transaction that makes an observed table the desired one.
func Plan(observed, desired Table) Transaction {
	if sameMap(observed.Chains, desired.Chains) && sameMap(observed.Maps, desired.Maps) {
		return Transaction{After: desired}
	}
	t := Transaction{chains: desired.Chains, unknown: observed.Unknown, del: map[string]Elements{}, put: map[string]Elements{}, After: desired}
	for name := range desired.Chains {
		have, exists := observed.Chains[name]
		want := desired.Chains[name]
		switch {
		case !exists:
			t.add = append(t.add, name)
		case !sameBase(have.Base, want.Base):
			t.flush, t.drop, t.add = append(t.flush, name), append(t.drop, name), append(t.add, name)
		case !sameRules(have.Rules, want.Rules):
			t.flush = append(t.flush, name)
		default:
			continue
		}
		t.write = append(t.write, name)
	}
	for name := range observed.Chains {
		if _, wanted := desired.Chains[name]; !wanted {
			t.flush, t.drop = append(t.flush, name), append(t.drop, name)
		}
	}
	for _, names := range [][]string{t.flush, t.drop, t.add, t.write} {
		slices.Sort(names)
	}
	t.Changes = len(t.write) + len(t.drop) + len(t.unknown)
	for _, name := range mapNames() {
		del, put := difference(observed.Maps[name], desired.Maps[name])
		if len(del)+len(put) > 0 {
			t.Changes++
			t.del[name], t.put[name] = del, put
		}
	}
	return t
}

// sameMap reports whether two maps are one.
func sameMap[V any](a, b map[string]V) bool {
	return a != nil && reflect.ValueOf(a).Pointer() == reflect.ValueOf(b).Pointer()
}

// difference returns the elements that must go, and those that must come. One whose
// value changes is in both.
func difference(have, want Elements) (del, put Elements) {
	del, put = Elements{}, Elements{}
	for key, value := range have {
		if now, ok := want[key]; !ok || now != value {
			del[key] = value
		}
	}
	for key, value := range want {
		if before, ok := have[key]; !ok || before != value {
			put[key] = value
		}
	}
	return del, put
}

func sameBase(a, b *Base) bool {
	return a == nil && b == nil || a != nil && b != nil && *a == *b
}

func sameRules(a, b []Rule) bool {
	return slices.EqualFunc(a, b, func(a, b Rule) bool { return a.ID == b.ID })
}

// Dormant is the table without its base chains: nothing leads to its rules.
func (t Table) Dormant() Table {
	chains := maps.Clone(t.Chains)
	maps.DeleteFunc(chains, func(_ string, c Chain) bool { return c.Base != nil })
	t.Chains = chains
	return t
}

// InEffect reports whether packets enter the table.
func (t Table) InEffect() bool {
	for _, c := range t.Chains {
		if c.Base != nil {
			return true
		}
	}
	return false
}

// Gives reports whether the table has a chain that gives packets a mark.
func (t Table) Gives(mark uint32) bool {
	_, ok := t.Chains[markChain(mark)]
	return ok
}

// SNAT reads back which source address the table gives to which mark.
func (t Table) SNAT() map[uint32]netip.Addr {
	found := map[uint32]netip.Addr{}
	for _, name := range []string{setSNAT, setSNAT6} {
		for key, value := range t.Maps[name] {
			if ip, ok := netip.AddrFromSlice([]byte(value)); ok && len(key) == 4 {
				found[binary.NativeEndian.Uint32([]byte(key))] = ip
			}
		}
	}
	return found
}

// List describes what is in the table, one object a line.
func (t Table) List() []string {
	var list []string
	for _, name := range slices.SortedFunc(maps.Keys(t.Chains), cmp.Compare[string]) {
		list = append(list, fmt.Sprintf("nftables table inet %s, chain %s with %d rules", Name, name, len(t.Chains[name].Rules)))
	}
	return list
}

// chainName is the name that a chain of the model has in our table.
func chainName(model string) string {
	return strings.ToLower(strings.TrimPrefix(model, rules.ChainPrefix))
}

func markKey(mark uint32) string { return string(binary.NativeEndian.AppendUint32(nil, mark)) }
