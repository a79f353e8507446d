package dataplane

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/egressip-operator/egressip-operator/internal/testenv/netnstest"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/overlay"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/routing"
)

// Routes that were found as they should be are not read again before the kernel reports a change,
// a while has passed, or the plan is another.
//
// Mutant killed: routes-are-not-read-again.
func TestRoutesAreReadAgainWhereTheyMayDiffer(t *testing.T) {
	host, h, _ := netnstest.Host(t, "eth0")
	host.Stay(t)
	host.Run(t, "ip link add egress0 type vxlan external dstport 9789; ip link set egress0 up")
	link, err := h.LinkByName(overlayName)
	must(t, err)
	plan := routing.Plan{Inside: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}, Device: link.Attrs().Index, NextHop: overlay.NextHop()}
	var r routed
	ensure := func() int {
		t.Helper()
		n, err := r.ensure(h, plan, DefaultMarks())
		must(t, err)
		return n
	}
	const damage = "ip rule del priority 90"
	ensure()
	if n := ensure(); n != 0 {
		t.Fatalf("a second time, %d changes are made", n)
	}
	for _, c := range []struct {
		name   string
		before func()
		read   bool
	}{
		{"nothing is reported", func() {}, false},
		{"a change is reported", r.heard, true},
		{"a while has passed", func() { r.at -= wholeEvery }, true},
		{"the plan is another", func() { plan.Inside = append(plan.Inside, netip.MustParsePrefix("10.96.0.0/16")) }, true},
	} {
		host.Run(t, damage)
		c.before()
		if n := ensure(); (n > 0) != c.read {
			t.Errorf("%s: %d changes are made", c.name, n)
		}
		r.heard()
		for ensure() > 0 { // what was damaged is repaired
		}
	}
}

// Whether others use our tables for IPv6 is looked up again when the kernel reports a change.
func TestOthersInOurTablesAreLookedUpAgain(t *testing.T) {
	host, h, _ := netnstest.Host(t, "eth0")
	host.Stay(t)
	var r routed
	inUse := func() bool {
		t.Helper()
		inUse, err := r.inUse6(h)
		must(t, err)
		return inUse != nil
	}
	if inUse() {
		t.Error("nobody uses them, and they are in use")
	}
	host.Run(t, "ip -6 route add 2001:db8::/32 dev lo table 2000")
	if inUse() {
		t.Error("looked up although nothing was reported")
	}
	r.heard()
	if !inUse() {
		t.Error("others use them, and they are not in use")
	}
}

// A plan has the networks inside in order, those of IPv6 only where IPv6 is served.
func TestNetworksOfAPlan(t *testing.T) {
	four, six := netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd00::/48")
	networks := map[netip.Prefix]struct{}{six: {}, four: {}}
	var r routed
	for _, c := range []struct {
		name string
		of   map[netip.Prefix]struct{}
		ipv6 bool
		want []netip.Prefix
	}{
		{"IPv4", networks, false, []netip.Prefix{four}},
		{"both families", networks, true, []netip.Prefix{four, six}},
		{"IPv4 again", networks, false, []netip.Prefix{four}},
		{"others", map[netip.Prefix]struct{}{six: {}}, true, []netip.Prefix{six}},
		{"none", map[netip.Prefix]struct{}{}, true, nil},
	} {
		if got := r.inside(c.of, c.ipv6); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}
