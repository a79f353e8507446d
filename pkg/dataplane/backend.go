package dataplane

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/conntrack"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/ipset"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/iptables"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/nftables"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/rules"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/warning"
)

// choice is where our rules are, for as long as the process lives.
type choice struct {
	// table: in a table of our own; else in iptables. configured: because Config says so.
	table, configured bool
	reason            string
}

// chooseBackend chooses once: to go back and forth between two places would cost more
// than either.
func (d *Dataplane) chooseBackend(trial rules.Params) (choice, error) {
	if d.choice == nil {
		c := choice{table: usesTable(d.cfg.Backends), configured: true, reason: "configured"}
		if len(d.cfg.Backends) == 0 && !d.cfg.IPTables {
			err := d.supported(trial)
			c = choice{table: err == nil, reason: "the kernel can hold all rules in a table of their own"}
			if err != nil {
				c.reason = err.Error()
			}
		}
		d.choice = &c
	}
	if !d.choice.table && len(d.iptables) == 0 {
		return *d.choice, errors.Join(errors.New("no backend for rules: "+d.choice.reason), d.iptablesErr)
	}
	return *d.choice, nil
}

// supported reports, as an error, why the kernel cannot hold our rules in a table of
// our own.
func (d *Dataplane) supported(p rules.Params) error {
	p.Serve6, p.OverIPv6 = false, false // see supported6
	p.Strict, p.Strict6 = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, []netip.Prefix{netip.MustParsePrefix("2001:db8::/64")}
	p.Resets, p.Senders, p.Excluded, p.IPv6 = true, true, true, d.ipv6
	table, err := renderTable(p)
	if err != nil {
		return err
	}
	return d.nft.Supported(table)
}

// supported6 reports, as an error, why the kernel cannot hold those of our rules that serve
// egress IPs of IPv6.
func (d *Dataplane) supported6(p rules.Params) error {
	if d.serve6.rules.due() {
		p = everyRuleOfIPv6(p)
		p.Resets, p.Senders, p.Excluded = true, true, true
		table, err := renderTable(p)
		if err == nil {
			err = d.nft.Supported(table)
		}
		d.serve6.rules = made(err)
	}
	return d.serve6.rules.err
}

// everyRuleOfIPv6 has the rules serve IPv6 in all that they can, for trial.
func everyRuleOfIPv6(p rules.Params) rules.Params {
	p.Strict6 = []netip.Prefix{netip.MustParsePrefix("2001:db8::/64")}
	p.IPv6, p.Serve6, p.OverIPv6 = true, true, true
	return p
}

// renderTable writes the rules as the table of our own.
func renderTable(p rules.Params) (nftables.Table, error) {
	p.Maps = true
	m := nftables.Marks{
		All:  p.Marks.Remote() | p.Marks.Return() | p.Marks.IndexMask(),
		Way:  p.Marks.Remote() | p.Marks.IndexMask(),
		Ways: []uint32{0, p.Marks.Remote(), p.Marks.Remote() | p.Marks.IndexMask()},
	}
	for _, i := range p.Indices {
		m.Ways = append(m.Ways, p.Marks.Index(i))
	}
	content6 := rules.Content{}
	if p.IPv6 {
		content6 = rules.Build6(p)
	}
	return nftables.Render(rules.Build(p), content6, m)
}

// iptablesRest is how long the rules of iptables may be as they were last seen, where
// ours are not among them.
const iptablesRest = 10 * time.Second

// observeIPTables reads the rules of all iptables backends. Where ours are in a table
// of our own, they are read from time to time.
//
// A backend that cannot be read is a warning where it has nothing of ours and need not
// get anything: the kernel may not have it at all. One that is needed is a problem, and
// counts as it was last seen: nothing else must wait for it.
func (d *Dataplane) observeIPTables(ctx context.Context, table bool) (seen map[Backend]iptables.Tables, warnings []warning.Warning, problem error) {
	if table && d.iptablesSeen != nil && monotonic()-d.iptablesAt < iptablesRest {
		return d.iptablesSeen, d.iptablesWarnings, nil
	}
	seen = map[Backend]iptables.Tables{}
	var errs []error
	for _, b := range iptables.Backends() {
		driver, installed := d.iptables[b]
		if !installed {
			continue
		}
		tables, err := d.readRules(ctx, b, driver)
		if err == nil {
			seen[b] = tables
			continue
		}
		if table || !d.needs(b, err) {
			if errors.Is(err, nftables.ErrAbsent) {
				continue // others have no rules there either
			}
			warnings = append(warnings, warning.UnreadableBackend("iptables-"+string(b), err))
			continue
		}
		errs = append(errs, fmt.Errorf("read the rules of iptables-%s: %w", b, err))
		if last, known := d.iptablesSeen[b]; known {
			seen[b] = last
		}
	}
	d.iptablesSeen, d.iptablesWarnings, d.iptablesAt = seen, warnings, monotonic()
	return seen, warnings, errors.Join(errs...)
}

