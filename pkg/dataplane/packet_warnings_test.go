package dataplane

import (
	"maps"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/bpf"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/warning"
)

// warns applies, after a look at everything, and returns the warnings, each of which must name
// an object and a remedy.
func (n *node) warns(t *testing.T) []warning.Warning {
	t.Helper()
	n.dp.outlook.at, n.dp.iptablesAt = 0, -iptablesRest
	r, err := n.tryApply(t)
	must(t, err)
	for _, w := range r.Warnings {
		if w.Object == "" || w.Remedy == "" {
			t.Errorf("without an object or a remedy: %v", w)
		}
	}
	return r.Warnings
}

// warnsOnly expects one warning of the node, with a reason and an object, whose line has some
// parts.
func (n *node) warnsOnly(t *testing.T, reason warning.Reason, object string, parts ...string) {
	t.Helper()
	found := n.warns(t)
	if len(found) != 1 || found[0].Reason != reason || found[0].Object != object {
		t.Errorf("want one warning %s (%s), and there are:\n%s", reason, object, warning.Lines(found))
		return
	}
	for _, part := range parts {
		if !strings.Contains(found[0].String(), part) {
			t.Errorf("does not say %q: %v", part, found[0])
		}
	}
}

// warnsNoMore expects that what a warning was about has gone, and the warning with it.
func (n *node) warnsNoMore(t *testing.T) {
	t.Helper()
	if found := n.warns(t); len(found) > 0 {
		t.Errorf("afterwards:\n%s", warning.Lines(found))
	}
}

