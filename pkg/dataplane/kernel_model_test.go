package dataplane

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/iptables"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/nftables"
)

// do makes a change in the model; forget is called for forgetFlows.
func (k *kernel) do(c change, forget func()) {
	sets := map[string]map[netip.Addr]struct{}{setLocked: k.locked, setLocked6: k.locked, setHosts: k.hosts, setIPs: k.ips}
	switch {
	case c.op == putMember && (c.set == setPods || c.set == setPods6):
		k.pods[c.ip] = c.mark
	case c.op == delMember && (c.set == setPods || c.set == setPods6):
		delete(k.pods, c.ip)
	case c.op == putMember && (c.set == setInside || c.set == setInside6):
		k.inside[c.prefix] = struct{}{}
	case c.op == delMember && (c.set == setInside || c.set == setInside6):
		delete(k.inside, c.prefix)
	case c.op == putMember:
		sets[c.set][c.ip] = struct{}{}
	case c.op == delMember:
		delete(sets[c.set], c.ip)
	case c.op == exclude:
		k.excluded[c.ip] = slices.SortedFunc(slices.Values(slices.Concat(minus(k.excluded[c.ip], c.included), c.excluded)), netip.Prefix.Compare)
		if len(k.excluded[c.ip]) == 0 {
			delete(k.excluded, c.ip)
		}
	case c.op == putRoute:
		k.routes[c.ip] = c.route
	case c.op == delRoute:
		delete(k.routes, c.ip)
	case c.op == putServed:
		k.served[c.network] = c.mark
	case c.op == delServed:
		delete(k.served, c.network)
	case c.op == putRules && c.backend == NFTables:
		k.table = c.table.After
	case c.op == dropTable:
		k.table, k.tableExists = nftables.Table{}, false
	case c.op == dropSets:
		k.former = emptyKernel().former
	case c.op == putRules && c.ipv6:
		if k.rules6[c.backend] == nil {
			k.rules6[c.backend] = iptables.Tables{}
		}
		k.rules6[c.backend][c.transaction.Table] = c.transaction.After
	case c.op == putRules:
		k.rules[c.backend][c.transaction.Table] = c.transaction.After
	case c.op == addAddress:
		k.addresses[c.ip] = struct{}{}
	case c.op == delAddress:
		delete(k.addresses, c.ip)
	case c.op == forgetFlows:
		forget()
	}
}

// copied is a kernel that can be changed alone.
func (k kernel) copied() kernel {
	c := k
	c.pods, c.locked, c.hosts, c.ips = maps.Clone(k.pods), maps.Clone(k.locked), maps.Clone(k.hosts), maps.Clone(k.ips)
	c.inside, c.routes, c.served = maps.Clone(k.inside), maps.Clone(k.routes), maps.Clone(k.served)
	c.addresses, c.excluded = maps.Clone(k.addresses), maps.Clone(k.excluded)
	c.rules, c.rules6 = map[Backend]iptables.Tables{}, map[Backend]iptables.Tables{}
	for b, tables := range k.rules {
		c.rules[b] = maps.Clone(tables)
	}
	for b, tables := range k.rules6 {
		c.rules6[b] = maps.Clone(tables)
	}
	return c
}
