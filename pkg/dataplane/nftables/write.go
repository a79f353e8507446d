package nftables

import (
	"bytes"
	"maps"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/rules"
)

// write adds the messages of a transaction to the batch.
func (d *Driver) write(in *nftables.Table, t Transaction) {
	for _, name := range mapNames() {
		d.elements(setOf(in, name), nil, t.del[name])
	}
	for _, name := range t.flush {
		d.conn.FlushChain(&nftables.Chain{Table: in, Name: name})
	}
	// Their elements may lead to chains that go.
	for _, name := range t.unknown {
		set := &nftables.Set{Table: in, Name: name}
		d.conn.FlushSet(set)
		d.conn.DelSet(set)
	}
	base := func(name string) bool { return t.chains[name].Base != nil }
	// A base chain with another place is made again.
	for _, name := range t.drop {
		if base(name) {
			d.conn.DelChain(&nftables.Chain{Table: in, Name: name})
		}
	}
	for _, name := range t.add {
		d.conn.AddChain(newChain(in, name, t.chains[name].Base))
	}
	for _, name := range mapNames() {
		d.elements(setOf(in, name), t.put[name], nil)
	}
	for _, name := range t.write {
		chain := &nftables.Chain{Table: in, Name: name}
		for _, rule := range t.chains[name].Rules {
			d.conn.AddRule(&nftables.Rule{
				Table: in, Chain: chain, Exprs: rule.Exprs,
				UserData: userdata.AppendString(nil, userdata.TypeComment, rule.ID),
			})
		}
	}
	for _, name := range t.drop {
		if !base(name) {
			d.conn.DelChain(&nftables.Chain{Table: in, Name: name})
		}
	}
}

func newChain(in *nftables.Table, name string, base *Base) *nftables.Chain {
	c := &nftables.Chain{Table: in, Name: name}
	if base == nil {
		return c
	}
	policy := nftables.ChainPolicyAccept
	c.Hooknum, c.Priority, c.Policy = hookNumber(base.Hook), new(nftables.ChainPriority(base.Priority)), &policy
	c.Type = nftables.ChainTypeFilter
	if base.NAT {
		c.Type = nftables.ChainTypeNAT
	}
	return c
}

// elements adds the messages that put and delete elements of a set to the batch.
func (d *Driver) elements(set *nftables.Set, put, del Elements) {
	for chunk := range slices.Chunk(slices.Sorted(maps.Keys(del)), batchSize) {
		_ = d.conn.SetDeleteElements(set, encode(set.Name, chunk, del)) // fails for anonymous sets alone
	}
	for chunk := range slices.Chunk(slices.Sorted(maps.Keys(put)), batchSize) {
		_ = d.conn.SetAddElements(set, encode(set.Name, chunk, put))
	}
}

func setOf(in *nftables.Table, name string) *nftables.Set {
	all := sets(in)
	return all[slices.IndexFunc(all, func(s *nftables.Set) bool { return s.Name == name })]
}

func encode(set string, keys []string, values Elements) []nftables.SetElement {
	list := make([]nftables.SetElement, 0, len(keys))
	for _, key := range keys {
		e := nftables.SetElement{Key: []byte(key)}
		switch value := values[key]; set {
		case setMarks, setMarks6, setSave, setRestore:
			e.VerdictData = &expr.Verdict{Kind: expr.VerdictJump, Chain: value[len("jump "):]}
		case rules.SetInside, rules.SetInside6:
			size := len(key) / 2
			list = append(list, nftables.SetElement{Key: []byte(key)[:size]})
			if end := []byte(key)[size:]; !bytes.Equal(end, make([]byte, size)) {
				list = append(list, nftables.SetElement{Key: end, IntervalEnd: true})
			}
			continue
		case rules.SetExcluded, rules.SetExcluded6:
			e.Key, e.KeyEnd = []byte(key)[:len(key)/2], []byte(key)[len(key)/2:]
		case setSNAT, setSNAT6:
			e.Val = []byte(value)
		}
		list = append(list, e)
	}
	return list
}
