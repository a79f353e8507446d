package dataplane

import (
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/bpf"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/iptables"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/rules"
)

// What the dataplane makes of IPv6, as text: of a host that serves both families, the sets and
// maps, and the rules for IPv6, in the words of the model. Written again with -update.
//
// Mutant killed: any change of a rule for IPv6.
func TestGoldenOfBothFamilies(t *testing.T) {
	m := DefaultMarks()
	via, six := testenv.Addr("192.168.7.12"), testenv.Addr("fd00:7::201")
	s := withIPv6(State{
		HostIP: testenv.Addr("192.168.7.11"), Hosts: []netip.Addr{testenv.Addr("192.168.7.11"), via}, Strict: true,
		Inside:  []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd00:10::/32")},
		Subnets: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24"), netip.MustParsePrefix("fd00:10:1::/64")},
		Hosted:  []Hosted{{IP: testenv.Addr("192.168.7.201"), NetID: 7}, {IP: six, NetID: 7}, {IP: testenv.Addr("fd00:7::202"), NetID: 8}},
		Pods: []Pod{
			{IP: testenv.Addr("10.244.1.2"), Kind: Local, NetID: 7, EgressIP: testenv.Addr("192.168.7.201")},
			{IP: testenv.Addr("fd00:10:1::2"), Kind: Local, NetID: 7, EgressIP: six},
			{IP: testenv.Addr("10.244.1.3"), Kind: Drop},
			{IP: testenv.Addr("fd00:10:1::3"), Kind: Remote, NetID: 9, Via: []netip.Addr{via}, Sources: []netip.Addr{testenv.Addr("fd00:7::203")}},
			{IP: testenv.Addr("fd00:10:1::4"), Kind: Refuse},
			{IP: testenv.Addr("fd00:10:1::5"), Kind: Node},
			{IP: testenv.Addr("fd00:10:1::6"), Kind: Local, NetID: 10, EgressIP: testenv.Addr("fd00:7::209")}, // not hosted
		},
	})
	aimed, problems, _ := aim(s, digested(s, nil), m, nil, nil, nil)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	var out strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&out, format+"\n", args...) }
	k := aimed.desired
	line("# A strict host with an egress IP of IPv4 and one of IPv6 for network 7, and one of IPv6 for network 8.\n\n# Addresses of the uplink")
	for _, ip := range sortedAddrs(k.addresses) {
		line("%v", ip)
	}
	line("\n# BPF maps egress_hosted and egress_hosted6: network, mark")
	for _, n := range slices.SortedFunc(maps.Keys(k.served), bpf.Network.Compare) {
		line("%d IPv6=%t %#x", n.NetID, n.IPv6, k.served[n])
	}
	line("\n# BPF maps egress_pods and egress_pods6: pod, network, egress hosts, their source addresses")
	for _, ip := range sortedAddrs(k.routes) {
		line("%v %d %v %v", ip, k.routes[ip].NetID, k.routes[ip].Via, k.routes[ip].Sources)
	}
	line("\n# Sets of pods, with their marks")
	for _, ip := range sortedAddrs(k.pods) {
		line("%s %v %#x", setOf(setPods, ip), ip, k.pods[ip])
	}
	for _, ip := range sortedAddrs(k.locked) {
		line("%s %v", setOf(setLocked, ip), ip)
	}
	line("\n# Rules for IPv6")
	content := rules.Build6(rules.Params{
		Marks: m, Overlay: overlayName, OverlayPort: 9789, ProbePort: 9790, Resets: true, Excluded: true, Senders: true, IPv6: true, Serve6: true, Maps: true,
		Indices: aimed.serving, Strict6: masked6(s.Subnets),
	})
	for _, text := range ruleLines(content) {
		line("%s", text)
	}
	isGolden(t, "both-families", out.String())
}

