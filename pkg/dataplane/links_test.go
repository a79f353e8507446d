package dataplane

import (
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/nftables"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/podlink"
)

// What links may send with, for each kind of evidence.
//
// Mutants killed: see TestAddressesStayWithTheirLinks.
func TestBindLinks(t *testing.T) {
	a, b, c := testenv.Addr("10.244.1.5"), testenv.Addr("10.244.1.6"), testenv.Addr("fd00::5")
	pods := []netip.Addr{a, b, c}
	// 1 uplink, 2 bridge with the ports 10, 11 and 12, 3 another one with 13; 20 is routed.
	links := func() map[int]podlink.Link {
		return map[int]podlink.Link{
			1: {Name: "eth0"}, 2: {Name: "cni0"}, 3: {Name: "docker0"},
			10: {Master: 2, Crosses: true}, 11: {Master: 2, Crosses: true}, 12: {Master: 2}, 13: {Master: 3, Crosses: true},
			20: {Crosses: true},
		}
	}
	bridged := map[netip.Addr]int{a: 2, b: 2, c: 2}
	for name, test := range map[string]struct {
		routes map[netip.Addr]int
		ends   map[int][]netip.Addr
		former map[netip.Addr]int
		// links of a, and what it may send with; whether it is unbound.
		want map[int][]netip.Addr
	}{
		"a route leads to its link":           {routes: map[netip.Addr]int{a: 20, b: 2}, want: map[int][]netip.Addr{20: {a}}},
		"and its other address too":           {routes: map[netip.Addr]int{a: 20, c: 20}, want: map[int][]netip.Addr{20: {a, c}}},
		"a route leads elsewhere":             {routes: map[netip.Addr]int{a: 1}, former: map[netip.Addr]int{a: 20}},
		"no route":                            {routes: map[netip.Addr]int{}, ends: map[int][]netip.Addr{10: {a}}},
		"a port has it":                       {routes: bridged, ends: map[int][]netip.Addr{10: {a, c}, 11: {b}}, want: map[int][]netip.Addr{10: {a, c}}},
		"a port of another bridge has it too": {routes: bridged, ends: map[int][]netip.Addr{10: {a}, 13: {a}}, want: map[int][]netip.Addr{10: {a}}},
		"two ports have it":                   {routes: bridged, ends: map[int][]netip.Addr{10: {a}, 11: {a}}},
		"two ports, and one had it":           {routes: bridged, ends: map[int][]netip.Addr{10: {a}, 11: {a, b}}, former: map[netip.Addr]int{a: 11}, want: map[int][]netip.Addr{11: {a, b}}},
		"another port has it now":             {routes: bridged, ends: map[int][]netip.Addr{10: {a}}, former: map[netip.Addr]int{a: 11}, want: map[int][]netip.Addr{10: {a}}},
		"no port has it":                      {routes: bridged},
		"no port, and one had it":             {routes: bridged, former: map[netip.Addr]int{a: 11}, want: map[int][]netip.Addr{11: {a}}},
		"no port, and that is another pod's":  {routes: bridged, ends: map[int][]netip.Addr{11: {b}}, former: map[netip.Addr]int{a: 11}},
		"no port, and that is gone":           {routes: bridged, former: map[netip.Addr]int{a: 99}},
	} {
		got := bindLinks(podlink.Facts{Links: links(), Routes: test.routes, Ends: test.ends}, pods, map[netip.Addr]struct{}{a: {}}, test.former)
		want := nftables.Links{
			Sources: map[int][]netip.Addr{}, Guarded: []netip.Addr{a}, Pods: []int{10, 11, 13, 20}, Others: []int{1, 2, 3, 12},
		}
		if test.want == nil {
			want.Guarded, want.Unbound = nil, []netip.Addr{a}
		} else {
			want.Sources = test.want
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\ngot  %+v\nwant %+v", name, got, want)
		}
	}
}

// given: an address that belonged to a link, and is at another one now; then nobody may send
// with it until its way is right. Others may, and new ones.
//
// Mutants killed: heir-takes-the-former-way.
func TestHeirsAreHeld(t *testing.T) {
	stays, moves, isNew, lost := testenv.Addr("10.244.1.5"), testenv.Addr("10.244.1.6"), testenv.Addr("10.244.1.7"), testenv.Addr("10.244.1.8")
	got := holdHeirs(nftables.Links{
		Sources: map[int][]netip.Addr{10: {stays}, 11: {moves, isNew}, 12: {lost}}, Guarded: []netip.Addr{stays, moves, isNew, lost},
	}, map[netip.Addr]int{stays: 10, moves: 9}, map[netip.Addr]struct{}{stays: {}, moves: {}, lost: {}})
	want := map[int][]netip.Addr{10: {stays}, 11: {isNew}, 12: {}}
	if !reflect.DeepEqual(got.Sources, want) || len(got.Guarded) != 4 {
		t.Errorf("%v, guarded are %v; want %v, and four", got.Sources, got.Guarded, want)
	}
}

// TestKnownAside: the addresses of pods that come by no new link are those that the agent knows
// and that belong to none; without strict classification, or where links cannot be read, it is
// no address.
func TestKnownAside(t *testing.T) {
	a, b, c, d := testenv.Addr("10.244.1.5"), testenv.Addr("10.244.1.6"), testenv.Addr("10.244.1.7"), testenv.Addr("fd00::5")
	pods := map[netip.Addr]uint32{a: 0, b: 7, c: 7, d: 0}
	got := knownAside(pods, nftables.Links{Guarded: []netip.Addr{b}, Unbound: []netip.Addr{c}})
	if want := []netip.Addr{a, d}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if len(pods) != 4 {
		t.Errorf("the pods have changed: %v", pods)
	}
}
