package routing

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/vishvananda/netlink"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/internal/testenv/netnstest"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/mark"
)

// twoWays is a host with two further interfaces, each with egress IPs: of one a gateway is
// known, of the other only of IPv6.
func twoWays(t *testing.T) (*netnstest.Machine, *netlink.Handle, Plan) {
	t.Helper()
	host, h, link := netnstest.Host(t, "egress0")
	host.Run(t, `for i in 0 1 2; do ip link add eth$i type veth peer name far$i; ip link set eth$i up; ip link set far$i up; done
		ip link add cni0 type bridge; ip link set cni0 up; ip address add 10.244.1.1/24 dev cni0; ip address add fd00:244:1::1/64 dev cni0 nodad
		ip address add 192.168.7.10/24 dev eth0; ip route add default via 192.168.7.1
		ip address add 172.16.5.10/24 dev eth1; ip address add 172.16.6.10/24 dev eth2
		ip address add fd00:7::10/64 dev eth0 nodad; ip -6 route add default via fd00:7::1
		ip address add fd00:5::10/64 dev eth1 nodad; ip address add fd00:6::10/64 dev eth2 nodad
		sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1`)
	index := func(name string) int {
		l, err := h.LinkByName(name)
		must(t, err)
		return l.Attrs().Index
	}
	m := mark.Default()
	plan := Plan{
		Inside: []netip.Prefix{testenv.Prefix("10.244.0.0/16"), testenv.Prefix("fd00:244::/32")},
		Device: link.Attrs().Index, NextHop: testenv.Addr("169.254.77.2"), NextHop6: testenv.Addr("fe80::4d:2"),
		Ways: []Way{
			{Table: WayTable(0), Device: index("eth1"), Name: "eth1", Networks: []netip.Prefix{testenv.Prefix("172.16.5.0/24"), testenv.Prefix("fd00:5::/64")}, Gateway: testenv.Addr("172.16.5.1")},
			{Table: WayTable(1), Device: index("eth2"), Name: "eth2", Networks: []netip.Prefix{testenv.Prefix("172.16.6.0/24"), testenv.Prefix("fd00:6::/64")}, Gateway6: testenv.Addr("fd00:6::1")},
		},
		Indices: []Index{
			{Mark: m.Index(512), Table: WayTable(0)},
			{Mark: m.Index(513), Table: WayTable(1)},
			{Mark: m.Index(514), Table: WayTable(0), IPv6: true},
			{Mark: m.Index(515), Table: WayTable(1), IPv6: true},
		},
	}
	return host, h, plan
}