// given: a host with pods that leave there and elsewhere; when something of others
// weakens that, then a warning names it; when it has gone, then there is none.
//
// Mutants killed: closed-chains-are-open, named-devices-are-not-seen, own-ways-only.
func TestWarningsNameWhatOthersHave(t *testing.T) {
	w := newWorld(t, 2, ownTable())
	n := w.nodes[0]
	here, there := n.addPod(t, "here", 2), n.addPod(t, "there", 3)
	n.host(eip1, 7)
	here.set(local(eip1, 7))
	there.set(remote(8, w.nodes[1]))
	n.Run(t, `ip link add dum0 type veth peer dum1; ip link set dum1 up; ip address add 172.31.0.2/24 dev dum0; ip link set dum0 up
		ip route add default via 172.31.0.1 dev dum0 table 77`)
	if found := n.warns(t); len(found) > 0 {
		t.Fatalf("at first: %s", warning.Lines(found))
	}
	type reasons map[warning.Reason]string
	const back = "ip route replace default via 192.168.7.1"
	for _, c := range []struct {
		name, begin, end string
		want             reasons // with a part of the line
	}{
		{"forwarding off", "sysctl -qw net.ipv4.ip_forward=0", "sysctl -qw net.ipv4.ip_forward=1", reasons{
			warning.ForwardingOff: "ip_forward is 0, not 1",
		}},
		{"forwarding off at the uplink", "sysctl -qw net.ipv4.conf.eth0.forwarding=0", "sysctl -qw net.ipv4.conf.eth0.forwarding=1", reasons{
			warning.ForwardingOff: "(net.ipv4.conf.eth0.forwarding)",
		}},
		{"forwarding off for new devices", "sysctl -qw net.ipv4.conf.default.forwarding=0", "sysctl -qw net.ipv4.conf.default.forwarding=1", reasons{
			warning.ForwardingOff: "(net.ipv4.conf.default.forwarding)",
		}},
		{"forwarding off at the bridge of pods", "sysctl -qw net.ipv4.conf.cni0.forwarding=0", "sysctl -qw net.ipv4.conf.cni0.forwarding=1", reasons{
			warning.RoutedElsewhere: "(pod 10.244.1.2): the host drops what pod 10.244.1.2 sends",
		}},
		{"no default route", "ip route delete default", back, reasons{warning.NoDefaultRoute: "no default route"}},
		{"default route elsewhere", "ip route replace default via 172.31.0.1 dev dum0", back, reasons{
			warning.DefaultRouteElsewhere: "leads out of dum0, but egress IPs are on eth0", warning.ReversePathFilter: "(net.ipv4.conf.eth0.rp_filter)",
		}},
		{
			"forward policy", `nft 'table inet fw { chain through { type filter hook forward priority 10; policy drop; ct state established accept; }; }'`,
			"nft delete table inet fw",
			reasons{warning.ForwardRejects: "(table inet fw chain through)"},
		},
		{
			"forward rejects at last", `nft 'table ip fw { chain through { type filter hook forward priority 0; iifname "eth7" accept; counter reject; }; }'`,
			"nft delete table ip fw",
			reasons{warning.ForwardRejects: "(table ip fw chain through)"},
		},
		{
			"forward that lets the overlay pass", `nft 'table ip fw { chain more { iifname "egress0" accept; oifname "egress0" accept; }
				chain through { type filter hook forward priority 0; policy drop; jump more; }; }'`,
			"nft delete table ip fw", nil,
		},
		{
			"input policy", `nft 'table inet fw { chain in { type filter hook input priority 0; policy drop; tcp dport 22 accept; udp dport 53 accept; }; }'`,
			"nft delete table inet fw",
			reasons{warning.OverlayPortClosed: "(table inet fw chain in)"},
		},
		{
			"input that opens the port", `nft 'table inet fw { chain in { type filter hook input priority 0; policy drop; udp dport 9700-9800 accept; }; }'`,
			"nft delete table inet fw", nil,
		},
		{
			"input that knows nodes", `nft 'table inet fw { chain in { type filter hook input priority 0; policy drop; ip saddr 192.168.7.0/24 accept; }; }'`,
			"nft delete table inet fw", nil,
		},
		{
			"input of iptables", "iptables-legacy -A INPUT -p tcp --dport 22 -j ACCEPT; iptables-legacy -A INPUT -j DROP", "iptables-legacy -F INPUT",
			reasons{warning.OverlayPortClosed: "(iptables-legacy, table filter, chain INPUT)"},
		},
		{
			"input of iptables that opens the port", "iptables-nft -N ports; iptables-nft -A ports -p udp -m multiport --dports 53,9788:9789 -j ACCEPT; iptables-nft -A INPUT -j ports; iptables-nft -P INPUT DROP",
			"iptables-nft -P INPUT ACCEPT; iptables-nft -F INPUT; iptables-nft -F ports; iptables-nft -X ports", nil,
		},
		{"forward of iptables", "iptables-nft -P FORWARD DROP", "iptables-nft -P FORWARD ACCEPT", nil},
		{"VXLAN", "ip link add vx7 type vxlan id 7 dstport 9789", "ip link delete vx7", reasons{warning.OverlayPortShared: "(device vx7)"}},
		{
			"source NAT before ours", `nft 'table ip cni { chain post { type nat hook postrouting priority 10; ip saddr 198.51.100.0/24 masquerade; }; }'`,
			"nft delete table ip cni",
			reasons{warning.ForeignNATFirst: "(table ip cni chain post)"},
		},
		{
			"source NAT behind ours", `nft 'table ip cni { chain post { type nat hook postrouting priority srcnat; masquerade random; }; }'`,
			"nft delete table ip cni", nil,
		},
		{
			"source routing", "ip rule add from " + here.ip.String() + " lookup 77 priority 512", "ip rule delete priority 512",
			reasons{warning.RoutedElsewhere: "(ip rule 512: from 10.244.1.2/32 lookup 77): what pod 10.244.1.2 sends to the outside would leave by dum0, not by eth0"},
		},
		{
			"source routing before ours", "ip rule add from " + there.ip.String() + " lookup 77 priority 12", "ip rule delete priority 12",
			reasons{warning.RoutedElsewhere: "would leave by dum0, not by egress0"},
		},
		{
			"marks of WireGuard", "ip rule add not fwmark 0xca6c lookup 51820 priority 32764", "ip rule delete priority 32764",
			reasons{warning.MarksOverlap: "(ip rule 32764: fwmark 0xca6c/0xffffffff lookup 51820)"},
		},
		{"marks that do not overlap", "ip rule add fwmark 0x4000/0x4000 lookup 51820 priority 32764; ip rule add fwmark 0x10000 lookup 9 priority 32765", "ip rule delete priority 32764; ip rule delete priority 32765", nil},
		{"marks of Cilium", "ip link add cilium_host type bridge", "ip link delete cilium_host", reasons{warning.MarksOverlap: "(device cilium_host): Cilium uses the bits"}},
		{"marks of Antrea", "ip link add antrea-gw0 type bridge", "ip link delete antrea-gw0", reasons{warning.MarksOverlap: "(device antrea-gw0): Antrea uses the bits"}},
		{"tc filter", "tc qdisc add dev eth0 clsact; tc filter add dev eth0 egress prio 1 protocol ip u32 match u32 0 0 flowid 1:1", "tc filter delete dev eth0 egress prio 1", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			n.Run(t, c.begin)
			found := n.warns(t)
			n.Run(t, c.end)
			missing := maps.Clone(c.want)
			for _, w := range found {
				part, wanted := c.want[w.Reason]
				if !wanted {
					t.Errorf("not wanted: %v", w)
				}
				if strings.Contains(w.String(), part) {
					delete(missing, w.Reason)
				}
			}
			if len(missing) > 0 {
				t.Errorf("missing: %v in\n%s", missing, warning.Lines(found))
			}
			if left := n.warns(t); len(left) > 0 {
				t.Errorf("afterwards: %s", warning.Lines(left))
			}
		})
	}
	n.settled(t)
}

