package dataplane

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/routing"
)

// given: filters of an interface, and for all; then a strict one is made loose and gets back
// what it was, whichever of the two made it strict; one that is not, and one that others have
// changed meanwhile, stay as they are, and nothing is left of an interface that has gone. So it is
// with the process that did it, and with the next one.
//
// Mutants killed: loose-filters-are-noted, filters-of-others-are-tightened,
// notes-are-for-ever.
func TestFiltersGetBackWhatTheyWere(t *testing.T) {
	for _, next := range []bool{false, true} {
		t.Run(fmt.Sprintf("by the next process %t", next), func(t *testing.T) { filtersGetBack(t, next) })
	}
}

func filtersGetBack(t *testing.T, next bool) {
	t.Helper()
	m := newMachine(t, "host")
	m.Run(t, "ip link add eth1 type veth peer name far1; ip link set eth1 up")
	m.Stay(t)
	h := m.Handle(t)
	link, err := h.LinkByName("eth1")
	must(t, err)
	set := func(all, own string) {
		t.Helper()
		m.Run(t, "sysctl -qw net.ipv4.conf.all.rp_filter="+all+" net.ipv4.conf.eth1.rp_filter="+own)
	}
	own := func() string { return strings.TrimSpace(m.Run(t, "sysctl -n net.ipv4.conf.eth1.rp_filter")) }
	notes := func() []routing.Note {
		t.Helper()
		notes, err := routing.Notes(h)
		must(t, err)
		return notes
	}
	filters := looseFilters{}
	removeAll := func() {
		t.Helper()
		if next {
			filters = looseFilters{}
		}
		must(t, filters.removeAll(h))
		if len(filters) > 0 {
			t.Errorf("remembered: %v", filters)
		}
	}
	for _, c := range []struct{ all, own, loose string }{
		{"1", "0", "2"}, {"0", "1", "2"}, {"1", "1", "2"}, {"0", "0", "0"}, {"2", "1", "1"}, {"2", "0", "0"}, {"0", "2", "2"}, {"1", "2", "2"},
	} {
		set(c.all, c.own)
		for _, again := range []bool{false, true} {
			n, err := filters.loosen(h, link, notes())
			must(t, err)
			if changes := n > 0; changes != (c.loose != c.own && !again) {
				t.Errorf("all %s, own %s: %d changes; again: %t", c.all, c.own, n, again)
			}
		}
		if got := own(); got != c.loose {
			t.Errorf("all %s, own %s: loose is %s", c.all, c.own, got)
		}
		removeAll()
		if got := own(); got != c.own {
			t.Errorf("all %s, own %s: it is %s afterwards", c.all, c.own, got)
		}
		if left := notes(); len(left) > 0 {
			t.Errorf("all %s, own %s: notes %v are left", c.all, c.own, left)
		}
	}
	for _, own0 := range []string{"0", "1"} { // others change it while it is noted
		set("1", map[string]string{"0": "1", "1": "0"}[own0])
		_, err = filters.loosen(h, link, notes())
		must(t, err)
		set("1", own0)
		_, err = filters.loosen(h, link, notes())
		must(t, err)
		removeAll()
		if got, left := own(), notes(); got != own0 || len(left) > 0 {
			t.Errorf("what others have set to %s is %s, notes %v", own0, got, left)
		}
	}
	set("0", "1")
	_, err = filters.loosen(h, link, notes())
	must(t, err)
	set("0", "0")
	removeAll()
	if got := own(); got != "0" {
		t.Errorf("what others have set is %s now", got)
	}
	set("0", "1")
	_, err = filters.loosen(h, link, notes())
	must(t, err)
	must(t, netlink.LinkDel(link))
	removeAll()
	if list, err := listFilters(h); len(list) > 0 || err != nil {
		t.Errorf("left: %v, %v", list, err)
	}
}

// given: a filter that was made loose; when others delete the note about it, or rename the interface,
// or both, or the note is one of an earlier version, then the next pass notes it again, and in the
// end it gets back what it was: whether the process still runs, if there is a note, or not.
//
// Mutants killed: notes-are-not-put-again, notes-go-by-name.
func TestFiltersWhoseNoteOthersDelete(t *testing.T) {
	for _, c := range []struct {
		name, do string
		// forgets: another process goes on.
		forgets bool
	}{
		{"the note is deleted", "ip rule del priority 79", false},
		{"the interface is renamed", "ip link set eth1 down; ip link set eth1 name lan1 up", false},
		{"the interface is renamed between two processes", "ip link set eth1 down; ip link set eth1 name lan1 up", true},
		{"another one takes its name", "ip link set eth1 down; ip link set eth1 name lan1 up; ip link add eth1 type bridge; sysctl -qw net.ipv4.conf.eth1.rp_filter=2", true},
		{"the note is deleted, and the interface renamed", "ip rule del priority 79; ip link set eth1 down; ip link set eth1 name lan1 up", false},
		{"an earlier version's note", "ip rule del priority 79; ip rule add iif eth1 priority 79 protocol 77 nop", true},
	} {
		for _, passes := range []int{0, 2} {
			t.Run(fmt.Sprintf("%s, %d passes", c.name, passes), func(t *testing.T) {
				m := newMachine(t, "host")
				m.Run(t, "ip link add eth1 type veth peer name far1; ip link set eth1 up; sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.eth1.rp_filter=1")
				m.Stay(t)
				h := m.Handle(t)
				link, err := h.LinkByName("eth1")
				must(t, err)
				index, f := link.Attrs().Index, looseFilters{}
				loosen := func() (changes int) {
					t.Helper()
					link, err = h.LinkByIndex(index)
					must(t, err)
					notes, err := routing.Notes(h)
					must(t, err)
					changes, err = f.loosen(h, link, notes)
					must(t, err)
					return changes
				}
				own := func() string {
					t.Helper()
					return strings.TrimSpace(m.Run(t, "sysctl -n net.ipv4.conf."+link.Attrs().Name+".rp_filter"))
				}
				loosen()
				m.Run(t, c.do)
				if c.forgets {
					f = looseFilters{}
				}
				for i := range passes {
					if n := loosen(); i > 0 && n > 0 {
						t.Errorf("pass %d: %d changes", i, n)
					}
					notes, err := routing.Notes(h)
					must(t, err)
					if !slices.ContainsFunc(notes, func(n routing.Note) bool { return n.Link == index && n.Was == 1 }) || len(notes) != 1 || own() != "2" {
						t.Errorf("notes %v, filter %s", notes, own())
					}
				}
				must(t, f.removeAll(h))
				link, err = h.LinkByIndex(index)
				must(t, err)
				if got, notes := own(), m.Run(t, "ip rule show priority 79"); got != "1" || notes != "" {
					t.Errorf("the filter is %s, notes %q", got, notes)
				}
				if other, err := h.LinkByName("eth1"); err == nil && other.Attrs().Index != index {
					if got := strings.TrimSpace(m.Run(t, "sysctl -n net.ipv4.conf.eth1.rp_filter")); got != "2" {
						t.Errorf("the filter of another interface is %s", got)
					}
				}
			})
		}
	}
}
