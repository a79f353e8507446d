package dataplane

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// Every address is in one of the networks that make an agent present with iptables.
func TestPropertyHalvesHaveEveryAddress(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.SampledFrom([]int{4, 16}).Draw(t, "size")
		ip, _ := netip.AddrFromSlice(rapid.SliceOfN(rapid.Byte(), size, size).Draw(t, "address"))
		n := 0
		for _, half := range halves(ip.Is6()) {
			if half.Contains(ip) {
				n++
			}
		}
		if n != 1 {
			t.Fatalf("%v is in %d of %v", ip, n, halves(ip.Is6()))
		}
	})
}

// A presence is renewed when a quarter of its time has gone; one for good never is, and one of
// which nothing is known always.
//
// Mutant killed: presence-is-renewed-when-it-ends.
func TestPresenceIsRenewedInTime(t *testing.T) {
	ago := func(d time.Duration) *time.Duration { return new(monotonic() - d) }
	for _, c := range []struct {
		name    string
		renewed *time.Duration
		stays   time.Duration
		want    bool
	}{
		{"unknown", nil, 2 * time.Minute, false},
		{"unknown, for good", nil, 0, false},
		{"just now", ago(0), 2 * time.Minute, true},
		{"before a quarter", ago(20 * time.Second), 2 * time.Minute, true},
		{"after a quarter", ago(31 * time.Second), 2 * time.Minute, false},
		{"for good, long ago", ago(time.Hour), 0, true},
	} {
		if got := recent(c.renewed, c.stays); got != c.want {
			t.Errorf("%s: recent is %t", c.name, got)
		}
	}
}

// An agent is present where the rules look for it, for as long as it is configured, and the
// boot lock for good.
func TestWhereAndHowLongAnAgentIsPresent(t *testing.T) {
	for _, c := range []struct {
		name        string
		table, ipv6 bool
		want        []presence
	}{
		{"table of our own", true, true, []presence{{table: true}}},
		{"iptables", false, false, []presence{{ipset: setPresent}}},
		{"iptables with IPv6", false, true, []presence{{ipset: setPresent}, {ipset: setPresent6}}},
	} {
		r := round{members: members{table: c.table}, ipv6: c.ipv6}
		if got := r.presences(); !slices.Equal(got, c.want) {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
	for _, c := range []struct {
		name  string
		after time.Duration
		boot  bool
		want  time.Duration
	}{
		{"configured", time.Minute, false, time.Minute},
		{"no end", -1, false, 0},
		{"boot lock", time.Minute, true, 0},
	} {
		r := round{pass: &pass{d: &Dataplane{cfg: Config{AwayAfter: c.after}}, locksBoot: c.boot}}
		if got := r.stays(); got != c.want {
			t.Errorf("%s: stays %v", c.name, got)
		}
	}
}
