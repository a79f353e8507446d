package nftables

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// ObserveLinks reads what the tables of links hold. The result must not be changed.
func (d *Driver) ObserveLinks() (LinkContent, error) {
	if d.linksSeen != nil && d.linksOwned {
		return *d.linksSeen, nil
	}
	generation, err := d.absence.generation()
	if errors.Is(err, ErrAbsent) {
		return LinkContent{}, nil
	}
	if err != nil {
		return LinkContent{}, err
	}
	if d.linksSeen != nil && d.linksGeneration == generation {
		return *d.linksSeen, nil
	}
	content, err := d.readLinks()
	if err != nil {
		return LinkContent{}, err
	}
	// What changed while it was read is seen next time: the generation differs then.
	d.linksSeen, d.linksGeneration = &content, generation
	return content, nil
}

func (d *Driver) readLinks() (LinkContent, error) {
	c := LinkContent{exists: map[*nftables.Table]bool{}, whole: true}
	for _, t := range linkTables() {
		found, err := d.conn.ListTablesOfFamily(t.Family)
		if err != nil {
			return c, fmt.Errorf("look for %s: %w", tableText(t), err)
		}
		if !slices.ContainsFunc(found, func(o *nftables.Table) bool { return o.Name == t.Name }) {
			c.whole = false
			continue
		}
		c.exists[t] = true
		sets, whole, err := d.readLinkTable(t)
		if err != nil {
			return c, err
		}
		same := c.sets == nil || maps.EqualFunc(c.sets, sets, maps.Equal[Elements, Elements])
		c.whole, c.sets = c.whole && whole && same, sets
	}
	return c, nil
}

func (d *Driver) readLinkTable(t *nftables.Table) (sets map[string]Elements, whole bool, err error) {
	chains := map[string]Chain{}
	if err := readRules(t, chains); err != nil {
		return nil, false, err
	}
	want, err := linkChains(t)
	if err != nil {
		return nil, false, err
	}
	whole = maps.EqualFunc(chains, want, func(is, want Chain) bool { return sameRules(is.Rules, want.Rules) })
	existing, err := d.conn.GetSets(t)
	if err != nil {
		return nil, false, fmt.Errorf("list the sets of %s: %w", tableText(t), err)
	}
	sets = map[string]Elements{}
	for _, set := range existing {
		if set.Name == setAttended {
			continue
		}
		list, err := d.conn.GetSetElements(&nftables.Set{Table: t, Name: set.Name})
		if err != nil {
			return nil, false, fmt.Errorf("list set %s of %s: %w", set.Name, tableText(t), err)
		}
		elements := make(Elements, len(list))
		for _, e := range list {
			elements[string(e.Key)] = ""
		}
		sets[set.Name] = elements
	}
	return sets, whole && len(existing) == len(linkSets(t)), nil
}

// PutLinks makes the tables hold what they should; where no link may send with its own
// addresses only, there are none. An agent is taken to attend to them for a time, for good
// if it is 0.
func (d *Driver) PutLinks(want Links, attended time.Duration) error {
	content, err := d.ObserveLinks()
	if err != nil {
		return err
	}
	if len(want.Sources) == 0 {
		_, err := d.RemoveLinks()
		return err
	}
	if !content.Exists() && d.Absent() {
		return fmt.Errorf("make %s: %w", tableText(linkTables()[0]), ErrAbsent)
	}
	if len(content.exists) < len(linkTables()) || d.wantOwned && !d.linksOwned {
		if err := d.ownLinks(); err != nil {
			return err
		}
		if content, err = d.readLinks(); err != nil {
			return err
		}
	}
	for _, t := range linkTables() {
		if content.whole {
			for name, elements := range want.sets() {
				del, put := difference(content.sets[name], elements)
				d.elements(linkSet(t, name), put, del)
			}
			continue
		}
		if err := errors.Join(d.emptyTable(t), d.fillTable(t, want)); err != nil {
			return err
		}
		d.attend(t, attended)
	}
	d.linksSeen = nil
	if err := d.flush("change the links"); err != nil {
		return err
	}
	if d.linksOwned {
		seen := LinkContent{exists: map[*nftables.Table]bool{}, whole: true, sets: want.sets(), put: &want}
		for _, t := range linkTables() {
			seen.exists[t] = true
		}
		d.linksSeen = &seen
	}
	return nil
}