// readRules reads the rules of a backend. Where the kernel has no nf_tables, those of iptables-nft
// are not asked for: each time, the kernel would start a program that looks for a module.
func (d *Dataplane) readRules(ctx context.Context, b Backend, driver *iptables.Driver) (iptables.Tables, error) {
	if b == NFT && d.noTables() {
		return nil, nftables.ErrAbsent
	}
	return driver.Observe(ctx)
}

// iptablesChanged notes what a backend has after a transaction, which is read again soon.
func (d *Dataplane) iptablesChanged(b Backend, t iptables.Transaction, err error) {
	d.iptablesAt = -iptablesRest
	seen, known := d.iptablesSeen[b]
	if err != nil || !known { // not known after an earlier transaction that failed
		delete(d.iptablesSeen, b)
		return
	}
	seen = maps.Clone(seen)
	seen[t.Table] = t.After
	d.iptablesSeen[b] = seen
}

// needs reports whether a backend that cannot be read has rules of ours, or may have to.
func (d *Dataplane) needs(b Backend, err error) bool {
	if len(d.cfg.Backends) > 0 {
		return slices.Contains(d.cfg.Backends, b)
	}
	// Others use a table that is incompatible, and the kernel asks it for sources too.
	return slices.Contains(d.iptablesUsed, b) || errors.Is(err, iptables.ErrIncompatible)
}

// members changes the members of sets where the rules look for them.
type members struct {
	d     *Dataplane
	table bool
}

// ensured is what holds members. Not every kernel has ipsets of all kinds, and all else works
// without: resetsErr is why there is no set of connections that get a reset although it is
// wanted, excludedErr why there is none of networks to which pods leave as without us.
type ensured struct {
	changes                int
	resets                 bool
	resetsErr, excludedErr error
}

// without notes why there is no set, and reports whether all else works without it.
func (e *ensured) without(set string, err error) bool {
	switch {
	case set == setResets || set == setResets6:
		e.resets, e.resetsErr = false, err
	case isExcluded(set):
		e.excludedErr = err
	default:
		return false
	}
	return true
}

// ensure makes what holds the members, and counts the changes.
func (m members) ensure(wantResets, ipv6 bool) (ensured, error) {
	e := ensured{resets: wantResets}
	if m.table {
		var err error
		e.changes, err = m.d.nft.Ensure()
		return e, err
	}
	var errs []error
	for _, s := range ourSets() {
		ofResets := s.Name == setResets || s.Name == setResets6
		if ofResets && !e.resets || isExcluded(s.Name) && e.excludedErr != nil || s.IPv6 && !ipv6 {
			continue
		}
		n, err := m.d.ensureSet(s)
		e.changes += n
		if err != nil && !e.without(s.Name, err) {
			errs = append(errs, err)
		}
	}
	return e, errors.Join(errs...)
}

// put makes a batch of changes, all of one set.
func (m members) put(batch []change) error {
	set := batch[0].set
	if m.table && (set == setLocked || set == setLocked6) {
		if err := m.d.nft.ForgetSenders(ipsOf(batch)); err != nil {
			return err
		}
	}
	switch {
	case !m.table:
		return ipset.Put(ourSet(set), m.entries(batch))
	case set == setPods || set == setPods6:
		marks := make(map[netip.Addr]uint32, len(batch))
		for _, c := range batch {
			marks[c.ip] = c.mark
		}
		return m.d.nft.PutPods(marks)
	case set == setInside || set == setInside6:
		return m.d.nft.PutInside(prefixesOf(batch))
	default:
		return m.d.nft.Put(set, ipsOf(batch))
	}
}

