package routing

import (
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/internal/testenv/netnstest"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/internal/nlutil"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/mark"
)

func TestMain(m *testing.M) { os.Exit(netnstest.Run(m)) }

func must(t *testing.T, err error) {
	t.Helper()
	netnstest.Must(t, err)
}

// ensure makes a plan true on a host.
func ensure(t *testing.T, host *netnstest.Machine, h *netlink.Handle, p Plan) (n int, err error) {
	t.Helper()
	host.Do(t, func() { n, err = NewTables(p).Ensure(h, mark.Default(), "over0") })
	return n, err
}

// others6 looks for what others have of IPv6 in our tables.
func others6(t *testing.T, host *netnstest.Machine, h *netlink.Handle) (inUse, err error) {
	t.Helper()
	host.Do(t, func() { inUse, err = Others6(h) })
	return inUse, err
}

// remove removes all that is ours from a host, and counts it.
func remove(t *testing.T, host *netnstest.Machine, h *netlink.Handle) (n int, err error) {
	t.Helper()
	host.Do(t, func() {
		rules, err1 := RemoveRules(h)
		routes, err2 := RemoveRoutes(h)
		n, err = rules+routes, errors.Join(err1, err2)
	})
	return n, err
}

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
			host, h, link := netnstest.Host(t, "eth0")
			host.Run(t, add)
			before := host.Run(t, "ip route show table all; ip rule")
			plan := Plan{Inside: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")}, Device: link.Attrs().Index, NextHop: testenv.Addr("169.254.77.2")}
			if n, err := ensure(t, host, h, plan); n != 0 || !errors.Is(err, ErrTableInUse) {
				t.Fatalf("%d changes, %v", n, err)
			}
			if n, err := remove(t, host, h); n != 0 || err != nil {
				t.Fatalf("remove: %d, %v", n, err)
			}
			if after := host.Run(t, "ip route show table all; ip rule"); after != before {
				t.Fatalf("changed from\n%s to\n%s", before, after)
			}
		})
	}
}

// Mutants killed: ipv6-of-others-stops-ipv4, ipv4-waits-for-ipv6.
func TestTablesOfOthersForIPv6(t *testing.T) {
	for name, add := range map[string]string{
		"route":         "ip -6 route add 2001:db8::/32 dev eth0 table 2000",
		"default route": "ip -6 route add default dev eth0 table 2001",
		"rule":          "ip -6 rule add from fd00:7::7 lookup 2000",
	} {
		t.Run(name, func(t *testing.T) {
			host, h, link := netnstest.Host(t, "eth0")
			host.Run(t, add)
			before := host.Run(t, "ip -6 route show table all; ip -6 rule")
			plan := Plan{Inside: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")}, Device: link.Attrs().Index, NextHop: testenv.Addr("169.254.77.2")}
			both := plan
			both.NextHop6 = testenv.Addr("fe80::4d:2")
			for _, want := range []int{len(both.routes(netlink.FAMILY_V4)) + len(policyRules(mark.Default(), "over0", netlink.FAMILY_V4)), 0} {
				if n, err := ensure(t, host, h, both); n != want || !errors.Is(err, ErrTableInUse) {
					t.Fatalf("with IPv6: %d changes, not %d, %v", n, want, err)
				}
			}
			if inUse, err := others6(t, host, h); err != nil || !errors.Is(inUse, ErrTableInUse) {
				t.Fatalf("others are not found: %v, %v", inUse, err)
			}
			if n, err := ensure(t, host, h, plan); n != 0 || err != nil {
				t.Fatalf("IPv4 alone: %d changes, %v", n, err)
			}
			if n, err := remove(t, host, h); n == 0 || err != nil {
				t.Fatalf("remove: %d, %v", n, err)
			}
			if after := host.Run(t, "ip -6 route show table all; ip -6 rule"); after != before {
				t.Fatalf("changed from\n%s to\n%s", before, after)
			}
		})
	}
}

// A cluster of thousands of nodes has as many networks inside.
func TestThousandsOfRoutes(t *testing.T) {
	host, h, link := netnstest.Host(t, "eth0")
	plan := Plan{Device: link.Attrs().Index, NextHop: testenv.Addr("169.254.77.2")}
	for i := range 5000 {
		plan.Inside = append(plan.Inside, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24))
	}
	netnstest.Twice(t, "routes", func() (int, error) { return ensure(t, host, h, plan) })
	plan.Inside = plan.Inside[:4990]
	n, err := ensure(t, host, h, plan)
	if err != nil || n != 10 {
		t.Fatalf("ten networks less: %d changes, %v", n, err)
	}
	if n, err := remove(t, host, h); err != nil || n != 4990+3+len(policyRules(mark.Default(), "over0", netlink.FAMILY_V4)) {
		t.Fatalf("removed %d, %v", n, err)
	}
}

