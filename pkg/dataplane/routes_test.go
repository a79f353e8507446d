package dataplane

import (
	"errors"
	"net/netip"
	"testing"
)

// Kills the mutants that take every route of a table for ours, which deletes them,
// or every rule that leads there.
func TestTablesOfOthersAreLeftAlone(t *testing.T) {
	for name, add := range map[string]string{
		"route":              "ip route add 198.51.100.0/24 dev eth0 table 2000",
		"default route":      "ip route add default dev eth0 table 2001",
		"unreachable":        "ip route add unreachable default table 2000 metric 5",
		"rule to the first":  "ip rule add from 192.0.2.77 lookup 2000",
		"rule to the second": "ip rule add fwmark 0x1 lookup 2001 priority 90",
	} {
		t.Run(name, func(t *testing.T) {
			host, h, u := hostWith(t, "eth0")
			host.Run(t, add)
			before := host.Run(t, "ip route show table all; ip rule")
			plan := routePlan{inside: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")}, overlay: u.link.Attrs().Index}
			if n, err := ensureRoutes(h, plan); n != 0 || !errors.Is(err, errTableInUse) {
				t.Fatalf("routes: %d changes, %v", n, err)
			}
			if n, err := ensurePolicyRules(h, DefaultMarks()); n != 0 || !errors.Is(err, errTableInUse) {
				t.Fatalf("rules: %d changes, %v", n, err)
			}
			if n, err := removeRouting(h); n != 0 || err != nil {
				t.Fatalf("remove: %d, %v", n, err)
			}
			if after := host.Run(t, "ip route show table all; ip rule"); after != before {
				t.Fatalf("changed from\n%s to\n%s", before, after)
			}
		})
	}
}

// A cluster of thousands of nodes has as many networks inside.
func TestThousandsOfRoutes(t *testing.T) {
	_, h, u := hostWith(t, "eth0")
	plan := routePlan{overlay: u.link.Attrs().Index}
	for i := range 5000 {
		plan.inside = append(plan.inside, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24))
	}
	twice(t, "routes", func() (int, error) { return ensureRoutes(h, plan) })
	plan.inside = plan.inside[:4990]
	n, err := ensureRoutes(h, plan)
	if err != nil || n != 20 {
		t.Fatalf("ten networks less, in two tables: %d changes, %v", n, err)
	}
	if n, err := removeRouting(h); err != nil || n != 2*4990+2 {
		t.Fatalf("removed %d, %v", n, err)
	}
}
