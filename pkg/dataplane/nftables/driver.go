package nftables

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/internal/clock"
)

// socketBuffer has room for a transaction of ten thousand elements, and the kernel's
// answers to it.
const socketBuffer = 16 << 20

// maxReads bounds the attempts to read the table while other software changes rules.
const maxReads = 10

// batchSize is how many elements go in one message: well below the 64 KiB that one
// attribute can hold.
const batchSize = 500

// Driver holds our table. It is one netlink socket, which owns the table where the
// kernel supports that.
type Driver struct {
	conn *nftables.Conn
	// raw is the socket of conn, for what the library has no call for.
	raw *netlink.Conn
	// seen is what the table holds, as of the kernel's generation of rules; nil where
	// it must be read. With owned, nobody else can change it.
	seen             *Content
	generation       uint32
	wantOwned, owned bool
	// inside has the networks that are inside as they were put into their sets, which
	// themselves have no network that another contains.
	inside map[netip.Prefix]struct{}
	// linksSeen is what the tables of links hold, as of linksGeneration; nil where they
	// must be read. With linksOwned, nobody else can change them.
	linksSeen       *LinkContent
	linksGeneration uint32
	linksOwned      bool
	absence         absence
}

// Content is all that our table holds.
type Content struct {
	// Exists reports whether there is a table.
	Exists bool
	Table  Table
	// Sets are the members of the sets that change with pods and hosts, by name.
	Sets map[string]Elements
	// otherForm are sets with our names that have another form than ours.
	otherForm []string
}

// Open opens a socket. It changes nothing in the kernel. With own, the driver becomes
// the owner of the table, where the kernel has tables that outlive their owners.
func Open(own bool) (*Driver, error) {
	d := &Driver{wantOwned: own, absence: absence{read: readGeneration, now: clock.Monotonic}}
	conn, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(c *netlink.Conn) error {
		d.raw = c
		return errors.Join(c.SetReadBuffer(socketBuffer), c.SetWriteBuffer(socketBuffer))
	}))
	if err != nil {
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	d.conn = conn
	return d, nil
}

// Close closes the socket. The table stays.
func (d *Driver) Close() error {
	if err := d.conn.CloseLasting(); err != nil {
		return fmt.Errorf("close nftables: %w", err)
	}
	return nil
}

// Owned reports whether nobody else can change the table.
func (d *Driver) Owned() bool { return d.owned }

// Forget makes the next Observe read the table again, whoever owns it.
func (d *Driver) Forget() { d.seen, d.linksSeen = nil, nil }

// Unchanged reports whether our tables certainly are as they were last observed or changed.
func (d *Driver) Unchanged() bool {
	if d.seen == nil || d.linksSeen == nil {
		return false
	}
	if d.owned && d.linksOwned {
		return true
	}
	generation, err := d.absence.generation()
	return err == nil && (d.owned || generation == d.generation) && (d.linksOwned || generation == d.linksGeneration)
}

// Observe reads what our table holds. The result must not be changed.
func (d *Driver) Observe() (Content, error) {
	if d.seen != nil && d.owned {
		return *d.seen, nil
	}
	generation, err := d.absence.generation()
	if errors.Is(err, ErrAbsent) {
		return Content{}, nil
	}
	if err != nil {
		return Content{}, err
	}
	if d.seen != nil && d.generation == generation {
		return *d.seen, nil
	}
	d.seen = nil
	content, generation, err := d.readWhole(generation)
	if err != nil {
		return Content{}, err
	}
	d.seen, d.generation = &content, generation
	d.inside = stillInside(d.inside, content.Inside())
	return content, nil
}

// Inside returns the networks that are inside, as of the last Observe or change: those
// that their sets hold, and those that were put there and that these contain. It must not
// be changed.
func (d *Driver) Inside() map[netip.Prefix]struct{} { return d.inside }

