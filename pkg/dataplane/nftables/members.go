package nftables

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/rules"
)

// PutPods sets the marks of pods. The table has a chain for each of the marks.
func (d *Driver) PutPods(marks map[netip.Addr]uint32) error {
	verdicts, known, verdicts6, known6 := make(Elements, len(marks)), make(Elements, len(marks)), Elements{}, Elements{}
	for ip, mark := range marks {
		if ip.Is4() {
			verdicts[addrKey(ip)], known[addrKey(ip)] = podVerdict(mark), ""
		} else {
			verdicts6[addrKey(ip)], known6[addrKey(ip)] = podVerdict(mark), ""
		}
	}
	return d.change(
		delta{set: rules.SetPods, put: known}, delta{set: setMarks, put: verdicts},
		delta{set: rules.SetPods6, put: known6}, delta{set: setMarks6, put: verdicts6},
	)
}

// DeletePods deletes pods; one that is not there is no error.
func (d *Driver) DeletePods(ips []netip.Addr) error {
	del := keys(ips)
	return d.change(delta{set: setMarks, del: del}, delta{set: rules.SetPods, del: del}, delta{set: setMarks6, del: del}, delta{set: rules.SetPods6, del: del})
}

// Put adds addresses to a set.
func (d *Driver) Put(set string, ips []netip.Addr) error {
	return d.change(delta{set: set, put: keys(ips)})
}

// Delete deletes addresses from a set; one that is not there is no error.
func (d *Driver) Delete(set string, ips []netip.Addr) error {
	return d.change(delta{set: set, del: keys(ips)})
}

func keys(ips []netip.Addr) Elements {
	elements := make(Elements, len(ips))
	for _, ip := range ips {
		elements[addrKey(ip)] = ""
	}
	return elements
}

// PutInside adds networks to those that are inside.
func (d *Driver) PutInside(networks []netip.Prefix) error {
	after := maps.Clone(d.inside)
	for _, p := range networks {
		after[p] = struct{}{}
	}
	return d.setInside(after)
}

// DeleteInside deletes networks from those that are inside.
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
	families := map[string][]netip.Prefix{}
	for p := range after {
		families[setInside(p)] = append(families[setInside(p)], p)
	}
	var deltas []delta
	for _, set := range []string{rules.SetInside, rules.SetInside6} {
		del, put := difference(content.Sets[set], intervals(families[set]))
		deltas = append(deltas, delta{set: set, put: put, del: del})
	}
	if err := d.change(deltas...); err != nil {
		return err
	}
	d.inside = after
	return nil
}

// Renew has the rules know that an agent is present, for a time from now on; for good
// if it is 0.
func (d *Driver) Renew(stays time.Duration) error {
	set := setOf(table(), rules.SetPresent)
	// To put an element that is there does not renew it before Linux 6.12.
	d.conn.FlushSet(set)
	_ = d.conn.SetAddElements(set, []nftables.SetElement{ // fails for anonymous sets alone
		{Key: []byte{unix.NFPROTO_IPV4}, Timeout: stays},
		{Key: []byte{unix.NFPROTO_IPV6}, Timeout: stays},
	})
	return d.flush("renew the agent's presence in a set")
}

// Present reports whether an agent is present, by the kernel's clock, and whether that
// ends by itself. The table must exist.
func (d *Driver) Present() (present, ends bool, err error) {
	elements, err := d.conn.GetSetElements(&nftables.Set{Table: table(), Name: rules.SetPresent})
	if err != nil {
		return false, false, fmt.Errorf("list set %s of table inet %s: %w", rules.SetPresent, Name, err)
	}
	for _, e := range elements {
		present, ends = true, e.Timeout != 0
	}
	return present, ends, nil
}

// ForgetSenders forgets the MACs that the kernel has learned for addresses, all of one
// family.
func (d *Driver) ForgetSenders(ips []netip.Addr) error {
	gone := make(map[netip.Addr]bool, len(ips))
	for _, ip := range ips {
		gone[ip] = true
	}
	found := false
	names, length := []string{rules.SetBound, rules.SetSenders}, 4
	if len(ips) > 0 && ips[0].Is6() {
		names, length = []string{rules.SetBound6, rules.SetSenders6}, 16
	}
	for _, name := range names {
		// Not what was seen before: the kernel has added to them since.
		elements, err := d.conn.GetSetElements(&nftables.Set{Table: table(), Name: name})
		if err != nil {
			return fmt.Errorf("list set %s of table inet %s: %w", name, Name, err)
		}
		stale := slices.DeleteFunc(elements, func(e nftables.SetElement) bool { return len(e.Key) < length || !gone[keyAddr(string(e.Key[:length]))] })
		for chunk := range slices.Chunk(stale, batchSize) {
			found = true
			_ = d.conn.SetDeleteElements(setOf(table(), name), chunk) // fails for anonymous sets alone
		}
	}
	if !found {
		return nil
	}
	return d.flush("forget the senders of addresses")
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
	put := map[string]Elements{rules.SetResets: {}, rules.SetResets6: {}}
	for _, c := range connections {
		put[ofFamily(c.Dest, rules.SetResets, rules.SetResets6)][resetKey(c.Source, c.Dest)] = ""
	}
	for name, elements := range put {
		d.elements(setOf(table(), name), elements, nil)
	}
	return d.flush("note connections to reset in a set")
}

// delta is what changes in a set.
type delta struct {
	set      string
	put, del Elements
}

// change puts and deletes members of sets, in one transaction.
func (d *Driver) change(deltas ...delta) error {
	content, err := d.Observe()
	if err != nil {
		return err
	}
	after := map[string]Elements{}
	var names []string
	for _, delta := range deltas {
		have := content.Sets[delta.set]
		gone, come := delta.from(have)
		if len(gone)+len(come) == 0 {
			continue
		}
		d.elements(setOf(table(), delta.set), nil, gone)
		d.elements(setOf(table(), delta.set), come, nil)
		next := Elements{}
		maps.Copy(next, have)
		maps.DeleteFunc(next, func(key, _ string) bool { _, deleted := gone[key]; return deleted })
		maps.Copy(next, come)
		after[delta.set], names = next, append(names, delta.set)
	}
	if len(after) == 0 {
		return nil
	}
	if err := d.flush("change sets " + strings.Join(names, ", ")); err != nil {
		return err
	}
	maps.Copy(d.seen.Sets, after)
	return nil
}

// from returns the elements that must be deleted first, and those that must be added
// then, in a set that has some already.
func (d delta) from(have Elements) (gone, come Elements) {
	gone, come = Elements{}, Elements{}
	for key := range d.del {
		if value, ok := have[key]; ok {
			gone[key] = value
		}
	}
	for key, value := range d.put {
		before, ok := have[key]
		switch {
		case ok && before == value:
			continue
		case ok:
			gone[key] = before // an element's value cannot be changed
		}
		come[key] = value
	}
	return gone, come
}
