package dataplane

import (
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/routing"
)

// given: filters of an interface, and for all; then a strict one is made loose and gets back
// what it was, whichever of the two made it strict; one that is not, and one that others have
// changed meanwhile, stay as they are, and nothing is left of an interface that has gone.
//
// Mutants killed: loose-filters-are-noted, filters-of-others-are-tightened,
// notes-are-for-ever.
func TestFiltersGetBackWhatTheyWere(t *testing.T) {
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
	notes := func() map[string]uint32 {
		t.Helper()
		notes, err := routing.Notes(h)
		must(t, err)
		return notes
	}
	for _, c := range []struct{ all, own, loose string }{
		{"1", "0", "2"}, {"0", "1", "2"}, {"1", "1", "2"}, {"0", "0", "0"}, {"2", "1", "1"}, {"2", "0", "0"}, {"0", "2", "2"}, {"1", "2", "2"},
	} {
		set(c.all, c.own)
		for _, again := range []bool{false, true} {
			n, err := loosen(h, link, notes())
			must(t, err)
			if changes := n > 0; changes != (c.loose != c.own && !again) {
				t.Errorf("all %s, own %s: %d changes; again: %t", c.all, c.own, n, again)
			}
		}
		if got := own(); got != c.loose {
			t.Errorf("all %s, own %s: loose is %s", c.all, c.own, got)
		}
		must(t, removeFilters(h))
		if got := own(); got != c.own {
			t.Errorf("all %s, own %s: it is %s afterwards", c.all, c.own, got)
		}
		if left := notes(); len(left) > 0 {
			t.Errorf("all %s, own %s: notes %v are left", c.all, c.own, left)
		}
	}
	for _, own0 := range []string{"0", "1"} { // others change it while it is noted
		set("1", map[string]string{"0": "1", "1": "0"}[own0])
		_, err = loosen(h, link, notes())
		must(t, err)
		set("1", own0)
		_, err = loosen(h, link, notes())
		must(t, err)
		must(t, removeFilters(h))
		if got, left := own(), notes(); got != own0 || len(left) > 0 {
			t.Errorf("what others have set to %s is %s, notes %v", own0, got, left)
		}
	}
	set("0", "1")
	_, err = loosen(h, link, notes())
	must(t, err)
	set("0", "0")
	must(t, removeFilters(h))
	if got := own(); got != "0" {
		t.Errorf("what others have set is %s now", got)
	}
	set("0", "1")
	_, err = loosen(h, link, notes())
	must(t, err)
	must(t, netlink.LinkDel(link))
	must(t, removeFilters(h))
	if list, err := listFilters(h); len(list) > 0 || err != nil {
		t.Errorf("left: %v, %v", list, err)
	}
}