// stillInside returns the networks of a set as it was read, and of those that were put
// there the ones that they contain: the set does not show these.
func stillInside(put map[netip.Prefix]struct{}, read []netip.Prefix) map[netip.Prefix]struct{} {
	inside := maps.Clone(put)
	maps.DeleteFunc(inside, func(p netip.Prefix, _ struct{}) bool {
		return !slices.ContainsFunc(read, func(o netip.Prefix) bool { return o.Bits() <= p.Bits() && o.Contains(p.Addr()) })
	})
	if inside == nil {
		inside = map[netip.Prefix]struct{}{}
	}
	for _, p := range read {
		inside[p] = struct{}{}
	}
	return inside
}

// readWhole reads the table as it was in one generation.
func (d *Driver) readWhole(before uint32) (Content, uint32, error) {
	for range maxReads {
		content, err := d.read()
		after, errAfter := d.absence.generation()
		if errAfter != nil {
			return Content{}, 0, errAfter
		}
		if after == before {
			return content, after, err
		}
		before = after // an error may be due to the change
	}
	return Content{}, 0, fmt.Errorf("read table inet %s: the kernel's rules changed during each of %d attempts", Name, maxReads)
}

// read reads the table.
func (d *Driver) read() (Content, error) {
	c := Content{
		Table: Table{Chains: map[string]Chain{}, Maps: map[string]Elements{}},
		Sets:  map[string]Elements{},
	}
	found, err := d.conn.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return c, fmt.Errorf("look for table inet %s: %w", Name, err)
	}
	c.Exists = slices.ContainsFunc(found, func(t *nftables.Table) bool { return t.Name == Name })
	if !c.Exists {
		return c, nil
	}
	chains, err := d.conn.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return c, fmt.Errorf("list the chains of table inet %s: %w", Name, err)
	}
	for _, chain := range chains {
		if chain.Table.Name == Name {
			c.Table.Chains[chain.Name] = Chain{Base: baseOf(chain)}
		}
	}
	if err := readRules(table(), c.Table.Chains); err != nil {
		return c, err
	}
	existing, err := d.conn.GetSets(table())
	if err != nil {
		return c, fmt.Errorf("list the sets of table inet %s: %w", Name, err)
	}
	for _, set := range existing {
		if !isOurs(set.Name) {
			if !set.Anonymous {
				c.Table.Unknown = append(c.Table.Unknown, set.Name)
			}
			continue
		}
		if hasOtherForm(set) {
			c.otherForm = append(c.otherForm, set.Name)
		}
		elements, err := d.readSet(set.Name)
		if err != nil {
			return c, err
		}
		if slices.Contains(mapNames(), set.Name) {
			c.Table.Maps[set.Name] = elements
		} else {
			c.Sets[set.Name] = elements
		}
	}
	return c, nil
}

func (d *Driver) readSet(name string) (Elements, error) {
	list, err := d.conn.GetSetElements(&nftables.Set{Table: table(), Name: name})
	if err != nil {
		return nil, fmt.Errorf("list set %s of table inet %s: %w", name, Name, err)
	}
	switch {
	case isInside(name):
		return paired(list), nil
	case isExcluded(name):
		return ranges(list), nil
	}
	elements := make(Elements, len(list))
	for _, e := range list {
		value := string(e.Val)
		switch name {
		case setMarks, setMarks6, setSave, setRestore:
			if value, err = verdictText(e.Val); err != nil {
				return nil, fmt.Errorf("read set %s of table inet %s: %w", name, Name, err)
			}
		}
		elements[string(e.Key)] = value
	}
	return elements, nil
}

