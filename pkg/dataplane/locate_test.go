package dataplane

import (
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/internal/testenv/netnstest"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/address"
)

// The kernel is asked how it leads to pods of unknown networks, and again after a while: soon
// where a pod was not found. What was found counts until then, and for the same pods only.
//
// Mutant killed: found-outward-rests-long.
func TestPodsAreLocatedFromTimeToTime(t *testing.T) {
	host, h, uplink := netnstest.Host(t, "eth0")
	host.Stay(t)
	host.Run(t, "ip link add cni0 type bridge; ip link set cni0 up; ip address add 10.77.1.1/24 dev cni0; ip route add default via 192.0.2.254")
	pod := testenv.Addr("10.77.1.2")
	d := &Dataplane{nl: h}
	locate := func(ips ...netip.Addr) []PodRoute {
		t.Helper()
		r := round{pass: &pass{d: d, state: State{Locate: ips}}, uplink: uplinkOf(uplink)}
		r.locate()
		if len(r.report.Warnings) > 0 {
			t.Fatal(r.report.Warnings)
		}
		return r.report.PodRoutes
	}
	expect := func(when string, got []PodRoute, outward bool) {
		t.Helper()
		network := netip.MustParsePrefix("10.77.1.0/24")
		if outward {
			network = netip.PrefixFrom(pod, 32)
		}
		if want := (PodRoute{IP: pod, Network: network, Outward: outward}); len(got) != 1 || got[0] != want {
			t.Errorf("%s: %+v", when, got)
		}
	}
	expect("at first", locate(pod), false)
	host.Run(t, "ip address del 10.77.1.1/24 dev cni0")
	d.located.at -= lookSoon
	expect("soon after the route has gone", locate(pod), false)
	d.located.at -= lookEvery
	expect("a while after the route has gone", locate(pod), true)
	host.Run(t, "ip address add 10.77.1.1/24 dev cni0")
	expect("at once after the route is back", locate(pod), true)
	d.located.at -= lookSoon
	expect("soon after the route is back", locate(pod), false)
	// The uplink leads to no pods, though it be of a kind that does.
	if got := locate(pod, testenv.Addr("192.0.2.9")); len(got) != 2 || !got[1].Outward {
		t.Errorf("with an address at the uplink: %+v", got)
	}
	if got := locate(); len(got) > 0 {
		t.Errorf("for no pods: %+v", got)
	}
	host.Run(t, "ip address del 10.77.1.1/24 dev cni0")
	expect("for the first one again", locate(pod), true)
}

// uplinkOf is an uplink as far as its device goes.
func uplinkOf(link netlink.Link) address.Uplink {
	return address.Uplink{Link: link, Name: link.Attrs().Name}
}