// What the same rules are in ip6tables, as text.
//
// Mutant killed: any change of such a rule.
func TestGoldenOfIPv6InIPTables(t *testing.T) {
	m := DefaultMarks()
	content := iptables.Render(rules.Build6(rules.Params{
		Marks: m, Overlay: overlayName, OverlayPort: 9789, ProbePort: 9790, Resets: true, Excluded: true, IPv6: true, Serve6: true,
		Indices: indices{testenv.Addr(eip1): m.FirstIndex(), testenv.Addr(eip61): m.FirstIndex() + 1},
		Strict6: []netip.Prefix{netip.MustParsePrefix("fd00:10:1::/64")},
	}))
	var out strings.Builder
	fmt.Fprintln(&out, "# Rules of a strict host with one egress IP of each family, for IPv6.")
	for _, stage := range rules.Stages() {
		fmt.Fprintf(&out, "\n*%s\n", stage)
		for _, j := range content[stage].Jumps {
			fmt.Fprintf(&out, "-A %s -j %s last=%t\n", j.From, j.To, j.Last)
		}
		for _, chain := range slices.Sorted(maps.Keys(content[stage].Chains)) {
			for _, spec := range content[stage].Chains[chain] {
				fmt.Fprintf(&out, "-A %s %s\n", chain, spec)
			}
		}
	}
	isGolden(t, "ipv6-in-iptables", out.String())
}

// ruleLines are rules in the words of the model, one a line.
func ruleLines(content rules.Content) (lines []string) {
	line := func(format string, args ...any) {
		lines = append(lines, strings.ReplaceAll(fmt.Sprintf(format, args...), "-> rules.", "-> "))
	}
	for _, stage := range rules.Stages() {
		for _, j := range content[stage].Jumps {
			line("%s %s: %s last=%t", stage, j.From, j.To, j.Last)
		}
		for _, name := range slices.Sorted(maps.Keys(content[stage].Chains)) {
			for _, r := range content[stage].Chains[name] {
				words := []string{fmt.Sprintf("%s %s:", stage, name)}
				for _, match := range r.Matches {
					words = append(words, fmt.Sprintf("%T%+v", match, match))
				}
				line("%s -> %T%+v", strings.ReplaceAll(strings.Join(words, " "), "rules.", ""), r.Action, r.Action)
			}
		}
	}
	return lines
}

// What hosts with addresses of IPv6 have in addition, as text: the sets of hosts and of what is
// inside, and the rules about what hosts send each other. The rules for IPv4 are the same.
//
// Mutant killed: any change of such a rule.
func TestGoldenOfHostsOfIPv6(t *testing.T) {
	four, one, two := testenv.Addr("192.168.7.13"), testenv.Addr("fd00:7::11"), testenv.Addr("fd00:7::12")
	known := digested(State{HostIP: one, Hosts: []netip.Addr{four, one, two}, Inside: []netip.Prefix{netip.MustParsePrefix("fd00:10::/32")}}, nil)
	var out strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&out, format+"\n", args...) }
	line("# A host with an address of IPv6, another one, and one with an address of IPv4.\n\n# Sets")
	for _, ip := range sortedAddrs(known.hostSet) {
		line("%s %v", setOf(setHosts, ip), ip)
	}
	for _, p := range masked(slices.Collect(maps.Keys(known.inside))) {
		line("%s %v", setOf(setInside, p.Addr()), p)
	}
	line("\n# Rules for IPv6")
	p := rules.Params{
		Marks: DefaultMarks(), Overlay: overlayName, OverlayPort: 9789, ProbePort: 9790, Resets: true, Excluded: true, Senders: true, IPv6: true, Serve6: true, Maps: true,
	}
	before := ruleLines(rules.Build6(p))
	before4 := ruleLines(rules.Build(p))
	p.OverIPv6 = true
	after := ruleLines(rules.Build6(p))
	for _, text := range after {
		if !slices.Contains(before, text) {
			line("%s", text)
		}
	}
	for _, text := range before {
		if !slices.Contains(after, text) {
			t.Errorf("gone: %s", text)
		}
	}
	if !slices.Equal(before4, ruleLines(rules.Build(p))) {
		t.Error("the rules for IPv4 are others")
	}
	isGolden(t, "hosts-of-ipv6", out.String())
}

// isGolden compares a text with a file.
func isGolden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *updateGolden {
		must(t, os.WriteFile(path, []byte(got), 0o644))
	}
	want, err := os.ReadFile(path)
	must(t, err)
	if got != string(want) {
		t.Errorf("not as in %s (-update writes it again):\n%s", path, firstDifference(string(want), got))
	}
}