// Supported reports, as an error, why the kernel cannot hold the rules that a table
// consists of. It makes them, and takes them away in the same transaction.
func (d *Driver) Supported(wanted Table) error {
	// Without nf_tables, the kernel answers a whole transaction with one error, and the library would
	// wait for one answer to each of its messages, for ever.
	if _, err := d.absence.generation(); err != nil {
		return fmt.Errorf("try all rules in a table of their own: %w", err)
	}
	err := d.try(wanted)
	if err == nil {
		return nil
	}
	err = fmt.Errorf("try all rules in a table of their own: %w", err)
	bare := Table{Chains: map[string]Chain{}, Maps: wanted.Maps}
	for name, c := range wanted.Chains {
		bare.Chains[name] = Chain{Base: c.Base}
	}
	if errBare := d.try(bare); errBare != nil {
		return fmt.Errorf("%w; sets and chains alone: %w", err, errBare)
	}
	for _, name := range slices.Sorted(maps.Keys(wanted.Chains)) {
		for i, rule := range wanted.Chains[name].Rules {
			bare.Chains[name] = Chain{Base: wanted.Chains[name].Base, Rules: []Rule{rule}}
			if errRule := d.try(bare); errRule != nil {
				err = fmt.Errorf("%w; rule %d of chain %s alone: %w", err, i+1, name, errRule)
			}
		}
		bare.Chains[name] = Chain{Base: wanted.Chains[name].Base}
	}
	return err
}

// try makes a table for trial, and deletes it in the same transaction.
func (d *Driver) try(wanted Table) error {
	t := &nftables.Table{Name: Name + "-trial", Family: nftables.TableFamilyINet}
	d.conn.AddTable(t)
	err := d.addSets(sets(t))
	d.write(t, Plan(Table{}, wanted))
	d.conn.DelTable(t)
	return errors.Join(err, d.conn.Flush())
}

// Ensure makes the table and its sets where they do not exist, takes ownership, and
// counts the changes.
func (d *Driver) Ensure() (changes int, err error) {
	content, err := d.Observe()
	if err != nil {
		return 0, err
	}
	if !content.Exists && d.Absent() {
		return 0, fmt.Errorf("make table inet %s: %w", Name, ErrAbsent)
	}
	if !content.Exists || d.wantOwned && !d.owned {
		if err := d.own(); err != nil {
			return 0, err
		}
		if !content.Exists {
			changes = 1
		}
		if content, err = d.Observe(); err != nil {
			return changes, err
		}
	}
	if len(content.otherForm) > 0 {
		return changes, fmt.Errorf("sets %s of table inet %s have another form than ours: run the cleanup command, which removes the table",
			strings.Join(content.otherForm, ", "), Name)
	}
	var missing []*nftables.Set
	for _, s := range sets(table()) {
		_, member := content.Sets[s.Name]
		if _, ofRules := content.Table.Maps[s.Name]; !member && !ofRules {
			missing = append(missing, s)
		}
	}
	if len(missing) == 0 {
		return changes, nil
	}
	d.seen = nil
	if err := errors.Join(d.addSets(missing), d.conn.Flush()); err != nil {
		return changes, fmt.Errorf("make the sets of table inet %s: %w", Name, err)
	}
	return changes + len(missing), nil
}

func (d *Driver) addSets(list []*nftables.Set) error {
	var errs []error
	for _, s := range list {
		errs = append(errs, d.conn.AddSet(s, nil))
	}
	return errors.Join(errs...)
}

// Remove deletes the table, if it exists, and counts the changes.
func (d *Driver) Remove() (changes int, err error) {
	content, err := d.Observe()
	if err != nil || !content.Exists {
		return 0, err
	}
	d.seen, d.owned = nil, false
	d.conn.DelTable(table())
	if err := d.conn.Flush(); err != nil {
		return 0, inUse(fmt.Errorf("delete table inet %s: %w", Name, err))
	}
	return 1, nil
}

// Commit makes the changes of a transaction.
func (d *Driver) Commit(t Transaction) error {
	d.write(table(), t)
	if err := d.flush("change the rules"); err != nil {
		return err
	}
	if d.seen != nil {
		d.seen.Table = t.After
	}
	return nil
}

// flush ends a transaction. If the kernel refuses it, what the table holds is read
// again.
func (d *Driver) flush(what string) error {
	if err := d.conn.Flush(); err != nil {
		d.seen, d.linksSeen = nil, nil
		return inUse(fmt.Errorf("%s of table inet %s: %w", what, Name, err))
	}
	d.linksGeneration++
	if d.owned || d.seen == nil {
		return nil
	}
	// What others changed at the same time is not seen: the generation then differs
	// from the next one, and the table is read again.
	d.generation++
	return nil
}
