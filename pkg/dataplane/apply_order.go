package dataplane

import (
	"maps"
	"net/netip"
	"slices"
	"sync"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/bpf"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/iptables"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/nftables"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/rules"
)

// A phase is a step in the order of changes. Each phase leaves the kernel in a
// state in which no packet leaks, and so does each change within it: the
// process may die between any two.
//
// In words: first make packets drop, then make what carries them, then send them
// there. In reverse: send them elsewhere, end connections on the old path, remove
// what carried them, and lift the locks last.
type phase int

const (
	// phaseGrow adds to the sets of what is inside, of hosts and of what is excluded for pods,
	// and stops serving networks that lost their egress IP here. It comes first, as locks refer
	// to these sets.
	phaseGrow phase = iota
	// phaseLock locks pods that must not leave unmarked, and binds addresses to links.
	phaseLock
	// phaseCopy gives the sets of a backend that has just been chosen what those of the
	// former one have: its rules take effect next, and must see no pod as unknown.
	phaseCopy
	// phaseRules puts all rules in place, and keeps the source NAT rules of egress
	// IPs that are about to be deleted. Filter and NAT come before mangle, which marks.
	phaseRules
	// phaseOverlay repairs the overlay, its programs and the policy routes, and
	// lets new egress IPs pass the guard at the uplink.
	phaseOverlay
	// phaseAddress adds egress IPs to the uplink and announces them.
	phaseAddress
	// phaseServe accepts packets from the overlay for them.
	phaseServe
	// phaseRoute sets the egress hosts of pods.
	phaseRoute
	// phaseMark sets the path of each pod's packets. From here on new connections
	// no longer take the old path; packets of old connections are dropped (see
	// rules.ChainPinned), or belong to a pod that is locked.
	phaseMark
	// phaseUnroute deletes overlay routes of pods that take another path.
	phaseUnroute
	// phaseInclude deletes networks that are no longer excluded for pods which stay locked: all
	// of their former way has gone by now.
	phaseInclude
	// phaseForget deletes connections that began on another path than that of
	// their pod, so that they end or begin again.
	phaseForget
	// phaseRewrite deletes the source NAT rules of egress IPs that are gone, and
	// all rules from iptables backends that are no longer used.
	phaseRewrite
	// phaseRelease deletes those egress IPs from the uplink and from the guard.
	phaseRelease
	// phaseUnlock lifts the locks of pods that may leave unmarked, and releases their
	// addresses from links.
	phaseUnlock
	// phaseShrink deletes from the sets what is no longer inside, or a host.
	phaseShrink
)

// A change is one step from an observed kernel to the desired one, as a value.
type change struct {
	phase phase
	// op says which of the fields below it is about.
	op op
	// pod or hosted address, host, or egress IP.
	ip netip.Addr
	// prefix, for sets of networks.
	prefix netip.Prefix
	// excluded and included are networks that are excluded for a pod from now on, and no longer.
	excluded, included []netip.Prefix
	// set is the name of the set, for put, del and exclude.
	set string
	// mark of a pod, or of a network that is served.
	mark uint32
	// network is one that is served.
	network bpf.Network
	route   bpf.Route
	// transaction on the rules of a backend; those for IPv6 if ipv6 is set.
	backend     Backend
	ipv6        bool
	transaction iptables.Transaction
	// sources are the only pods whose connections may have to be forgotten, none for any.
	sources []netip.Addr
	// table is the transaction of the backend NFTables.
	table nftables.Transaction
	// links is what links may send with.
	links nftables.Links
}

type op int

const (
	putMember op = iota
	delMember
	putRoute
	delRoute
	putServed
	delServed
	putRules
	putLinks
	// exclude changes the excluded networks of a pod, some of which go and some come.
	exclude
	// What a backend that is no longer used has left.
	dropTable
	dropSets
	mendOverlay
	// The guard lets new egress IPs pass; it no longer lets old ones pass.
	widenGuard
	narrowGuard
	dropWays // of egress IPs of other interfaces
	addAddress
	delAddress
	forgetFlows
)

// orderInput is what the order of changes depends on.
type orderInput struct {
	observed, desired kernel
	marks             Marks
	rules             rules.Params
	// use are the backends to hold our rules, use6 those for IPv6.
	use, use6 []Backend
	// known are the indices that the observed rules hold.
	known indices
	// table renders rules for the backend NFTables.
	table func(rules.Params) nftables.Table
	// links is what links may send with.
	links linkPlan
	// sweep asks for a look at all connections although nothing changes, as
	// after a start.
	sweep bool
}

