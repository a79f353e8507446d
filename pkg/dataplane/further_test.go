package dataplane

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"pgregory.net/rapid"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/address"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/routing"
)

// Interfaces of hardware and what is made of these may have egress IPs; those of CNIs, virtual
// machines and tunnels may not, unless they are named.
//
// Mutant killed: bridges-suit.
func TestInterfacesThatSuit(t *testing.T) {
	of := func(name string, link netlink.Link) address.Further {
		link.Attrs().Name = name
		return address.Further{Link: link}
	}
	for _, c := range []struct {
		f    address.Further
		auto bool
	}{
		{of("eth1", &netlink.Device{}), true},
		{of("eth0.5", &netlink.Vlan{}), true},
		{of("bond0", &netlink.Bond{}), true},
		{of("team0", &netlink.GenericLink{LinkType: "team"}), true},
		{of("ext", &netlink.Macvlan{}), true},
		{of("cni0", &netlink.Bridge{}), false},
		{of("docker0", &netlink.Bridge{}), false},
		{of("cali12345", &netlink.Veth{}), false},
		{of("flannel.1", &netlink.Vxlan{}), false},
		{of("kube-ipvs0", &netlink.Dummy{}), false},
		{of("wg0", &netlink.Wireguard{}), false},
		{of("tun0", &netlink.Tuntap{}), false},
		{of("ipvl0", &netlink.IPVlan{}), false},
		{of("vrf0", &netlink.Vrf{}), false},
	} {
		for _, choice := range []struct {
			patterns []string
			want     bool
		}{
			{nil, false},
			{[]string{AnyInterface}, c.auto},
			{[]string{c.f.Name()}, true},
			{[]string{"nothing*", c.f.Name()[:2] + "*"}, true},
			{[]string{"x*"}, false},
			{[]string{"x*", AnyInterface}, c.auto},
			{[]string{"["}, false},
		} {
			if got := suits(choice.patterns, c.f); got != choice.want {
				t.Errorf("%s with %v: %t", c.f.Name(), choice.patterns, got)
			}
		}
	}
}

// Each way has a table of its own, and of nobody else, which it keeps as long as it is wanted and
// others do not use it; those for which none is left are reported.
//
// Mutants killed: ways-share-tables, ways-change-tables, ways-have-tables-of-others.
func TestPropertyWaysKeepTheirTables(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := &Dataplane{wayTables: map[wayKey]int{}}
		before := map[wayKey]int{}
		for range rapid.IntRange(1, 5).Draw(t, "passes") {
			keys := map[netip.Addr]wayKey{}
			for i := range rapid.IntRange(0, 24).Draw(t, "egress IPs") {
				keys[testenv.Addr(fmt.Sprintf("172.16.5.%d", i+1))] = wayKey{
					device: rapid.IntRange(2, 4).Draw(t, "device"), six: rapid.Bool().Draw(t, "six"),
					gateway: testenv.Addr(fmt.Sprintf("172.16.5.%d", rapid.IntRange(100, 105).Draw(t, "gateway"))),
				}
			}
			r := &round{pass: &pass{d: d, unusable: map[netip.Addr]error{}}}
			r.further.at = map[netip.Addr]int{}
			others := map[int]bool{}
			for _, n := range rapid.SliceOfNDistinct(rapid.IntRange(0, routing.MaxWays-1), 0, routing.MaxWays, rapid.ID).Draw(t, "tables of others") {
				others[routing.WayTable(n)] = true
			}
			if len(keys) > 0 {
				r.giveTables(keys, others)
			} else {
				d.wayTables = map[wayKey]int{}
			}
			owner := map[int]wayKey{}
			for ip, key := range keys {
				table, has := r.further.at[ip]
				if !has {
					if r.unusable[ip] == nil || len(r.further.ways) < routing.MaxWays-len(others) {
						t.Fatalf("%v has no table: %v", ip, r.unusable[ip])
					}
					continue
				}
				if other, taken := owner[table]; taken && other != key || !routing.IsOurTable(table) || others[table] {
					t.Fatalf("table %d is that of %v and %v", table, key, other)
				}
				owner[table] = key
				if was, had := before[key]; had && was != table && !others[was] {
					t.Fatalf("%v had table %d and has %d", key, was, table)
				}
			}
			if len(r.further.ways) != len(d.wayTables) {
				t.Fatalf("%d ways, %d tables", len(r.further.ways), len(d.wayTables))
			}
			before = maps.Clone(d.wayTables)
		}
	})
}

