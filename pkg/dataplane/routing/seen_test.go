package routing

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/internal/testenv/netnstest"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/mark"
)

// TestRouteIsTheKernels: the kernel's own answer about packets that come in and that go out: by
// which interface, by which gateway, for the host itself, nowhere, and by the reverse path filter.
func TestRouteIsTheKernels(t *testing.T) {
	host, h, link := netnstest.Host(t, "eth0")
	host.Run(t, `ip address replace 192.0.2.1/24 dev eth0; ip route add default via 192.0.2.9
		ip link add eth1 type veth peer name far1; ip link set far1 up; ip link set eth1 up; ip address add 198.51.100.1/24 dev eth1
		sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=1
		ip route add blackhole 203.0.113.8/32; ip route add unreachable 203.0.113.9/32; ip route add prohibit 203.0.113.10/32
		ip -6 address add 2001:db8::1/64 dev eth0 nodad; ip -6 route add unreachable 2001:db8:9::/48
		ip rule add fwmark 0x7 table 77; ip route add default dev eth1 table 77`)
	eth1 := 0
	host.Do(t, func() {
		l, err := h.LinkByName("eth1")
		must(t, err)
		eth1 = l.Attrs().Index
	})
	eth0, ip := link.Attrs().Index, testenv.Addr
	for name, c := range map[string]struct {
		packet Packet
		want   Outcome
	}{
		"of the host":           {Packet{Destination: ip("203.0.113.1")}, Outcome{Device: eth0, Gateway: ip("192.0.2.9"), Table: 254}},
		"to a neighbour":        {Packet{Destination: ip("198.51.100.7")}, Outcome{Device: eth1, Table: 254}},
		"forwarded":             {Packet{Source: ip("198.51.100.7"), Destination: ip("203.0.113.1"), In: eth1}, Outcome{Device: eth0, Gateway: ip("192.0.2.9"), Table: 254}},
		"with a mark":           {Packet{Source: ip("192.0.2.7"), Destination: ip("203.0.113.1"), In: eth0, Mark: 7}, Outcome{Device: eth1, Table: 77}},
		"for the host":          {Packet{Source: ip("198.51.100.7"), Destination: ip("192.0.2.1"), In: eth1}, Outcome{Device: 1, Table: 255, Local: true}},
		"to a blackhole":        {Packet{Destination: ip("203.0.113.8")}, Outcome{Dropped: "blackhole"}},
		"to an unreachable one": {Packet{Destination: ip("203.0.113.9")}, Outcome{Dropped: "unreachable"}},
		"to a prohibited one":   {Packet{Destination: ip("203.0.113.10")}, Outcome{Dropped: "prohibit"}},
		"filtered":              {Packet{Source: ip("198.51.100.7"), Destination: ip("192.0.2.1"), In: eth0}, Outcome{Dropped: "no route back", Filtered: true}},
		"of IPv6":               {Packet{Destination: ip("2001:db8::7")}, Outcome{Device: eth0, Table: 254}},
		"of IPv6, nowhere":      {Packet{Destination: ip("2001:db8:9::7")}, Outcome{Dropped: "unreachable"}},
	} {
		var got Outcome
		host.Do(t, func() {
			var err error
			got, err = Route(h, c.packet)
			must(t, err)
		})
		if c.want.Dropped != "" && strings.Contains(got.Dropped, c.want.Dropped) && got.Filtered == c.want.Filtered {
			continue
		}
		if got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

// TestDifferencesOfTables: what is not there, what others have there, and what is there from before
// are named; nothing is, where the tables are as a plan wants them, and looking changes nothing.
func TestDifferencesOfTables(t *testing.T) {
	host, h, link := netnstest.Host(t, "eth0")
	plan := Plan{Device: link.Attrs().Index, NextHop: testenv.Addr("169.254.77.2")}
	for i := range 2 * shownRoutes {
		plan.Inside = append(plan.Inside, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i), 0, 0}), 16))
	}
	tables := NewTables(plan)
	differences := func() (missing, foreign, stale []string) {
		host.Do(t, func() {
			var err error
			missing, foreign, stale, err = tables.Differences(h, mark.Default(), "over0")
			must(t, err)
		})
		return missing, foreign, stale
	}
	missing, _, _ := differences()
	if !slices.Contains(missing, "ip rule, priority 90: to table 2000") || !slices.Contains(missing, "8 more routes") {
		t.Errorf("of an empty host, %q are missing", missing)
	}
	if _, err := ensure(t, host, h, plan); err != nil {
		t.Fatal(err)
	}
	before := host.Run(t, "ip rule; ip route show table all")
	if missing, foreign, stale := differences(); len(missing)+len(foreign)+len(stale) > 0 {
		t.Errorf("as wanted: missing %q, foreign %q, stale %q", missing, foreign, stale)
	}
	if after := host.Run(t, "ip rule; ip route show table all"); before != after {
		t.Errorf("looking made\n%s of\n%s", after, before)
	}
	host.Run(t, `ip rule del priority 91; ip route del table 2000 10.3.0.0/16; ip route add 198.51.100.0/24 dev eth0 table 2000
		ip rule add from 192.0.2.77 lookup 2001 priority 500; ip route add unreachable 198.51.100.0/25 table 2001 proto 77`)
	missing, foreign, stale := differences()
	for _, c := range []struct{ got, want []string }{
		{missing, []string{"ip rule, priority 91: to table 2001", "route of table 2000 that sends 10.3.0.0/16 back to the main table"}},
		{foreign, []string{"ip rule, priority 500: to table 2001", "route of table 2000 to 198.51.100.0/24 by device"}},
		{stale, []string{"route of table 2001 that makes 198.51.100.0/25 unreachable where no other route leads"}},
	} {
		if !slices.EqualFunc(c.got, c.want, strings.HasPrefix) {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
}