// order returns the changes that lead from the observed kernel to the desired
// one, in the order in which they must be made.
func order(in orderInput) []change {
	var c changes
	former := len(in.observed.former.pods)+len(in.observed.former.locked) > 0
	in.observed = c.copyFormer(in)
	obs, want := in.observed, in.desired

	// A network that is no longer served is dropped from the start: a packet must
	// not get an egress IP that its namespace has lost.
	for _, id := range slices.SortedFunc(maps.Keys(obs.served), bpf.Network.Compare) {
		if _, ok := want.served[id]; !ok {
			c.add(change{phase: phaseGrow, op: delServed, network: id})
		}
	}
	c.members(phaseGrow, putMember, setHosts, want.hosts, obs.hosts)
	c.members(phaseGrow, putMember, setIPs, want.ips, obs.ips)
	grown := c.networks(phaseGrow, putMember, want.inside, obs.inside)
	moved := c.pods(in)
	released, mended := c.tables(in)
	c.add(change{phase: phaseOverlay, op: mendOverlay})
	c.add(change{phase: phaseOverlay, op: widenGuard})
	c.add(change{phase: phaseRelease, op: narrowGuard})
	if released {
		c.add(change{phase: phaseRelease, op: dropWays})
	}
	for _, ip := range missing(want.addresses, obs.addresses) {
		c.add(change{phase: phaseAddress, op: addAddress, ip: ip})
	}
	for _, id := range slices.SortedFunc(maps.Keys(want.served), bpf.Network.Compare) {
		if mark, ok := obs.served[id]; !ok || mark != want.served[id] {
			c.add(change{phase: phaseServe, op: putServed, network: id, mark: want.served[id]})
		}
	}
	withdrawn := missing(obs.addresses, want.addresses)
	c.forget(in.sweep || released || mended || grown || former || len(withdrawn) > 0 || rewritten(obs.served, want.served), moved)
	for _, ip := range withdrawn {
		c.add(change{phase: phaseRelease, op: delAddress, ip: ip})
	}
	c.members(phaseShrink, delMember, setIPs, obs.ips, want.ips)
	c.members(phaseShrink, delMember, setHosts, obs.hosts, want.hosts)
	if c.networks(phaseShrink, delMember, obs.inside, want.inside) {
		// Until now connections there could begin as those inside do.
		c.add(change{phase: phaseShrink, op: forgetFlows})
	}
	if len(obs.former.ipsets) > 0 {
		c.add(change{phase: phaseShrink, op: dropSets})
	}

	c.sort()
	return c.list
}

// sort brings the changes into the order of their phases.
func (c *changes) sort() {
	slices.SortStableFunc(c.list, func(a, b change) int { return int(a.phase) - int(b.phase) })
}

// rewritten reports whether a network's packets now get another egress IP.
func rewritten(obs, want map[bpf.Network]uint32) bool {
	for id, mark := range obs {
		if now, ok := want[id]; !ok || now != mark {
			return true
		}
	}
	return false
}

type changes struct{ list []change }

func (c *changes) add(ch change) { c.list = append(c.list, ch) }

func (c *changes) members(p phase, o op, set string, in, notIn map[netip.Addr]struct{}) {
	for _, ip := range missing(in, notIn) {
		c.add(change{phase: p, op: o, set: setOf(set, ip), ip: ip})
	}
}

// setOf returns the name of the set that has the addresses of ip's family.
func setOf(set string, ip netip.Addr) string {
	if ip.Is4() {
		return set
	}
	return map[string]string{setPods: setPods6, setHosts: setHosts6, setLocked: setLocked6, setInside: setInside6, setIPs: setIPs6, setExcluded: setExcluded6}[set]
}

// networks adds changes of the sets of what is inside, and reports whether there are any.
func (c *changes) networks(p phase, o op, in, notIn map[netip.Prefix]struct{}) bool {
	var list []netip.Prefix
	for n := range in {
		if _, ok := notIn[n]; !ok {
			list = append(list, n)
		}
	}
	for _, n := range masked(list) {
		c.add(change{phase: p, op: o, set: setOf(setInside, n.Addr()), prefix: n})
	}
	return len(list) > 0
}

// tables adds the transactions of iptables. It reports whether an egress IP's
// source NAT rule is removed, and whether the rules were not as they should be.
func (c *changes) tables(in orderInput) (released, mended bool) {
	between := in.rules
	between.Indices = union(in.known, in.rules.Indices)
	same := maps.Equal(between.Indices, in.rules.Indices)
	final := sync.OnceValue(func() iptables.Rendered { return iptables.Render(rules.Build(in.rules)) })
	keep := final
	if !same {
		keep = sync.OnceValue(func() iptables.Rendered { return iptables.Render(rules.Build(between)) })
	}
	if usesTable(in.use) {
		last := in.table(in.rules)
		first := last
		if !same {
			first = in.table(between)
		}
		c.ownTable(in.observed, first, last)
	} else if in.observed.tableExists {
		c.add(change{phase: phaseRewrite, op: dropTable})
	}
	for _, b := range iptables.Backends() {
		observed, ok := in.observed.rules[b]
		if !ok {
			continue
		}
		for _, name := range rules.Stages() {
			table := observed[name]
			if !slices.Contains(in.use, b) {
				rest := iptables.Rendered{}
				if usesTable(in.use) {
					rest = closedForward(final, observed)
				}
				c.table(phaseRewrite, b, name, table, rest[name])
				continue
			}
			table = c.table(phaseRules, b, name, table, keep()[name])
			c.table(phaseRewrite, b, name, table, final()[name])
		}
	}
	c.tables6(in, between, final)
	mended = slices.ContainsFunc(c.list, func(ch change) bool { return ch.phase == phaseRules })
	return len(between.Indices) > len(in.rules.Indices), mended
}