// given: a host that no longer has an egress IP of its second interface; until its pods go another
// way their packets are led there, and then nothing leads there. A host that does not know where it
// was lets it leave nowhere.
//
// Mutants killed: ways-end-before-marks, unknown-places-are-the-uplink.
func TestWaysOfEgressIPsThatLeave(t *testing.T) {
	w := newWorld(t, 1, ownTable())
	w.second(t)
	n := w.nodes[0]
	n.hostFurther(further1, gateway2, 7)
	n.apply(t)
	x := testenv.Addr(further1)
	ways := func() bool {
		return strings.Contains(n.Run(t, "ip rule show priority 85; ip route show table 77000 2>/dev/null || true"), "via "+gateway2+" dev eth1")
	}
	state := n.state
	state.Hosted = nil
	d := n.dp
	n.Do(t, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		r := &round{pass: newPass(d, state)}
		must(t, r.prepare())
		observed, err := observe(context.Background(), r.view())
		must(t, err)
		r.known, _ = knownIndices(d.cfg.Marks, observed)
		r.desired.inside = observed.inside
		must(t, r.ensureOverlay())
		if !ways() {
			t.Error("the way ends before its packets do")
		}
		d.pinned = nil
		must(t, address.Delete(d.nl, mustOwn(t, d)[x]))
		pins, err := r.pinned(r.known)
		must(t, err)
		if at, pinned := pins[x]; at != -1 || !pinned {
			t.Errorf("it may leave by interface %d, pinned %t", at, pinned)
		}
		_, err = r.ensureRoutes(nil)
		must(t, err)
		if ways() {
			t.Error("the way is left")
		}
	})
	if list := order(orderInput{known: indices{x: 512}}); !slices.ContainsFunc(list, func(c change) bool { return c.op == dropWays && c.phase == phaseRelease }) {
		t.Error("ways end in no phase")
	}
}

func mustOwn(t *testing.T, d *Dataplane) map[netip.Addr][]netlink.Addr {
	t.Helper()
	own, err := address.Own(d.nl)
	must(t, err)
	return own
}

// given: a host with an egress IP of its second interface; when it loses its own address at the
// uplink for a moment, then that egress IP is served as before, and what its pods send still leaves.
//
// Mutant killed: egress-ips-elsewhere-need-the-uplink.
func TestSecondInterfaceWithoutAnUplink(t *testing.T) {
	w := newWorld(t, 1, ownTable())
	_, lan2 := w.second(t)
	n := w.nodes[0]
	mine := n.addPod(t, "mine", 2)
	n.hostFurther(further1, gateway2, 7)
	mine.set(local(further1, 7))
	n.apply(t)
	w.seen.only(9001, further1)
	lan2.only(9001, further1)
	startSender(t, mine, w.bastion, 9001)
	held := func() string {
		return n.Run(t, "ip -o -4 address show dev eth1; ip rule show priority 85; ip route show table 77000; sysctl net.ipv4.conf.eth1.rp_filter; ip rule show priority 79")
	}
	before := held()
	n.Run(t, "ip address delete 192.168.7.11/24 dev eth0")
	for range 2 {
		r, err := n.tryApply(t)
		if err == nil || len(r.Hosted) != 1 || !r.Hosted[0].Configured || r.NetworksKnown {
			t.Errorf("without an uplink: %+v, networks known %t, %v", r.Hosted, r.NetworksKnown, err)
		}
		if diff := cmp.Diff(before, held()); diff != "" {
			t.Errorf("without an uplink (-before +now):\n%s", diff)
		}
		sent := lan2.from(9001, further1)
		testenv.UntilWithin(t, patience, "packets by the second LAN", func() bool { return lan2.from(9001, further1) > sent+20 })
	}
	n.Run(t, "ip address add 192.168.7.11/24 dev eth0; ip route replace default via 192.168.7.1")
	n.apply(t)
	n.settled(t)
	if diff := cmp.Diff(before, held()); diff != "" {
		t.Errorf("afterwards (-before +now):\n%s", diff)
	}
}