// given: egress IPs on two further interfaces; then packets with their indices leave by these,
// by the gateway that is known and else to neighbours alone, those to the inside and to the
// host as without a mark, and so do those of the host itself and of other indices. If the
// interface goes down they go nowhere. When there are no such egress IPs any more, nothing is
// left; nor is it after a removal.
//
// Mutants killed: ways-have-no-inside, ways-have-no-end, ways-for-the-host-itself.
func TestWaysOfEgressIPs(t *testing.T) {
	host, h, plan := twoWays(t)
	without := plan
	without.Ways, without.Indices = nil, nil
	netnstest.Twice(t, "routes without ways", func() (int, error) { return ensure(t, host, h, without) })
	netnstest.Twice(t, "ways", func() (int, error) { return ensure(t, host, h, plan) })

	m := mark.Default()
	pod := func(to, from, iif string, mark uint32) string {
		return fmt.Sprintf("%s from %s iif %s mark %#x", to, from, iif, mark)
	}
	for _, c := range []struct{ packet, want string }{
		{pod("203.0.113.9", "10.244.1.5", "cni0", m.Index(512)), "via 172.16.5.1 dev eth1 table 77000"},
		{pod("203.0.113.9", "10.244.2.5", "egress0", m.Index(512)), "via 172.16.5.1 dev eth1 table 77000"},
		{pod("172.16.5.77", "10.244.1.5", "cni0", m.Index(512)), "dev eth1 table 77000"},
		{pod("192.168.7.77", "10.244.1.5", "cni0", m.Index(512)), "via 172.16.5.1 dev eth1 table 77000"},
		{pod("10.244.1.7", "10.244.1.5", "cni0", m.Index(512)), "dev cni0"},
		{pod("172.16.5.10", "10.244.1.5", "cni0", m.Index(512)), "local 172.16.5.10"},
		{pod("172.16.6.77", "10.244.1.5", "cni0", m.Index(513)), "dev eth2 table 77001"},
		{pod("203.0.113.9", "10.244.1.5", "cni0", m.Index(513)), "unreachable"},
		{pod("203.0.113.9", "10.244.1.5", "cni0", m.Index(516)), "via 192.168.7.1 dev eth0"},
		{pod("203.0.113.9", "10.244.1.5", "cni0", m.Index(512)|m.Remote()), "dev egress0 table 2000"},
		{"203.0.113.9 mark " + fmt.Sprint(m.Index(512)), "via 192.168.7.1 dev eth0"},
		// The way back to a pod, as strict filters look for it where src_valid_mark is set.
		{pod("10.244.1.5", "203.0.113.9", "eth1", m.Index(512)), "dev cni0"},
		{"-6 " + pod("2001:db8::9", "fd00:244:1::5", "cni0", m.Index(514)), "unreachable"},
		{"-6 " + pod("fd00:5::77", "fd00:244:1::5", "cni0", m.Index(514)), "dev eth1 table 77000"},
		{"-6 " + pod("2001:db8::9", "fd00:244:1::5", "cni0", m.Index(515)), "via fd00:6::1 dev eth2 table 77001"},
		{"-6 " + pod("2001:db8::9", "fd00:244:1::5", "cni0", m.Index(512)), "via fd00:7::1 dev eth0"},
	} {
		family, packet := "", c.packet
		if six, found := strings.CutPrefix(packet, "-6 "); found {
			family, packet = "-6 ", six
		}
		got := host.Run(t, "ip "+family+"route get "+packet+" 2>&1 || true")
		for _, from := range []string{"10.244.1.5", "10.244.2.5", "203.0.113.9", "fd00:244:1::5"} {
			got = strings.ReplaceAll(got, " from "+from, "")
		}
		if strings.Contains(got, "No route to host") {
			got = "unreachable"
		}
		if !strings.Contains(got, c.want) {
			t.Errorf("%s: %s, want %s", c.packet, got, c.want)
		}
	}

	var found map[int]Way
	host.Do(t, func() {
		var err error
		found, err = WaysFound()
		must(t, err)
	})
	want := map[int]Way{}
	for _, w := range plan.Ways {
		want[w.Table] = Way{Table: w.Table, Device: w.Device, Gateway: w.Gateway, Gateway6: w.Gateway6}
	}
	if diff := cmp.Diff(want, found, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); diff != "" {
		t.Errorf("ways as found (-want +got):\n%s", diff)
	}

	host.Run(t, "ip link set eth1 down")
	if got := host.Run(t, "ip route get "+pod("203.0.113.9", "10.244.1.5", "cni0", m.Index(512))+" 2>&1 || true"); !strings.Contains(got, "No route to host") {
		t.Errorf("with eth1 down: %s", got)
	}
	host.Run(t, "ip link set eth1 up")
	netnstest.Twice(t, "ways after the interface was down", func() (int, error) { return ensure(t, host, h, plan) })

	moved := plan
	moved.Ways = []Way{plan.Ways[0]}
	moved.Ways[0].Gateway = testenv.Addr("172.16.5.2")
	moved.Indices = plan.Indices[:1]
	netnstest.Twice(t, "one way, by another gateway", func() (int, error) { return ensure(t, host, h, moved) })
	if got := host.Run(t, "ip route show table 77000; ip route show table 77001"); !strings.Contains(got, "default via 172.16.5.2") || strings.Contains(got, "172.16.5.1 ") || strings.Contains(got, "eth2") {
		t.Errorf("routes after the gateway has changed:\n%s", got)
	}

	leaving := without
	leaving.Keep = []uint32{m.Index(512), m.Index(999)}
	netnstest.Twice(t, "the way of an egress IP that leaves", func() (int, error) { return ensure(t, host, h, leaving) })
	if got := host.Run(t, "ip route get "+pod("203.0.113.9", "10.244.1.5", "cni0", m.Index(512))); !strings.Contains(got, "via 172.16.5.2 dev eth1 table 77000") {
		t.Errorf("an egress IP that leaves goes %s", got)
	}
	netnstest.Twice(t, "no ways", func() (int, error) { return ensure(t, host, h, without) })
	if left := host.Run(t, "ip route show table all | grep 7700 || true; ip rule | grep -E '7700|^8[0-7]:' || true"); left != "" {
		t.Errorf("left:\n%s", left)
	}
	netnstest.Twice(t, "ways again", func() (int, error) { return ensure(t, host, h, plan) })
	if n, err := remove(t, host, h); err != nil || n == 0 {
		t.Fatalf("remove: %d, %v", n, err)
	}
	if left := host.Run(t, "ip route show table all | grep 'proto 77' || true; ip rule; ip -6 rule"); strings.Contains(left, "77") {
		t.Errorf("left after a removal:\n%s", left)
	}
}

