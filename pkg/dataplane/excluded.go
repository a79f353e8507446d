package dataplane

import (
	"errors"
	"maps"
	"net/netip"
	"slices"

	"go4.org/netipx"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/ipset"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/nftables"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/warning"
)

// isExcluded reports whether a set has pods with networks to which they leave as without us.
func isExcluded(set string) bool { return set == setExcluded || set == setExcluded6 }

// excluded are the networks of Pod.Excluded as the kernel has them: of the pod's family, and the
// fewest that have the same addresses.
func (p Pod) excluded() []netip.Prefix {
	return fewest(slices.DeleteFunc(slices.Clone(p.Excluded), func(n netip.Prefix) bool {
		return !n.IsValid() || n.Addr().Is4() != p.IP.Is4() || n.Addr().Is4In6()
	}))
}

// fewest are the fewest networks that have the same addresses as the valid ones of others, in order.
// All addresses are two networks: no ipset has one of length 0.
func fewest(networks []netip.Prefix) []netip.Prefix {
	if len(networks) == 0 {
		return nil
	}
	var b netipx.IPSetBuilder
	for _, n := range networks {
		if n.IsValid() {
			b.AddPrefix(n)
		}
	}
	set, err := b.IPSet()
	if err != nil {
		return nil // of networks that are not valid alone, and there are none
	}
	return inHalves(set.Prefixes())
}

// inHalves has a network of all addresses in halves.
func inHalves(networks []netip.Prefix) []netip.Prefix {
	if i := slices.IndexFunc(networks, func(n netip.Prefix) bool { return n.IsValid() && n.Bits() == 0 }); i >= 0 {
		return slices.Replace(networks, i, i+1, halves(networks[i].Addr().Is6())...)
	}
	return networks
}

// withoutExcluded is a State in which no network is excluded.
func withoutExcluded(s State) State {
	if slices.ContainsFunc(s.Pods, func(p Pod) bool { return len(p.Excluded) > 0 }) {
		s.Pods = slices.Clone(s.Pods)
		for i := range s.Pods {
			s.Pods[i].Excluded = nil
		}
	}
	return s
}

// warnExcluded reports pods that go on with their egress IPs although they should not.
func (r *round) warnExcluded() {
	if r.excludedErr != nil && slices.ContainsFunc(r.state.Pods, func(p Pod) bool { return len(p.Excluded) > 0 }) {
		r.warnOfPods(warning.NothingExcluded(r.excludedErr))
	}
}

// exclude adds a change of the networks that are excluded for a pod.
func (c *changes) exclude(p phase, pod netip.Addr, before, after []netip.Prefix) {
	put, del := minus(after, before), minus(before, after)
	if len(put)+len(del) > 0 {
		c.add(change{phase: p, op: exclude, set: setOf(setExcluded, pod), ip: pod, excluded: put, included: del})
	}
}

// excluded adds the changes of set egress-excluded: until all pods have their marks, a pod has
// the networks of before and of after, so that nothing gets a source that is neither. It returns
// the pods whose connections may now be on another path than they are.
//
// What the set has of before counts if it was in effect for the pod, and this process has seen that:
// what a former one has left may be of another pod with the address.
func (c *changes) excluded(in orderInput) (moved []netip.Addr) {
	before, after, want := in.observed.excluded, in.desired.excluded, in.desired
	both := maps.Clone(after)
	for pod, networks := range before {
		both[pod] = slices.Concat(networks, after[pod])
	}
	for _, pod := range sortedAddrs(both) {
		if slices.Equal(before[pod], after[pod]) {
			continue
		}
		all := fewest(both[pod])
		if _, locked := in.observed.locked[pod]; in.sweep || !locked || in.observed.pods[pod] == 0 {
			all = after[pod]
		}
		c.exclude(phaseGrow, pod, before[pod], all)
		last := phaseInclude
		if _, locked := want.locked[pod]; !locked {
			last = phaseShrink
		}
		c.exclude(last, pod, all, after[pod])
		moved = append(moved, pod)
	}
	return moved
}

// minus are the networks that are not among others.
func minus(networks, others []netip.Prefix) []netip.Prefix {
	return slices.DeleteFunc(slices.Clone(networks), func(n netip.Prefix) bool { return slices.Contains(others, n) })
}

// exclude changes which networks are excluded for pods. In the table of our own that is one
// transaction, whose intervals must not overlap; in ipsets, new networks come before old ones go.
func (m members) exclude(batch []change) error {
	set := batch[0].set
	if m.table {
		changes := make([]nftables.Exclusion, 0, len(batch))
		for _, c := range batch {
			changes = append(changes, nftables.Exclusion{Pod: c.ip, Put: c.excluded, Del: c.included})
		}
		return m.d.nft.Exclude(set, changes)
	}
	put, del, others := ipset.Pairs{}, ipset.Pairs{}, false
	for _, c := range batch {
		pod := netip.PrefixFrom(c.ip, c.ip.BitLen())
		for _, n := range c.excluded {
			put[ipset.Pair{First: pod, Second: n}] = struct{}{}
		}
		for _, n := range c.included {
			if others = others || !n.IsValid(); n.IsValid() {
				del[ipset.Pair{First: pod, Second: n}] = struct{}{}
			}
		}
	}
	var err error
	if others {
		err = addOthers(del, set, batch)
	}
	return errors.Join(err, ipset.PutPairs(ourSet(set), put), ipset.DeletePairs(ourSet(set), del))
}

// addOthers adds the entries of a set that are none of ours, as far as a batch deletes them.
func addOthers(del ipset.Pairs, set string, batch []change) error {
	entries, err := ipset.ListPairs(set)
	for entry := range entries {
		if !entry.First.IsSingleIP() && slices.ContainsFunc(batch, func(c change) bool {
			return c.ip == entry.First.Addr() && slices.Contains(c.included, netip.Prefix{})
		}) {
			del[entry] = struct{}{}
		}
	}
	return err
}

// excludedInSets reads what the ipsets have. An entry that is not of a single address is none of
// ours: a network that is not valid.
func excludedInSets() (nftables.Excluded, error) {
	found := make(nftables.Excluded)
	var errs []error
	for _, name := range []string{setExcluded, setExcluded6} {
		entries, err := ipset.ListPairs(name)
		errs = append(errs, err)
		for entry := range entries {
			pod, network := entry.First.Addr(), entry.Second
			if !entry.First.IsSingleIP() {
				network = netip.Prefix{}
			}
			found[pod] = append(found[pod], network)
		}
	}
	for _, networks := range found {
		slices.SortFunc(networks, netip.Prefix.Compare)
	}
	return found, errors.Join(errs...)
}

// excludedInTable reads what the table of our own has.
func excludedInTable(content nftables.Content) (nftables.Excluded, error) {
	found, err := content.Excluded()
	for pod, networks := range found {
		found[pod] = inHalves(networks)
	}
	return found, err
}