// given: two egress IPs of the second interface, of which one has an address of the host as
// gateway; then that one is refused with the reason, and the other served.
//
// Mutant killed: one-way-is-all-ways.
func TestOneBadGateway(t *testing.T) {
	w := newWorld(t, 1, ownTable())
	w.second(t)
	n := w.nodes[0]
	n.hostFurther("172.16.5.202", "172.16.5.11", 8)
	n.hostFurther(further1, gateway2, 7)
	mine := n.addPod(t, "mine", 2)
	mine.set(local(further1, 7))
	r, err := n.tryApply(t)
	if err == nil || len(r.Hosted) != 2 || r.Hosted[0].Configured || !strings.Contains(r.Hosted[0].Error, "add route") || !r.Hosted[1].Configured {
		t.Fatalf("%+v, %v", r.Hosted, err)
	}
	w.seen.only(9001, further1)
	w.flows(t, startSender(t, mine, w.bastion, 9001), further1)
	n.state.Hosted[0].Gateway = testenv.Addr(gateway2)
	n.apply(t)
	n.settled(t)
}

// given: standbys that have all tables; then a hosted egress IP gets one of them.
//
// Mutant killed: standbys-come-first.
func TestHostedComeBeforeStandbys(t *testing.T) {
	d := &Dataplane{wayTables: map[wayKey]int{}}
	keys := map[netip.Addr]wayKey{}
	look := func(s State) *round {
		r := &round{pass: &pass{d: d, state: s, unusable: map[netip.Addr]error{}}}
		r.further.at = map[netip.Addr]int{}
		r.giveTables(keys, nil)
		return r
	}
	for i := range routing.MaxWays {
		ip := netip.AddrFrom4([4]byte{172, 16, 5, byte(i + 1)})
		keys[ip] = wayKey{device: 2, gateway: ip}
	}
	look(State{})
	ip := testenv.Addr("172.16.5.99")
	keys[ip] = wayKey{device: 3}
	r := look(State{Hosted: []Hosted{{IP: ip}}})
	if r.unusable[ip] != nil || r.further.at[ip] == 0 || len(r.unusable) != 1 || len(r.further.ways) != routing.MaxWays {
		t.Errorf("table %d, unusable %v", r.further.at[ip], r.unusable)
	}
}

// given: a host with an egress IP of its second interface, whose pod sends; when others use the
// routing table of its way, with a route or a policy rule of either family, then it gets another
// table, others keep theirs, and so does what was there before; a restart changes nothing.
// Where others use all of them, only such egress IPs are refused.
//
// Mutants killed: ways-have-tables-of-others, tables-of-ways-stop-all.
func TestRoutingTablesOfOthersAreNoWays(t *testing.T) {
	for name, c := range map[string]struct{ add, del string }{
		"a route":                  {"ip route add 198.51.100.0/24 dev eth0 table 77000", "ip route del 198.51.100.0/24 table 77000"},
		"a route of IPv6":          {"ip -6 route add 2001:db8::/32 dev eth0 table 77000", "ip -6 route del 2001:db8::/32 table 77000"},
		"a policy rule":            {"ip rule add from 192.0.2.77 lookup 77000", "ip rule del from 192.0.2.77 lookup 77000"},
		"a policy rule after ours": {"ip rule add from 192.0.2.77 lookup 77000 priority 40000", "ip rule del priority 40000"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 1, ownTable())
			lan1, lan2 := w.second(t)
			n := w.nodes[0]
			mine := n.addPod(t, "mine", 2)
			n.hostFurther(further1, gateway2, 7)
			n.host(eip1, 8)
			mine.set(local(further1, 7))
			n.apply(t)
			w.seen.only(9001, further1)
			lan1.only(9001)
			lan2.only(9001, further1)
			startSender(t, mine, w.bastion, 9001)
			flow := func() {
				t.Helper()
				sent := lan2.from(9001, further1)
				testenv.UntilWithin(t, patience, "packets by the second LAN", func() bool { return lan2.from(9001, further1) > sent+20 })
			}
			flow()
			theirs := func() string {
				return n.Run(t, "for f in -4 -6; do ip $f route show table 77000 2>/dev/null || true; ip $f rule; done")
			}
			n.Run(t, c.add)
			n.apply(t)
			n.settled(t)
			flow()
			if got := theirs(); strings.Contains(got, "via "+gateway2) || strings.Contains(got, "proto 77 lookup 77000") {
				t.Errorf("others share table 77000:\n%s", got)
			}
			if got := n.Run(t, "ip route show table 77001"); !strings.Contains(got, "via "+gateway2+" dev eth1") {
				t.Errorf("table 77001: %s", got)
			}
			n.start(t)
			n.settled(t)
			n.Run(t, c.del)
			if got := theirs(); strings.Contains(got, "77000") {
				t.Errorf("left of others, or of us:\n%s", got)
			}
			n.apply(t)
			n.settled(t)
			flow()
		})
	}
}