// del makes a batch of changes, all of one set.
func (m members) del(batch []change) error {
	set := batch[0].set
	if m.table && (set == setLocked || set == setLocked6) {
		if err := m.d.nft.ForgetSenders(ipsOf(batch)); err != nil {
			return err
		}
	}
	switch {
	case !m.table:
		return ipset.Delete(ourSet(set), m.entries(batch))
	case set == setPods || set == setPods6:
		return m.d.nft.DeletePods(ipsOf(batch))
	case set == setInside || set == setInside6:
		return m.d.nft.DeleteInside(prefixesOf(batch))
	default:
		return m.d.nft.Delete(set, ipsOf(batch))
	}
}

// reset notes connections of pods, which must get a reset when they go on.
func (m members) reset(flows []conntrack.Flow) error {
	if m.table {
		connections := make([]nftables.Connection, 0, len(flows))
		for _, f := range flows {
			connections = append(connections, nftables.Connection{Source: netip.AddrPortFrom(f.Source, f.SourcePort), Dest: f.Dest})
		}
		return m.d.nft.PutResets(connections)
	}
	for _, f := range flows {
		if err := putReset(m.d.nl, f); err != nil {
			return err
		}
	}
	return nil
}

func (m members) entries(batch []change) ipset.Entries {
	entries := make(ipset.Entries, len(batch))
	for _, c := range batch {
		entry := c.prefix
		var value ipset.Value
		if c.ip.IsValid() {
			entry = netip.PrefixFrom(c.ip, c.ip.BitLen())
		}
		if c.set == setPods || c.set == setPods6 {
			value = ipset.Value{Mark: c.mark, Mask: m.d.cfg.Marks.Mask}
		}
		entries[entry] = value
	}
	return entries
}

func ipsOf(batch []change) []netip.Addr {
	ips := make([]netip.Addr, 0, len(batch))
	for _, c := range batch {
		ips = append(ips, c.ip)
	}
	return ips
}

func prefixesOf(batch []change) []netip.Prefix {
	networks := make([]netip.Prefix, 0, len(batch))
	for _, c := range batch {
		networks = append(networks, c.prefix)
	}
	return networks
}

// observeTable reads the table of our own.
func observeTable(_ context.Context, v view, k *kernel) error {
	content, err := v.d.nft.Observe()
	if err != nil {
		return err
	}
	k.table, k.tableExists = content.Table, content.Exists
	pods, locked := content.Pods(), content.Addresses(setLocked)
	maps.Copy(locked, content.Addresses(setLocked6))
	if !v.table {
		k.former.pods, k.former.locked = pods, locked
		return nil
	}
	k.pods, k.locked = pods, locked
	if k.excluded, err = excludedInTable(content); err != nil {
		return err
	}
	k.hosts, k.ips = content.Addresses(setHosts), content.Addresses(setIPs)
	maps.Copy(k.hosts, content.Addresses(setHosts6))
	maps.Copy(k.ips, content.Addresses(setIPs6))
	if content.Exists {
		k.inside = v.d.nft.Inside()
	}
	return nil
}

func listTable(_ context.Context, d *Dataplane) ([]string, error) {
	content, err := d.nft.Observe()
	if err != nil || !content.Exists {
		return nil, err
	}
	return append([]string{"nftables table inet " + nftables.Name}, content.Table.List()...), nil
}

// closedForward is the part of our rules that iptables gets where ours are in a table
// of our own: packets of the overlay pass a chain of others that drops what it does
// not know. To accept a packet in one table does not take it past another.
func closedForward(content func() iptables.Rendered, observed iptables.Tables) iptables.Rendered {
	if !observed[rules.Filter].Closed("FORWARD") {
		return iptables.Rendered{}
	}
	filter := content()[rules.Filter]
	return iptables.Rendered{rules.Filter: {
		Chains: map[string][]string{rules.ChainAccept: filter.Chains[rules.ChainAccept]},
		Jumps:  slices.DeleteFunc(slices.Clone(filter.Jumps), func(j iptables.Jump) bool { return j.To != rules.ChainAccept }),
	}}
}
