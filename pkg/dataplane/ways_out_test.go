package dataplane

import (
	"slices"
	"testing"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/internal/testenv/netnstest"
)

// Packets leave by the uplink, and by the interfaces of the default routes, where those are others.
//
// Mutant killed: default-route-of-ipv6-is-not-guarded.
func TestWaysOut(t *testing.T) {
	host, router := netnstest.New(t, "host"), netnstest.New(t, "router")
	netnstest.Connect(t, host, "eth0", []string{"192.168.7.11/24"}, router, "eth0", nil)
	h := host.Handle(t)
	uplink, err := h.LinkByName("eth0")
	must(t, err)
	host.Stay(t)
	host.Run(t, `for d in eth1 eth2; do ip link add $d type veth peer name p-$d; ip link set $d up; ip link set p-$d up; done
		ip address add 198.51.100.1/24 dev eth1; ip address add 2001:db8:2::1/64 dev eth2 nodad`)
	for _, c := range []struct {
		name, routes string
		serve6, six  bool
		want         []string
		route        string
	}{
		{name: "no default route", want: []string{"eth0"}},
		{name: "by the uplink", routes: "ip route add default via 192.168.7.1", want: []string{"eth0"}, route: "eth0"},
		{name: "by another interface", routes: "ip route add default via 198.51.100.254", want: []string{"eth0", "eth1"}, route: "eth1"},
		{name: "to nowhere", routes: "ip route add blackhole default", want: []string{"eth0"}},
		{name: "IPv6 that is not served", routes: "ip -6 route add default via 2001:db8:2::2", want: []string{"eth0"}},
		{name: "IPv6", routes: "ip -6 route add default via 2001:db8:2::2", serve6: true, want: []string{"eth0", "eth2"}},
		{name: "IPv6 without a default route", serve6: true, want: []string{"eth0"}},
		{
			name: "three", routes: "ip route add default via 198.51.100.254; ip -6 route add default via 2001:db8:2::2", serve6: true,
			want: []string{"eth0", "eth1", "eth2"}, route: "eth1",
		},
		{
			name: "three of a host of IPv6", routes: "ip route add default via 198.51.100.254; ip -6 route add default via 2001:db8:2::2", serve6: true, six: true,
			want: []string{"eth0", "eth1", "eth2"}, route: "eth2",
		},
		{name: "no default route of a host of IPv6", routes: "ip route add default via 198.51.100.254", serve6: true, six: true, want: []string{"eth0", "eth1"}},
	} {
		host.Run(t, "(ip route del default; ip route del blackhole default; ip -6 route del default) 2>/dev/null || true; "+c.routes)
		r := round{pass: &pass{d: &Dataplane{nl: h}}, uplink: uplinkOf(uplink), serve6: c.serve6}
		if c.six {
			r.state.HostIP = testenv.Addr("2001:db8::11")
		}
		links, err := r.waysOut(nil)
		must(t, err)
		var got []string
		for _, link := range links {
			got = append(got, link.Attrs().Name)
		}
		if !slices.Equal(got, c.want) || r.defaultRoute != c.route {
			t.Errorf("%s: %v, with the default route by %q", c.name, got, r.defaultRoute)
		}
	}
}