// given: a host where others use all routing tables of ways; then an egress IP of a second interface
// is refused with the reason, those of the uplink are served, and all is well when others have gone.
//
// Mutant killed: tables-of-ways-stop-all.
func TestAllTablesOfWaysAreOthers(t *testing.T) {
	w := newWorld(t, 1, ownTable())
	w.second(t)
	n := w.nodes[0]
	n.hostFurther(further1, gateway2, 7)
	n.host(eip1, 8)
	mine := n.addPod(t, "mine", 2)
	mine.set(local(eip1, 8))
	n.Run(t, "for i in $(seq 77000 77015); do ip route add 198.51.100.0/24 dev eth0 table $i; done")
	r, err := n.tryApply(t)
	if err == nil || len(r.Hosted) != 2 || r.Hosted[0].Configured || !strings.Contains(r.Hosted[0].Error, "others use 16") || !r.Hosted[1].Configured {
		t.Fatalf("%+v, %v", r.Hosted, err)
	}
	w.seen.only(9001, eip1)
	w.flows(t, startSender(t, mine, w.bastion, 9001), eip1)
	n.Run(t, "for i in $(seq 77000 77015); do ip route del 198.51.100.0/24 table $i; done")
	n.apply(t)
	n.settled(t)
}

// given: a host whose route by its second interface has a router of IPv6 as gateway, or is one over
// several gateways; then that gateway is reported, and an egress IP of IPv4 leaves by it.
//
// Mutant killed: one-next-hop-only.
func TestGatewaysThatAreNotPlain(t *testing.T) {
	for _, c := range []struct{ name, route, gateway string }{
		{"of IPv6", "ip -4 route replace default via inet6 fe80::77 dev eth1 metric 200", "fe80::77"},
		{"of several", "ip route replace default metric 200 nexthop via 192.168.7.1 dev eth0 nexthop via 172.16.5.1 dev eth1", gateway2},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, 1, ownTable())
			lan1, lan2 := w.second(t)
			n := w.nodes[0]
			w.router.Run(t, "ip address add fe80::77/64 dev eth2 nodad")
			n.Run(t, c.route)
			r := n.apply(t)
			if len(r.Networks) == 0 || r.Networks[0].Gateway != testenv.Addr(c.gateway) {
				t.Fatalf("networks %+v", r.Networks)
			}
			mine := n.addPod(t, "mine", 2)
			n.hostFurther(further1, c.gateway, 7)
			mine.set(local(further1, 7))
			n.apply(t)
			n.settled(t)
			w.seen.only(9001, further1)
			lan1.only(9001)
			lan2.only(9001, further1)
			t.Run("its pod sends", func(t *testing.T) { // and no more once we are gone: it would leave as without us
				w.flows(t, startSender(t, mine, w.bastion, 9001), further1)
				n.start(t)
				n.settled(t)
				n.stop(t)
			})
			n.clean(t)
			if left := n.Run(t, "ip rule show priority 85; ip route show table 77000 2>/dev/null || true"); left != "" {
				t.Errorf("left: %s", left)
			}
		})
	}
}