// given: rules in one backend of iptables, and a chain of the other that drops what it does
// not know; then a warning names it.
func TestWarningOfTheOtherBackend(t *testing.T) {
	w := newWorld(t, 1, onlyLegacy())
	n := w.nodes[0]
	n.Run(t, "iptables-nft -P FORWARD DROP")
	if found := n.warns(t); len(found) != 1 || found[0].Reason != warning.ForwardRejects || found[0].Object != "iptables-nft, table filter, chain FORWARD" {
		t.Errorf("warnings: %s", warning.Lines(found))
	}
	n.Run(t, "iptables-nft -P FORWARD ACCEPT; iptables-legacy -P FORWARD DROP")
	if found := n.warns(t); len(found) > 0 {
		t.Errorf("afterwards: %s", warning.Lines(found))
	}
}

// given: a tc filter of others, on a kernel without TCX, that accepts packets before the
// guard sees them; then a warning names it.
func TestWarningOfAFilterBeforeTheGuard(t *testing.T) {
	w := newWorld(t, 1, ownTable())
	n := w.nodes[0]
	n.host(eip1, 7)
	n.dp.guard = bpf.OldGuard()
	n.Run(t, "tc qdisc add dev eth0 clsact; tc filter add dev eth0 egress prio 1 protocol ip u32 match u32 0 0 flowid 1:1")
	n.warnsOnly(t, warning.FilterFirst, "device eth0", "preference 1 at the egress of eth0", "a preference above 77")
	n.Run(t, "tc filter delete dev eth0 egress prio 1")
	n.warnsNoMore(t)
}

// What is not ours to change stays as it is, and nothing is read while nothing changes.
func TestLookingChangesNothing(t *testing.T) {
	w := newWorld(t, 1, ownTable())
	n := w.nodes[0]
	n.apply(t)
	n.Run(t, "sysctl -qw net.ipv4.ip_forward=0; ip rule add fwmark 0x1000 lookup 9")
	before := n.Run(t, "nft -s list ruleset; ip rule; cat /proc/sys/net/ipv4/ip_forward")
	for range 2 {
		if found := n.warns(t); len(found) != 2 {
			t.Errorf("warnings: %s", warning.Lines(found))
		}
	}
	if after := n.Run(t, "nft -s list ruleset; ip rule; cat /proc/sys/net/ipv4/ip_forward"); after != before {
		t.Errorf("changed (-before +after):\n%s", cmp.Diff(before, after))
	}
	// A look that is not due finds what the last one found.
	n.Run(t, "ip rule delete fwmark 0x1000")
	if found := n.apply(t).Warnings; len(found) != 2 {
		t.Errorf("a moment later: %s", warning.Lines(found))
	}
	n.dp.changed.Store(true)
	n.dp.outlook.at -= lookSoon
	if found := n.apply(t).Warnings; len(found) != 1 {
		t.Errorf("after a change: %s", warning.Lines(found))
	}
}

// given: a host with rules in iptables; when kube-router is there, which writes to sets of
// others, then a warning says so; with rules in a table of their own there is none.
//
// Mutant killed: kube-router-is-not-seen.
func TestWarningOfRestoredSets(t *testing.T) {
	for name, c := range map[string]struct {
		rules rulesOf
		warns bool
	}{"iptables": {onlyNFT(), true}, "table": {ownTable(), false}} {
		t.Run(name, func(t *testing.T) {
			n := newWorld(t, 1, c.rules).nodes[0]
			if found := n.warns(t); len(found) > 0 {
				t.Fatalf("at first: %s", warning.Lines(found))
			}
			n.Run(t, "ipset create kube-router-pod-subnets hash:net timeout 0")
			found := n.warns(t)
			if warns := len(found) == 1 && found[0].Reason == warning.SetsRestored; warns != c.warns || !warns && len(found) > 0 {
				t.Errorf("with sets of kube-router: %s", warning.Lines(found))
			}
			n.Run(t, "ipset destroy kube-router-pod-subnets")
			if found := n.warns(t); len(found) > 0 {
				t.Errorf("afterwards: %s", warning.Lines(found))
			}
		})
	}
}
