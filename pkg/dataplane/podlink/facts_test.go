package podlink

import (
	"net/netip"
	"os"
	"slices"
	"testing"

	"github.com/egressip-operator/egressip-operator/internal/testenv/netnstest"
)

func TestMain(m *testing.M) { os.Exit(netnstest.Run(m)) }

// given: pods at a bridge and a routed one, another machine, and a veth with both ends on
// the host; then the facts say which links lead to pods, and which addresses are there.
func TestFacts(t *testing.T) {
	host := netnstest.New(t, "host")
	pods := map[string]*netnstest.Machine{}
	for name, addrs := range map[string][]string{
		"a": {"10.244.1.5/24", "fd00::5/64"}, "b": {"10.244.1.6/24"}, "routed": {"10.244.1.7/32"}, "lan": {"192.0.2.1/24"},
	} {
		pods[name] = netnstest.New(t, name)
		var own []string
		if name == "lan" {
			own = []string{"192.0.2.2/24"}
		}
		netnstest.Connect(t, pods[name], "eth0", nil, host, "v-"+name, own)
		for _, addr := range addrs {
			pods[name].Run(t, "ip address add "+addr+" dev eth0")
		}
	}
	pods["a"].Run(t, "ip link add extra type bridge; ip link set extra up; ip address add 10.244.1.8/32 dev extra")
	host.Run(t, `ip link add br0 type bridge; ip link set br0 up; ip address add 10.244.1.1/24 dev br0; ip address add fd00::1/64 dev br0
		ip link set v-a master br0; ip link set v-b master br0; ip link add in type veth peer name out; ip link set in master br0
		ip route add 10.244.1.7/32 dev v-routed; ip route add default via 192.0.2.1`)
	a, a6, b, routed := netip.MustParseAddr("10.244.1.5"), netip.MustParseAddr("fd00::5"), netip.MustParseAddr("10.244.1.6"), netip.MustParseAddr("10.244.1.7")
	away := netip.MustParseAddr("10.244.2.5")
	nl := host.Handle(t)
	index := func(name string) int {
		link, err := nl.LinkByName(name)
		netnstest.Must(t, err)
		return link.Attrs().Index
	}
	var f Facts
	host.Do(t, func() {
		var err error
		f, err = Read(nl, []netip.Addr{a, a6, b, routed, away})
		netnstest.Must(t, err)
	})
	for name, crosses := range map[string]bool{"v-a": true, "v-b": true, "v-routed": true, "v-lan": false, "in": false, "br0": false, "lo": false} {
		if got := f.Links[index(name)]; got.Crosses != crosses || got.Name != name {
			t.Errorf("%s: %+v", name, got)
		}
	}
	br := index("br0")
	if f.Routes[a] != br || f.Routes[a6] != br || f.Routes[routed] != index("v-routed") || f.Routes[away] != 0 {
		t.Errorf("routes %v", f.Routes)
	}
	for ip, name := range map[netip.Addr]string{a: "v-a", a6: "v-a", b: "v-b"} {
		if got := f.Holders(br, ip); !slices.Equal(got, []int{index(name)}) {
			t.Errorf("%v is at %v", ip, got)
		}
	}
	for _, ip := range []netip.Addr{routed, away, netip.MustParseAddr("10.244.1.8"), netip.MustParseAddr("10.244.1.1")} {
		if got := f.Holders(br, ip); len(got) > 0 {
			t.Errorf("%v is at %v", ip, got)
		}
	}
}