// ownLinks makes the tables of links as own does. Each comes in a transaction of its own: an
// empty table does no harm.
func (d *Driver) ownLinks() error {
	d.linksSeen = nil
	for _, t := range linkTables() {
		if err := d.ownTable(t); err != nil {
			return err
		}
	}
	d.linksOwned = d.wantOwned
	return nil
}

// emptyTable adds messages to the batch that take everything out of a table.
func (d *Driver) emptyTable(t *nftables.Table) error {
	chains, err := d.conn.ListChainsOfTableFamily(t.Family)
	if err != nil {
		return fmt.Errorf("list the chains of %s: %w", tableText(t), err)
	}
	existing, err := d.conn.GetSets(t)
	if err != nil {
		return fmt.Errorf("list the sets of %s: %w", tableText(t), err)
	}
	chains = slices.DeleteFunc(chains, func(c *nftables.Chain) bool { return c.Table.Name != t.Name })
	for _, c := range chains {
		d.conn.FlushChain(&nftables.Chain{Table: t, Name: c.Name})
	}
	for _, c := range chains {
		d.conn.DelChain(&nftables.Chain{Table: t, Name: c.Name})
	}
	for _, s := range existing {
		d.conn.DelSet(&nftables.Set{Table: t, Name: s.Name})
	}
	return nil
}

// fillTable adds messages to the batch that put everything into an empty table.
func (d *Driver) fillTable(t *nftables.Table, want Links) error {
	chains, err := linkChains(t)
	if err != nil {
		return err
	}
	tr := Plan(Table{}, Table{Chains: chains})
	if err := d.addSets(linkSets(t)); err != nil {
		return err
	}
	for name, elements := range want.sets() {
		d.elements(linkSet(t, name), elements, nil)
	}
	d.write(t, tr)
	return nil
}

// attend adds messages to the batch that renew what says that an agent attends to a table.
func (d *Driver) attend(t *nftables.Table, stays time.Duration) {
	set := linkSet(t, setAttended)
	d.conn.FlushSet(set)
	_ = d.conn.SetAddElements(set, []nftables.SetElement{ // fails for anonymous sets alone
		{Key: []byte{unix.NFPROTO_IPV4}, Timeout: stays},
		{Key: []byte{unix.NFPROTO_IPV6}, Timeout: stays},
		{Key: []byte{unix.NFPROTO_BRIDGE}, Timeout: stays},
	})
}

// AttendLinks has the rules of links know that an agent attends to them, for a time from
// now on; for good if it is 0. It reports whether there are any.
func (d *Driver) AttendLinks(stays time.Duration) (bool, error) {
	content, err := d.ObserveLinks()
	if err != nil || !content.whole {
		return false, err
	}
	if d.wantOwned && !d.linksOwned {
		if err := d.ownLinks(); err != nil {
			return false, err
		}
	}
	for _, t := range linkTables() {
		d.attend(t, stays)
	}
	err = d.flush("renew the agent's presence in the links")
	return err == nil, err
}

// LinksAttended reports whether an agent attends to the links, by the kernel's clock, and
// whether that ends by itself.
func (d *Driver) LinksAttended() (attended, ends bool, err error) {
	content, err := d.ObserveLinks()
	if err != nil || !content.whole {
		return false, false, err
	}
	for _, t := range linkTables() {
		elements, err := d.conn.GetSetElements(&nftables.Set{Table: t, Name: setAttended})
		if err != nil {
			return false, false, fmt.Errorf("list set %s of %s: %w", setAttended, tableText(t), err)
		}
		for _, e := range elements {
			attended, ends = true, e.Timeout != 0
		}
	}
	return attended, ends, nil
}

// RemoveLinks deletes the tables of links, and counts those that existed.
func (d *Driver) RemoveLinks() (changes int, err error) {
	content, err := d.ObserveLinks()
	if err != nil || !content.Exists() {
		return 0, err
	}
	for t := range content.exists {
		d.conn.DelTable(t)
	}
	d.linksSeen, d.linksOwned = nil, false
	if err := d.flush("delete the links"); err != nil {
		return 0, err
	}
	return len(content.exists), nil
}
