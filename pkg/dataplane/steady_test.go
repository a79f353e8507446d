package dataplane

import (
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/bpf"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/internal/nlutil"
)

// untilSteady applies until a pass reads no more than it must.
func (n *node) untilSteady(t *testing.T) {
	t.Helper()
	n.dp.watched.Store(true)
	for range 5 {
		before := n.dp.steady
		n.apply(t)
		if before != nil && n.dp.steady == before {
			return
		}
	}
	t.Fatal("passes read everything again and again")
}

// given: a host on which nothing changes, so that passes do not read everything; when a part of
// ours is taken away or put behind others', or what it depends on changes, then the next pass
// finds it, whether the kernel reports that kind of change or not, and whether a pod comes or
// goes at the same time or not.
//
// Mutants killed: other-pods-hide-drift, steady-without-maps, steady-without-guard, steady-without-settings,
// steady-without-a-state-of-its-own, steady-for-ever, neighbours-make-no-news,
// routes-go-without-a-word, lost-news-are-no-news.
func TestSteadyPassFindsDrift(t *testing.T) {
	w := newWorld(t, 2, ownTable())
	n := w.nodes[0]
	p := n.addPod(t, "p", 2)
	n.host(eip1, 7)
	p.set(local(eip1, 7))
	elsewhere := testenv.Addr("10.244.1.77")
	n.state.Pods = append(n.state.Pods, Pod{IP: elsewhere, Kind: Remote, NetID: 9, Via: []netip.Addr{w.nodes[1].ip}})
	n.apply(t)
	routes := n.Run(t, "ip route show table 2000")
	run := func(command string) func() { return func() { n.Run(t, command) } }
	in := func(f func() error) func() {
		return func() { n.Do(t, func() { must(t, f()) }) }
	}
	for _, c := range []struct {
		name   string
		damage func()
	}{
		{"address", run("ip address del " + eip1 + "/24 dev eth0")},
		{"rule", run("ip rule del priority 90")},
		{"routes", run("ip route flush table 2000")},
		{"routes that go without a word", run("ip address flush dev egress0")},
		{"device", run("ip link del egress0")},
		{"device that is down", run("ip link set egress0 down")},
		{"tc programs", run("tc qdisc del dev egress0 clsact")},
		{"neighbour", run("ip neigh flush dev egress0 nud permanent")},
		{"setting", run("sysctl -qw net.ipv4.conf.egress0.rp_filter=1")},
		{"form of addresses", run("sysctl -qw net.ipv4.conf.eth0.promote_secondaries=1")},
		{"guard", in(func() error { return bpf.RemoveGuards(n.dp.nl) })},
		{"BPF map pods", in(func() error { return n.dp.maps.DeleteRoute(elsewhere) })},
		{"BPF map hosted", in(func() error { return n.dp.maps.PutHosted(bpf.Network{NetID: 8}, 1) })},
		{"more than can be reported", in(func() error {
			must(t, n.dp.news.socket.SetReceiveBufferSize(1, true))
			for i := range 100 {
				route := netlink.Route{Dst: nlutil.IPNet(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 9, byte(i), 0}), 24)), Gw: []byte{192, 168, 7, 1}}
				must(t, n.dp.nl.RouteReplace(&route))
			}
			n.Run(t, "ip rule del priority 91")
			return n.dp.news.socket.SetReceiveBufferSize(watchBuffer, true)
		})},
	} {
		n.untilSteady(t)
		c.damage()
		if r := n.apply(t); r.Changes == 0 {
			t.Errorf("%s: nothing was repaired", c.name)
		}
		if got := n.Run(t, "ip route show table 2000"); got != routes {
			t.Errorf("%s: routes are\n%s, and were\n%s", c.name, got, routes)
		}
		n.untilSteady(t)
		c.damage()
		n.togglePod(testenv.Addr("10.244.1.78"))
		n.apply(t)
		n.dp.nft.Forget()
		if r := n.apply(t); r.Changes != 0 {
			t.Errorf("%s: %d changes were left to make after a pass with another pod", c.name, r.Changes)
		}
	}

	// What is no damage, but reported.
	n.untilSteady(t)
	n.Run(t, "ip route replace default via 192.168.7.1 dev eth0 metric 5; ip link set eth0 mtu 1400")
	if r := n.apply(t); r.UplinkMTU != 1400 {
		t.Errorf("the MTU is reported as %d", r.UplinkMTU)
	}
	// A State in the same memory.
	n.untilSteady(t)
	n.state.Pods[0].Kind = Drop
	if r := n.apply(t); r.Changes == 0 {
		t.Error("another State changed nothing")
	}
	// What nobody may have done.
	n.untilSteady(t)
	before := n.dp.steady
	before.at -= wholeEvery
	n.apply(t)
	if n.dp.steady == before {
		t.Error("nothing was read again after a while")
	}
}
