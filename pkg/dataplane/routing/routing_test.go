package routing

import (
	"errors"
	"net/netip"
	"os"
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
	if n, err := remove(t, host, h); err != nil || n != 4990+3+len(policyRules(mark.Default(), "over0")) {
		t.Fatalf("removed %d, %v", n, err)
	}
}

func TestRoutesOfOurTablesOnly(t *testing.T) {
	host, h, device := netnstest.Host(t, "egress0")
	foreign := netlink.Route{Table: 3000, Dst: nlutil.IPNet(netip.MustParsePrefix("198.51.100.0/24")), Type: unix.RTN_UNREACHABLE}
	must(t, h.RouteAdd(&foreign))

	plan := Plan{Inside: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16"), netip.MustParsePrefix("192.0.2.1/32")}, Device: device.Attrs().Index, NextHop: testenv.Addr("169.254.77.2")}
	netnstest.Twice(t, "routes", func() (int, error) { return ensure(t, host, h, plan) })

	// The kernel flushes the device's routes when it goes down; the table
	// must end in the unreachable one, and be mended.
	must(t, h.LinkSetDown(device))
	var own map[route]sighting
	host.Do(t, func() {
		var err error
		own, _, err = tableRoutes()
		must(t, err)
	})
	if _, ok := own[route{table: tableRemote, dst: defaultV4(), kind: unix.RTN_UNREACHABLE, metric: unreachableMetric}]; !ok {
		t.Fatalf("table %d has no unreachable route while the device is down: its packets would take the main table", tableRemote)
	}
	must(t, h.LinkSetUp(device))
	netnstest.Twice(t, "routes after the device was down", func() (int, error) { return ensure(t, host, h, plan) })

	fewer := plan
	fewer.Inside = plan.Inside[:1]
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
