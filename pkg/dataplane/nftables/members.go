package nftables

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/rules"
)

// PutPods sets the marks of pods. The table has a chain for each of the marks.
func (d *Driver) PutPods(marks map[netip.Addr]uint32) error {
	put := make(Elements, len(marks))
	for ip, mark := range marks {
		put[addrKey(ip)] = podVerdict(mark)
	}
	return d.change(rules.SetPods, put, nil)
}

// Put adds addresses to a set.
func (d *Driver) Put(set string, ips []netip.Addr) error { return d.change(set, keys(ips), nil) }

// Delete deletes addresses from a set; one that is not there is no error.
func (d *Driver) Delete(set string, ips []netip.Addr) error { return d.change(set, nil, keys(ips)) }

func keys(ips []netip.Addr) Elements {
	elements := make(Elements, len(ips))
	for _, ip := range ips {
		elements[addrKey(ip)] = ""
	}
	return elements
}

// PutInside adds networks to set egress-inside.
func (d *Driver) PutInside(networks []netip.Prefix) error {
	after := maps.Clone(d.inside)
	for _, p := range networks {
		after[p] = struct{}{}
	}
	return d.setInside(after)
}

// DeleteInside deletes networks from set egress-inside.
func (d *Driver) DeleteInside(networks []netip.Prefix) error {
	after := maps.Clone(d.inside)
	for _, p := range networks {
		delete(after, p)
	}
	return d.setInside(after)
}

func (d *Driver) setInside(after map[netip.Prefix]struct{}) error {
	content, err := d.Observe()
	if err != nil {
		return err
	}
	del, put := difference(content.Sets[rules.SetInside], intervals(slices.Collect(maps.Keys(after))))
	if err := d.change(rules.SetInside, put, del); err != nil {
		return err
	}
	d.inside = after
	return nil
}

// Connection is a TCP connection of a pod.
type Connection struct {
	Source netip.AddrPort
	Dest   netip.Addr
}

// PutResets has connections reset when their pods go on with them.
func (d *Driver) PutResets(connections []Connection) error {
	if len(connections) == 0 {
		return nil
	}
	put := make(Elements, len(connections))
	for _, c := range connections {
		put[resetKey(c.Source, c.Dest)] = ""
	}
	d.elements(table(), rules.SetResets, put, nil)
	return d.flush("note connections to reset in a set")
}

// change puts and deletes members of a set, in one transaction.
func (d *Driver) change(set string, put, del Elements) error {
	content, err := d.Observe()
	if err != nil {
		return err
	}
	have := content.Sets[set]
	gone, come := Elements{}, Elements{}
	for key := range del {
		if value, ok := have[key]; ok {
			gone[key] = value
		}
	}
	for key, value := range put {
		before, ok := have[key]
		switch {
		case ok && before == value:
			continue
		case ok:
			gone[key] = before // an element's value cannot be changed
		}
		come[key] = value
	}
	if len(gone)+len(come) == 0 {
		return nil
	}
	d.elements(table(), set, nil, gone)
	d.elements(table(), set, come, nil)
	if err := d.flush("change set " + set); err != nil {
		return err
	}
	after := maps.Clone(have)
	if after == nil {
		after = Elements{}
	}
	for key := range gone {
		delete(after, key)
	}
	maps.Copy(after, come)
	d.seen.Sets[set] = after
	return nil
}
