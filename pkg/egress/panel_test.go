package egress_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// witnessesOf are hosts h000, h001 and so on, each in the zone that has its position
// modulo the number of zones.
func witnessesOf(count, zones int) []egress.Witness {
	var list []egress.Witness
	for i := range count {
		list = append(list, egress.Witness{Name: fmt.Sprintf("h%03d", i), Zone: fmt.Sprintf("z%d", i%zones)})
	}
	return list
}

func seatsByZone(panel []string, witnesses []egress.Witness) map[string]int {
	seats := make(map[string]int)
	for _, w := range witnesses {
		if slices.Contains(panel, w.Name) {
			seats[w.Zone]++
		}
	}
	return seats
}

// TestPanelSizes: everybody there is, up to seven, and rather an odd number.
func TestPanelSizes(t *testing.T) {
	t.Parallel()
	for hosts, want := range []int{0, 0, 1, 2, 3, 3, 5, 5, 7, 7, 7} {
		all := witnessesOf(hosts, 1)
		for host, panel := range egress.Panels(all, all) {
			if len(panel) != want {
				t.Errorf("%d hosts: %s has the witnesses %v, want %d", hosts, host, panel, want)
			}
		}
	}
	if got := egress.Panels([]egress.Witness{{Name: "x"}}, witnessesOf(3, 1)); len(got["x"]) != 3 {
		t.Errorf("a host whose agent has not reported has the witnesses %v, want all three", got)
	}
}

// TestPanelsAreSpread: with three zones the others have six of seven seats, with two
// the other one has the majority, and no agent is a witness of many more hosts than
// others are.
func TestPanelsAreSpread(t *testing.T) {
	t.Parallel()
	for zones, wantOwn := range map[int]int{2: 3, 3: 1, 4: 0, 300: 0} {
		all := witnessesOf(300, zones)
		load := make(map[string]int)
		for host, panel := range egress.Panels(all, all) {
			own := all[slices.IndexFunc(all, func(w egress.Witness) bool { return w.Name == host })].Zone
			if got := seatsByZone(panel, all)[own]; got != wantOwn {
				t.Errorf("%d zones: %d witnesses of %s are in its own zone, want %d", zones, got, host, wantOwn)
			}
			for _, name := range panel {
				load[name]++
			}
		}
		for name, hosts := range load {
			if hosts > 25 { // seven on average
				t.Errorf("%d zones: %s is a witness of %d hosts", zones, name, hosts)
			}
		}
	}
}

func drawWitnesses(t *rapid.T) []egress.Witness {
	zones := rapid.IntRange(1, 4).Draw(t, "zones")
	var list []egress.Witness
	for _, i := range rapid.SliceOfNDistinct(rapid.IntRange(0, 99), 1, 16, rapid.ID[int]).Draw(t, "hosts") {
		list = append(list, egress.Witness{
			Name: fmt.Sprintf("h%02d", i), Zone: fmt.Sprintf("z%d", rapid.IntRange(1, zones).Draw(t, "zone")),
		})
	}
	return list
}

// TestPropertyNoZoneHasAMajority: unless there are too few witnesses elsewhere.
//
// Mutants killed: panel-in-one-zone, panel-in-its-own-zone, witness-of-itself.
func TestPropertyNoZoneHasAMajority(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := drawWitnesses(t)
		for host, panel := range egress.Panels(all, all) {
			if slices.Contains(panel, host) || !slices.IsSorted(panel) || len(slices.Compact(slices.Clone(panel))) != len(panel) {
				t.Fatalf("the panel of %s is %v", host, panel)
			}
			seats := seatsByZone(panel, all)
			inZone := make(map[string]int)
			var own string
			for _, w := range all {
				if w.Name == host {
					own = w.Zone
				} else {
					inZone[w.Zone]++
				}
			}
			most := max(1, (len(panel)-1)/2)
			possible := 0
			for _, n := range inZone {
				possible += min(n, most)
			}
			for zone, n := range seats {
				if n > most && possible >= len(panel) {
					t.Fatalf("%d of the %d witnesses of %s are in zone %s, though there are others", n, len(panel), host, zone)
				}
			}
			// Its own zone comes last.
			for zone, n := range inZone {
				if zone != own && seats[own] > 0 && seats[zone] < min(n, most) {
					t.Fatalf("%s of zone %s has %d witnesses there, though only %d of %d of zone %s are used", host, own, seats[own], seats[zone], n, zone)
				}
			}
		}
	})
}

// TestPropertyPanelsAreStable: a host that comes or goes changes only panels that it
// is or was in, and the order of hosts means nothing.
//
// Mutant killed: panel-reshuffles.
func TestPropertyPanelsAreStable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := drawWitnesses(t)
		with := egress.Panels(all, all)
		if other := egress.Panels(all, rapid.Permutation(all).Draw(t, "order")); !maps.EqualFunc(with, other, slices.Equal[[]string]) {
			t.Fatalf("%v, in another order %v", with, other)
		}
		i := rapid.IntRange(0, len(all)-1).Draw(t, "one")
		without := egress.Panels(all, slices.Delete(slices.Clone(all), i, i+1))
		for host, panel := range with {
			if !slices.Equal(panel, without[host]) && !slices.Contains(panel, all[i].Name) {
				t.Fatalf("%s has no part in the panel of %s, %v, and without it that is %v", all[i].Name, host, panel, without[host])
			}
		}
	})
}

// BenchmarkPanels is what a pass of the controller in a large cluster costs: 1,000
// hosts in ten zones, all of them automatic.
func BenchmarkPanels(b *testing.B) {
	all := witnessesOf(1000, 10)
	b.ReportAllocs()
	for b.Loop() {
		egress.Panels(all, all)
	}
}