// Routes of others in a table of ways matter only where that table is in use.
func TestWayTablesOfOthers(t *testing.T) {
	host, h, plan := twoWays(t)
	host.Run(t, "ip route add 198.51.100.0/24 dev eth0 table 77001")
	one := plan
	one.Ways, one.Indices = plan.Ways[:1], plan.Indices[:1]
	netnstest.Twice(t, "one way", func() (int, error) { return ensure(t, host, h, one) })
	if _, err := ensure(t, host, h, plan); err == nil || !strings.Contains(err.Error(), "77001") {
		t.Errorf("both: %v", err)
	}
}

// given: default routes over several interfaces; then the gateway of each is that of the main
// table with the least metric, or else that of another table, and never ours.
//
// Mutants killed: other-tables-come-first, our-routes-are-the-hosts.
func TestGatewaysOfInterfaces(t *testing.T) {
	host, h, plan := twoWays(t)
	host.Run(t, `ip route add default via 172.16.5.253 dev eth1 metric 300; ip route add default via 172.16.5.254 dev eth1 metric 200
		ip route add default via 172.16.5.252 dev eth1 table 100; ip route add 10.0.0.0/8 via 172.16.6.9 dev eth2
		ip route add default via 172.16.6.252 dev eth2 table 101
		ip -6 route add default via fe80::1 dev eth1 metric 2048`)
	netnstest.Twice(t, "ways", func() (int, error) { return ensure(t, host, h, plan) })
	for name, want := range map[string][2]string{
		"eth0": {"192.168.7.1", "fd00:7::1"}, "eth1": {"172.16.5.254", "fe80::1"}, "eth2": {"172.16.6.252", "invalid IP"}, "cni0": {"invalid IP", "invalid IP"},
	} {
		gatewaysAre(t, host, h, name, want)
	}
}

func gatewaysAre(t *testing.T, host *netnstest.Machine, h *netlink.Handle, name string, want [2]string) {
	t.Helper()
	link, err := h.LinkByName(name)
	must(t, err)
	host.Do(t, func() {
		four, six, err := Gateways(link.Attrs().Index)
		must(t, err)
		if got := [2]string{four.String(), six.String()}; got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	})
}

