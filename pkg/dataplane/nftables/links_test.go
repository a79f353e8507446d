package nftables

import (
	"maps"
	"net/netip"
	"os/exec"
	"testing"

	"github.com/egressip-operator/egressip-operator/internal/testenv/netnstest"
)

func openDriver(t *testing.T, own bool) *Driver {
	t.Helper()
	d, err := Open(own)
	netnstest.Must(t, err)
	t.Cleanup(func() { netnstest.Must(t, d.Close()) })
	return d
}

func (d *Driver) hasLinks(t *testing.T, want Links) bool {
	t.Helper()
	content, err := d.ObserveLinks()
	netnstest.Must(t, err)
	return content.Is(want)
}

// Whatever others change in the tables of links is found and repaired, where they have no
// owner; the next driver knows which link had which address, and what is not wanted goes.
func TestLinksAreRepaired(t *testing.T) {
	netnstest.Enter(t)
	d := openDriver(t, false)
	a, b, c := netip.MustParseAddr("10.244.1.5"), netip.MustParseAddr("10.244.1.6"), netip.MustParseAddr("fd00::5")
	links := Links{
		Sources: map[int][]netip.Addr{11: {a, c}}, Guarded: []netip.Addr{a, c}, Unbound: []netip.Addr{b},
		Pods: []int{11, 12}, Others: []int{1, 2},
	}
	netnstest.Must(t, d.PutLinks(links, 0))
	for _, damage := range []string{
		"true",
		"nft add element bridge egressip guarded { 10.9.9.9 }",
		"nft delete element inet egressip-links guarded { 10.244.1.5 }",
		"nft flush chain bridge egressip bound",
		"nft insert rule inet egressip-links arrival accept",
		"nft delete table inet egressip-links",
		"nft delete table bridge egressip",
		"nft flush ruleset",
	} {
		if !d.hasLinks(t, links) {
			t.Fatalf("before %q: the links are not as they were put", damage)
		}
		if out, err := exec.CommandContext(t.Context(), "sh", "-c", damage).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", damage, err, out)
		}
		if damage != "true" && d.hasLinks(t, links) {
			t.Errorf("%s: not found", damage)
		}
		netnstest.Must(t, d.PutLinks(links, 0))
	}
	links.Sources, links.Guarded = map[int][]netip.Addr{12: {b}}, []netip.Addr{b}
	netnstest.Must(t, d.PutLinks(links, 0))

	owner := openDriver(t, true)
	content, err := owner.ObserveLinks()
	netnstest.Must(t, err)
	if want := map[netip.Addr]int{b: 12}; !content.Is(links) || !maps.Equal(content.Bound(), want) {
		t.Errorf("the next driver reads %v", content.Bound())
	}
	if there, err := owner.AttendLinks(0); err != nil || !there {
		t.Errorf("attended: %t, %v", there, err)
	}
	netnstest.Must(t, owner.PutLinks(Links{}, 0))
	if !d.hasLinks(t, Links{}) {
		t.Error("what is not wanted is still there")
	}
}