// Mutant killed: ipv6-has-no-end.
func TestRoutesOfOurTablesOnly(t *testing.T) {
	host, h, device := netnstest.Host(t, "egress0")
	foreign := netlink.Route{Table: 3000, Dst: nlutil.IPNet(netip.MustParsePrefix("198.51.100.0/24")), Type: unix.RTN_UNREACHABLE}
	must(t, h.RouteAdd(&foreign))

	plan := Plan{
		Inside: []netip.Prefix{
			netip.MustParsePrefix("10.96.0.0/16"), netip.MustParsePrefix("192.0.2.1/32"),
			netip.MustParsePrefix("fd00:96::/64"), netip.MustParsePrefix("ff00::/8"), netip.MustParsePrefix("fd00::1/128"),
		},
		Device: device.Attrs().Index, NextHop: testenv.Addr("169.254.77.2"), NextHop6: testenv.Addr("fe80::4d:2"),
	}
	four := plan
	four.NextHop6 = netip.Addr{}
	netnstest.Twice(t, "routes of IPv4", func() (int, error) { return ensure(t, host, h, four) })
	before := host.Run(t, "ip -4 route show table all; ip -4 rule")
	netnstest.Twice(t, "routes", func() (int, error) { return ensure(t, host, h, plan) })
	// A marked packet of IPv6 goes to the device, but for what is inside and on the host.
	for to, want := range map[string]string{
		"2001:db8::1 from fd00:9::1 iif eth1 mark 0x1000": "via fe80::4d:2 dev egress0 table 2000",
		"fd00:96::5 from fd00:9::1 iif eth1 mark 0x1000":  "via fd00:7::9 dev eth1",
		"2001:db8::1 from fd00:9::1 iif eth1 mark 0x800":  "via fe80::4d:2 dev egress0 table 2001",
		"2001:db8::1 from fd00:9::1 iif eth1":             "via fd00:7::9 dev eth1",
		"fd00:7::1 from fd00:9::1 iif eth1 mark 0x1000":   "local fd00:7::1",
		"2001:db8::1 mark 0x1000":                         "via fd00:7::9 dev eth1",
	} {
		host.Run(t, `ip link show eth1 >/dev/null 2>&1 || { ip link add eth1 type veth peer name far; ip link set far up; ip link set eth1 up
			ip address add fd00:7::1/64 dev eth1 nodad; ip -6 route add default via fd00:7::9; sysctl -qw net.ipv6.conf.all.forwarding=1; }`)
		if got := host.Run(t, "ip -6 route get "+to+" 2>&1 || true"); !strings.Contains(strings.ReplaceAll(got, " from fd00:9::1", ""), want) {
			t.Errorf("%s: %s, want %s", to, got, want)
		}
	}
	netnstest.Twice(t, "routes of IPv4 again", func() (int, error) { return ensure(t, host, h, four) })
	if after := host.Run(t, "ip -4 route show table all; ip -4 rule"); after != before {
		t.Errorf("routes of IPv4 changed from\n%s to\n%s", before, after)
	}
	if left := host.Run(t, "ip -6 route show table all | grep 'proto 77' || true; ip -6 rule | grep -E '^(8[89]|9[0-3]):' || true"); left != "" {
		t.Errorf("routes and rules of IPv6 are left:\n%s", left)
	}
	netnstest.Twice(t, "routes of both", func() (int, error) { return ensure(t, host, h, plan) })
	if inUse, err := others6(t, host, h); inUse != nil || err != nil {
		t.Errorf("our own are of others: %v, %v", inUse, err)
	}

	// The kernel flushes the device's routes when it goes down; the table
	// must end in the unreachable one, and be mended.
	must(t, h.LinkSetDown(device))
	var own map[route]sighting
	host.Do(t, func() {
		var err error
		own, _, err = tableRoutes(families()...)
		must(t, err)
	})
	for _, everywhere := range []netip.Prefix{defaultV4(), defaultV6()} {
		if _, ok := own[route{table: tableRemote, dst: everywhere, kind: unix.RTN_UNREACHABLE, metric: unreachableMetric}]; !ok {
			t.Fatalf("table %d has no unreachable route to %v while the device is down: its packets would take the main table", tableRemote, everywhere)
		}
	}
	must(t, h.LinkSetUp(device))
	netnstest.Twice(t, "routes after the device was down", func() (int, error) { return ensure(t, host, h, plan) })

	fewer := plan
	fewer.Inside = []netip.Prefix{plan.Inside[0], plan.Inside[3]}
	netnstest.Twice(t, "fewer routes", func() (int, error) { return ensure(t, host, h, fewer) })

	if n, err := remove(t, host, h); err != nil || n == 0 {
		t.Fatalf("remove: %d, %v", n, err)
	}
	if n, err := remove(t, host, h); err != nil || n != 0 {
		t.Fatalf("remove again: %d, %v", n, err)
	}
	left, err := h.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: 3000}, netlink.RT_FILTER_TABLE)
	if err != nil || len(left) != 1 {
		t.Fatalf("the route of others: %v, %v", left, err)
	}
}