// tables6 adds the transactions of iptables for IPv6. between are the rules that keep egress
// IPs which are about to go.
func (c *changes) tables6(in orderInput, between rules.Params, final func() iptables.Rendered) {
	for _, b := range iptables.Backends() {
		have := in.observed.rules6[b]
		var steps []step6
		switch {
		case slices.Contains(in.use6, b):
			steps = []step6{{phaseRules, iptables.Render(rules.Build6(between))}, {phaseRewrite, iptables.Render(rules.Build6(in.rules))}}
		case usesTable(in.use) && in.rules.Serve6:
			// What accepts packets of the overlay is the same for both families.
			steps = []step6{{phaseRewrite, closedForward(final, have)}}
		default:
			steps = []step6{{phaseRewrite, nil}}
		}
		for _, name := range rules.Stages() {
			table := have[name]
			for _, step := range steps {
				t := iptables.Plan(name, table, step.want[name])
				if t.Changes > 0 {
					c.add(change{phase: step.phase, op: putRules, backend: b, ipv6: true, transaction: t})
				}
				table = t.After
			}
		}
	}
}

// step6 is what the rules for IPv6 must be after a phase.
type step6 struct {
	phase phase
	want  iptables.Rendered
}

// copyFormer adds to the sets of the backend in use what only those of the former one
// have, and returns the kernel as it is then. Chains that nothing leads to do no harm,
// and marks of pods need them. Where the table is in effect already, it is too late:
// locks and marks come in their phases.
func (c *changes) copyFormer(in orderInput) kernel {
	obs := in.observed
	if len(obs.former.pods)+len(obs.former.locked) == 0 || usesTable(in.use) && obs.table.InEffect() {
		return obs
	}
	if usesTable(in.use) {
		between := in.rules
		between.Indices = union(in.known, in.rules.Indices)
		t := nftables.Plan(obs.table, in.table(between).Dormant())
		if t.Changes > 0 {
			c.add(change{phase: phaseCopy, op: putRules, backend: NFTables, table: t})
		}
		obs.table = t.After
	}
	pods, locked := maps.Clone(obs.pods), maps.Clone(obs.locked)
	if !in.rules.IPv6 {
		obs.former = obs.former.onlyIPv4()
	}
	for _, ip := range missing(obs.former.locked, obs.locked) {
		c.add(change{phase: phaseCopy, op: putMember, set: setOf(setLocked, ip), ip: ip})
		locked[ip] = struct{}{}
	}
	for _, ip := range missing(obs.former.pods, obs.pods) {
		mark := obs.former.pods[ip]
		if usesTable(in.use) && !obs.table.Gives(mark) {
			continue // of another configuration
		}
		c.add(change{phase: phaseCopy, op: putMember, set: setOf(setPods, ip), ip: ip, mark: mark})
		pods[ip] = mark
	}
	obs.pods, obs.locked = pods, locked
	return obs
}

// ownTable adds the transactions of the table of our own.
func (c *changes) ownTable(observed kernel, keep, final nftables.Table) {
	have := observed.table
	for _, step := range []struct {
		phase phase
		want  nftables.Table
	}{{phaseRules, keep}, {phaseRewrite, final}} {
		t := nftables.Plan(have, step.want)
		if t.Changes > 0 {
			c.add(change{phase: step.phase, op: putRules, backend: NFTables, table: t})
		}
		have = t.After
	}
}

// table adds the transaction that one table needs, and returns what the table
// holds after it.
func (c *changes) table(p phase, b Backend, name rules.Stage, observed iptables.Table, desired iptables.RenderedTable) iptables.Table {
	t := iptables.Plan(name, observed, desired)
	if t.Changes > 0 {
		c.add(change{phase: p, op: putRules, backend: b, transaction: t})
	}
	return t.After
}

// missing are the keys of a map that are not in another, in order.
func missing[A, B any](in map[netip.Addr]A, from map[netip.Addr]B) []netip.Addr {
	var list []netip.Addr
	for ip := range in {
		if _, ok := from[ip]; !ok {
			list = append(list, ip)
		}
	}
	slices.SortFunc(list, netip.Addr.Compare)
	return list
}

func sortedAddrs[V any](m map[netip.Addr]V) []netip.Addr {
	return slices.SortedFunc(maps.Keys(m), netip.Addr.Compare)
}