// given: default routes with several next hops, of next hop objects, or of IPv4 by a router of IPv6;
// then the gateway of an interface is the first one there that the kernel has not given up, and a
// way leads by it.
//
// Mutants killed: one-next-hop-only, dead-next-hops-are-gateways.
func TestGatewaysOfRoutesWithSeveralNextHops(t *testing.T) {
	const none = "invalid IP"
	for _, c := range []struct {
		name, do string
		want     map[string][2]string
	}{
		{
			"several next hops", `ip route add default metric 100 nexthop via 192.168.7.1 dev eth0 nexthop via 172.16.5.7 dev eth1 nexthop via 172.16.5.8 dev eth1
				ip -6 route add default metric 100 nexthop via fd00:7::1 dev eth0 nexthop via fd00:5::7 dev eth1`,
			map[string][2]string{"eth0": {"192.168.7.1", "fd00:7::1"}, "eth1": {"172.16.5.7", "fd00:5::7"}, "eth2": {none, none}},
		},
		{
			"a next hop that is down", `ip link set eth2 down
				ip route add default table 100 nexthop via 172.16.5.7 dev eth1 nexthop via 172.16.5.8 dev eth1
				ip link set eth2 up; ip route add default table 101 nexthop via 172.16.6.7 dev eth2 nexthop via 172.16.5.9 dev eth1; ip link set far2 down`,
			map[string][2]string{"eth1": {"172.16.5.7", none}, "eth2": {none, none}},
		},
		{
			"next hop objects", `ip nexthop add id 1 via 172.16.5.7 dev eth1; ip nexthop add id 2 via 172.16.6.7 dev eth2; ip nexthop add id 3 group 1/2
				ip route add default nhid 3 table 100`,
			map[string][2]string{"eth1": {"172.16.5.7", none}, "eth2": {"172.16.6.7", none}},
		},
		{
			"by a router of IPv6", `ip -4 route add default via inet6 fe80::1 dev eth1 metric 50; ip -4 route add default table 100 nexthop via 172.16.5.7 dev eth1 nexthop via inet6 fe80::2 dev eth2`,
			map[string][2]string{"eth1": {"fe80::1", none}, "eth2": {"fe80::2", none}},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			host, h, plan := twoWays(t)
			host.Run(t, c.do)
			for name, want := range c.want {
				gatewaysAre(t, host, h, name, want)
			}
			four := testenv.Addr("172.16.5.1")
			if got := c.want["eth1"][0]; got != none {
				four = testenv.Addr(got)
			}
			plan.Ways[0].Gateway = four
			netnstest.Twice(t, "ways", func() (int, error) { return ensure(t, host, h, plan) })
			to := "203.0.113.9 from 10.244.1.5 iif cni0 mark " + fmt.Sprint(mark.Default().Index(512))
			if got := host.Run(t, "ip route get "+to); !strings.Contains(got, four.String()+" dev eth1 table 77000") {
				t.Errorf("way by %v: %s", four, got)
			}
			host.Do(t, func() {
				found, err := WaysFound()
				must(t, err)
				if found[WayTable(0)].Gateway != four {
					t.Errorf("found: %v", found)
				}
			})
			plan.Ways = plan.Ways[1:]
			plan.Indices = plan.Indices[1:2]
			netnstest.Twice(t, "without it", func() (int, error) { return ensure(t, host, h, plan) })
		})
	}
}

// given: others that use the table of one way, for one family; then this way of the family alone is
// as it was, with an error that says so, and all else is as planned. Which tables are in use is
// found.
//
// Mutant killed: tables-of-ways-stop-all.
func TestTablesOfWaysThatOthersUse(t *testing.T) {
	for name, add := range map[string]string{
		"route":                 "ip route add 198.51.100.0/24 dev eth0 table 77000",
		"the same default":      "ip route add default dev eth0 table 77000",
		"rule":                  "ip rule add from 192.0.2.77 lookup 77000",
		"another family's rule": "ip -6 rule add from fd00:7::7 lookup 77000",
	} {
		t.Run(name, func(t *testing.T) {
			host, h, plan := twoWays(t)
			host.Run(t, add)
			theirs := func() string {
				return host.Run(t, "for f in -4 -6; do ip $f route show table 77000 2>/dev/null || true; ip $f rule; done | grep -v 'proto 77' | sort -u")
			}
			before := theirs()
			var taken map[int]bool
			for range 2 {
				_, err := ensure(t, host, h, plan)
				of, rest := WayErrors(err)
				if rest != nil || len(of) != 1 || !errors.Is(of[WayTable(0)], ErrTableInUse) {
					t.Fatalf("errors %v, of ways %v", rest, of)
				}
				host.Do(t, func() {
					taken, err = WaysOfOthers(h)
					must(t, err)
				})
				if len(taken) != 1 || !taken[WayTable(0)] {
					t.Errorf("tables of others: %v", taken)
				}
			}
			if after := theirs(); after != before {
				t.Errorf("theirs changed from\n%s to\n%s", before, after)
			}
			if got := host.Run(t, "ip -6 route show table 77001; ip route show table 2000; ip rule"); !strings.Contains(got, "via fd00:6::1") || !strings.Contains(got, "dev egress0") || !strings.Contains(got, "lookup 2000") {
				t.Errorf("all else:\n%s", got)
			}
			n, err := remove(t, host, h)
			if after := theirs(); n == 0 || err != nil || after != before {
				t.Errorf("removed %d, %v; theirs changed from\n%s to\n%s", n, err, before, after)
			}
		})
	}
}
