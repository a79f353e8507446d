package dataplane

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/pkg/live"
)

// liveOf is what a node's kernel has, compared with what it should have.
func (n *node) liveOf(t *testing.T, q live.Query, want live.Want) []live.Check {
	t.Helper()
	var host live.Host
	var err error
	n.act(t, func() { host, err = n.dp.Live(context.WithoutCancel(t.Context()), q) })
	if err != nil {
		t.Fatalf("look at %s: %v", n.Name, err)
	}
	want.Host = n.Name
	return live.Compare(want, host)
}

// liveWorld is a pod on n1 whose packets leave by n2 with eip1, and one on n2 itself.
type liveWorld struct {
	*world
	remote, local *podMachine
}

const liveNetID = 17

func newLiveWorld(t *testing.T, rules rulesOf) liveWorld {
	t.Helper()
	w := liveWorld{world: newWorld(t, 2, rules)}
	n1, n2 := w.nodes[0], w.nodes[1]
	w.remote, w.local = n1.addPod(t, "a", 2), n2.addPod(t, "b", 2)
	n2.host(w.eip(1), liveNetID)
	w.remote.set(remote(liveNetID, n2))
	w.local.set(local(w.eip(1), liveNetID))
	w.applyAll(t)
	return w
}

// snapshots are all rules, maps, links, routes, neighbours and settings that a look could change.
func (w *world) snapshots(t *testing.T) string {
	t.Helper()
	var all []string
	for _, n := range w.nodes {
		all = append(all, n.Run(t, `nft list ruleset 2>/dev/null | sed 's/ expires [0-9a-z]*//g; s/counter packets [0-9]* bytes [0-9]*//g'
			iptables-legacy-save | sed '/^[#:]/d'; ipset save | sed 's/ timeout [0-9]*$//'; ip -o link | sed 's/ state .*//'; ip rule; ip -6 rule; ip route show table all | grep -v fe80; ip -o -4 address | sed 's/valid_lft.*//'
			ip neigh show nud permanent; tc qdisc; for d in eth0 egress0; do tc filter show dev $d egress; tc filter show dev $d ingress; done; sysctl net.ipv4.conf | grep rp_filter`))
	}
	return strings.Join(all, "\n")
}

// checks looks at both nodes, and returns all checks of the packets of both pods to the bastion.
func (w liveWorld) checks(t *testing.T, egressIP string) []live.Check {
	t.Helper()
	n1, n2, ip, to := w.nodes[0], w.nodes[1], testenv.Addr(egressIP), netip.MustParseAddrPort(w.bastion.outside(8080)).Addr()
	q := live.Query{Pod: w.remote.ip, To: to, Sender: true, Via: []netip.Addr{n2.ip}}
	list := n1.liveOf(t, q, live.Want{Sender: &live.WantSender{Kind: live.ByOverlay, NetID: liveNetID, Via: []netip.Addr{n2.ip}}})
	q = live.Query{Pod: w.remote.ip, To: to, EgressIP: ip, NetID: liveNetID, From: n1.ip}
	list = append(list, n2.liveOf(t, q, live.Want{Egress: &live.WantEgress{EgressIP: ip, Interface: "eth0", NetID: liveNetID, From: n1.ip}})...)
	q = live.Query{Pod: w.local.ip, To: to, Sender: true, EgressIP: ip, NetID: liveNetID}
	return append(list, n2.liveOf(t, q, live.Want{
		Sender: &live.WantSender{Kind: live.Here, Source: ip}, Egress: &live.WantEgress{EgressIP: ip, NetID: liveNetID},
	})...)
}

// TestLiveNamesFaults: in a kernel that is as planned, nothing differs; each fault that is planted
// there is named with the right verdict, and looking leaves nothing behind. Each is mended by the
// next pass.
//
// Mutants: live-from-memory, live-blind-to-neighbours, live-takes-any-address.
func TestLiveNamesFaults(t *testing.T) {
	for _, rules := range openRules() {
		t.Run(rules.name, func(t *testing.T) { testLiveFaults(t, rules) })
	}
}

