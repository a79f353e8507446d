package rules

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
)

// maxLinear is the greatest number of source NAT rules in one chain; more
// become a tree. The first packet of each connection walks them.
const maxLinear = 32

func (b builder) nat() Ruleset {
	ret, first := b.Marks.Return(), b.first()
	lost, saved := b.lostIndex(), ConnMark{Value: first, Mask: first}
	unsaved := saved
	unsaved.Not = true
	post := []Rule{
		// A CNI's MASQUERADE must not touch the inner packet.
		when(b.toOverlay).then(KeepSource{}),
		when(lost, unsaved).then(Return{}),
		// Packets of the host itself, which other software may have marked.
		when(SourceLocal{}).then(Return{}),
		when(inSet(SetInside, Destination)).then(Return{}),
		// Others may have taken one of the two marks since FORWARD made them equal; or given
		// one to packets that are none of ours.
		when(lost, saved, inSet(SetLocked, Source)).then(RestoreMark{b.wayBits()}),
		when(lost, ConnMark{Value: ret | first, Mask: ret | first}).then(RestoreMark{b.wayBits()}),
		when(lost).then(Return{}),
		when(unsaved, ConnMark{Value: 0, Mask: ret}, notInSet(SetLocked, Source)).then(Return{}),
	}
	if b.Maps {
		to := make(map[uint32]netip.Addr, len(b.Indices))
		for ip, i := range b.Indices {
			if ip.Is6() == b.six {
				to[b.Marks.Index(i)] = ip
			}
		}
		post = append(post, when().then(SourceNATByMark{Mask: b.Marks.IndexMask(), To: to, RandomPort: b.RandomPorts}))
		return b.natRuleset(map[string][]Rule{ChainPostrouting: post})
	}
	tree := snatTree{marks: b.Marks, random: b.RandomPorts, byIndex: make(map[int]netip.Addr, len(b.Indices)), chains: map[string][]Rule{}}
	for ip, i := range b.Indices {
		if ip.Is6() == b.six { // the rules for IPv6 may have been elsewhere until now
			tree.byIndex[i] = ip
		}
	}
	sorted := slices.Sorted(maps.Keys(tree.byIndex))
	if len(sorted) <= maxLinear {
		for _, i := range sorted {
			post = append(post, tree.leaf(i))
		}
	} else {
		level := 0
		for sorted[len(sorted)-1]>>(4*(level+1)) > 0 {
			level++
		}
		tree.grow(sorted, level, ChainSNAT)
		post = append(post, when().then(Jump{ChainSNAT}))
	}
	tree.chains[ChainPostrouting] = post
	return b.natRuleset(tree.chains)
}

func (builder) natRuleset(chains map[string][]Rule) Ruleset {
	return Ruleset{Chains: chains, Jumps: []HookJump{{From: Postrouting, To: ChainPostrouting}}}
}

// snatTree is a tree of chains with at most 16 rules in each, which finds the
// egress IP of an index.
type snatTree struct {
	marks   Marks
	random  bool
	byIndex map[int]netip.Addr
	chains  map[string][]Rule
}

// leaf is the rule of one egress IP.
func (t snatTree) leaf(index int) Rule {
	return when(Mark{Value: t.marks.Index(index), Mask: t.marks.IndexMask()}).then(SourceNAT{To: t.byIndex[index], RandomPort: t.random})
}

// grow adds the rules of the given indices, which are sorted and differ in
// their lowest level+1 nibbles only, below a chain.
func (t snatTree) grow(sorted []int, level int, chain string) {
	if level == 0 {
		for _, i := range sorted {
			t.chains[chain] = append(t.chains[chain], t.leaf(i))
		}
		return
	}
	shift := 4 * level
	mask := t.marks.Index(t.marks.MaxIndex() &^ (1<<shift - 1))
	for len(sorted) > 0 {
		top := sorted[0] >> shift
		n := 1
		for n < len(sorted) && sorted[n]>>shift == top {
			n++
		}
		child := fmt.Sprintf("%s-%x", chain, top&0xf)
		t.chains[chain] = append(t.chains[chain], when(Mark{Value: t.marks.Index(top << shift), Mask: mask}).then(Goto{child}))
		t.grow(sorted[:n], level-1, child)
		sorted = sorted[n:]
	}
}