func testLiveFaults(t *testing.T, rules rulesOf) {
	t.Helper()
	w := newLiveWorld(t, rules)
	w.remote.leaves(t, eip1)
	w.local.leaves(t, eip1)
	n1, n2 := w.nodes[0], w.nodes[1]
	before := w.snapshots(t)
	for _, c := range live.Differ(w.checks(t, eip1)) {
		t.Errorf("of a kernel as planned, %s says of %s: want %q, have %q: %s", c.Host, c.Object, c.Want, c.Have, c.Verdict)
	}
	if diff := cmp.Diff(before, w.snapshots(t)); diff != "" {
		t.Errorf("looking changed the kernel (-before +after):\n%s", diff)
	}
	for _, f := range []struct {
		name    string
		node    *node
		plant   string
		mend    string // what Apply does not do
		object  string
		verdict live.Verdict
	}{
		{"the pod is not marked", n1, rules.empty(setPods), "", "the pod in map egress-marks", live.Missing},
		{"the pod is not locked", n1, rules.empty(setLocked), "", "the pod in set egress-locked", live.Missing},
		{"the egress host is not listed", n1, rules.empty(setHosts), "", "egress host 192.168.7.12 in set egress-hosts", live.Missing},
		{"rules are gone", n1, rules.flush("filter", "EGRESSIP-LOCKED"), "", "EGRESSIP-LOCKED|chain locked", live.Missing},
		{"the policy rule is gone", n1, "ip rule del priority 90", "", "ip rule, priority 90: to table 2000", live.Missing},
		{"the policy rule is gone, by the kernel's own route", n1, "ip rule del priority 90", "", "the route of the pod's packet", live.Foreign},
		{"a policy rule of others comes first", n1, "ip rule add priority 40 from " + w.remote.ip.String() + " table main", "ip rule del priority 40", "the route of the pod's packet", live.Foreign},
		{"the route to the overlay is gone", n1, "ip route del table 2000 default via 169.254.77.2 dev egress0 onlink", "", "route of table 2000 to everywhere", live.Missing},
		{"the neighbour is gone", n1, "ip neigh del 169.254.77.2 dev egress0", "", "the next hop among the neighbours of egress0", live.Missing},
		{"the overlay is down", n1, "ip link set egress0 down", "", "state of egress0", live.Foreign},
		{"the overlay is gone", n1, "ip link del egress0", "", "device egress0", live.Missing},
		{"a program is gone", n1, "tc filter del dev egress0 egress", "", "the program at the egress of egress0", live.Missing},
		{"no way to the egress host", n1, "ip route add unreachable 192.168.7.12", "ip route del unreachable 192.168.7.12", "the route of outer packets to 192.168.7.12", live.Foreign},
		{"the filter of the overlay is strict", n2, "sysctl -qw net.ipv4.conf.egress0.rp_filter=1", "", "reverse path filter of egress0", live.Foreign},
		{"the address is gone", n2, "ip address del " + eip1 + " dev eth0", "", "address 192.168.7.201 on an interface", live.Missing},
		{"the address is of others", n2, "ip address del " + eip1 + " dev eth0; ip address add " + eip1 + "/24 dev eth0", "ip address del " + eip1 + "/24 dev eth0", "address 192.168.7.201 on an interface", live.Foreign},
		{"the interface is down", n2, "ip link set eth0 down", "ip link set eth0 up; ip route add default via 192.168.7.1", "address 192.168.7.201 on an interface", live.Foreign},
		{"there is no default route", n2, "ip route del default", "ip route add default via 192.168.7.1", "the route of the packet from the egress host", live.Missing},
		{"answers do not pass the filter", n2, "ip route add default dev cni0 table 99; ip rule add from " + eip1 + " table 99 priority 70", "ip rule del priority 70; ip route flush table 99", "answers to 192.168.7.201", live.Foreign},
		{"the sender's host is not listed", n2, rules.empty(setHosts), "", "the pod's host 192.168.7.11 in set egress-hosts", live.Missing},
	} {
		f.node.Run(t, f.plant)
		list := live.Differ(w.checks(t, eip1))
		named := slices.ContainsFunc(list, func(c live.Check) bool {
			return c.Host == f.node.Name && c.Verdict == f.verdict && slices.ContainsFunc(strings.Split(f.object, "|"), func(o string) bool { return strings.Contains(c.Object, o) })
		})
		if !named {
			t.Errorf("%s: not named among %v", f.name, list)
		}
		if f.mend != "" {
			f.node.Run(t, f.mend)
		}
		f.node.dp.nft.Forget()
		f.node.dp.routed.heard()
		w.applyAll(t)
		for _, c := range live.Differ(w.checks(t, eip1)) {
			t.Errorf("after %s was mended, %s says of %s: want %q, have %q: %s", f.name, c.Host, c.Object, c.Want, c.Have, c.Verdict)
		}
	}
	w.remote.leaves(t, eip1)
	w.local.leaves(t, eip1)
}

// TestLiveOfIPv6: in a world of IPv6, with hosts of either family, nothing differs either; what is
// lost there is named.
func TestLiveOfIPv6(t *testing.T) {
	for _, rules := range []rulesOf{ownTableShared().ofIPv6(), ownTableShared().withoutIPv4()} {
		t.Run(rules.name, func(t *testing.T) {
			w := newLiveWorld(t, rules)
			w.remote.leaves(t, w.eip(1))
			for _, c := range live.Differ(w.checks(t, w.eip(1))) {
				t.Errorf("of a kernel as planned, %s says of %s: want %q, have %q: %s", c.Host, c.Object, c.Want, c.Have, c.Verdict)
			}
			w.nodes[0].Run(t, "ip -6 rule del priority 90; ip -6 neigh del fe80::4d:2 dev egress0; "+rules.empty(setLocked))
			w.nodes[1].Run(t, "ip -6 address del "+w.eip(1)+"/128 dev eth0")
			differ := live.Differ(w.checks(t, w.eip(1)))
			for _, object := range []string{"of IPv6: ip rule, priority 90", "next hop among the neighbours", "in set egress-locked", "address " + w.eip(1) + " on an interface"} {
				if !slices.ContainsFunc(differ, func(c live.Check) bool { return strings.Contains(c.Object, object) && c.Verdict == live.Missing }) {
					t.Errorf("%s is not named among %v", object, differ)
				}
			}
		})
	}
}
