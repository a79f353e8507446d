package dataplane

import (
	"flag"
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

// updateGolden is a flag of the test binary, which has no other place for it.
var updateGolden = flag.Bool("update", false, "write the golden files again") //nolint:gochecknoglobals // a flag

// goldenState is a State that is shown whole, as text, in testdata.
type goldenState struct {
	// name of the golden file; what says in a sentence which state it is.
	name, what string
	state      State
	// input has the settings that the rules depend on; the rest follows from state.
	input rules.Params
}

func goldenStates() []goldenState {
	defaults := rules.Params{Marks: DefaultMarks(), Overlay: overlayName, OverlayPort: 9789, ProbePort: 9790, Resets: true, Excluded: true}
	noResets, noProbes, otherMask := defaults, defaults, defaults
	noResets.Resets = false
	noProbes.ProbePort = 0
	otherMask.Marks = Marks{Mask: 0xff0000}

	node := func(change func(*State)) State {
		s := State{
			HostIP:  testenv.Addr("192.168.7.11"),
			Hosts:   []netip.Addr{testenv.Addr("192.168.7.11"), testenv.Addr("192.168.7.12"), testenv.Addr("192.168.7.13")},
			Inside:  []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("10.96.0.0/12")},
			Subnets: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")},
		}
		change(&s)
		return s
	}
	one := func(s *State) {
		s.Hosted = []Hosted{{IP: testenv.Addr("192.168.7.201"), NetID: 7}}
		s.Pods = []Pod{
			{IP: testenv.Addr("10.244.1.2"), Kind: Local, NetID: 7, EgressIP: testenv.Addr("192.168.7.201")},
			{IP: testenv.Addr("10.244.1.3"), Kind: Node},
		}
	}
	return []goldenState{
		{"empty-node", "A node without pods and without egress IPs.", node(func(*State) {}), defaults},
		{"remote-pods", "A node without egress IPs, with pods of network 7 that leave by one egress host, " +
			"pods of network 8 that leave by either of two, and a pod without an egress IP.", node(func(s *State) {
			s.Pods = []Pod{
				{IP: testenv.Addr("10.244.1.2"), Kind: Remote, NetID: 7, Via: []netip.Addr{testenv.Addr("192.168.7.12")}, Sources: []netip.Addr{testenv.Addr("192.168.7.201")}},
				{IP: testenv.Addr("10.244.1.3"), Kind: Remote, NetID: 8, Via: []netip.Addr{testenv.Addr("192.168.7.12"), testenv.Addr("192.168.7.13")}},
				{IP: testenv.Addr("10.244.1.4"), Kind: Node},
			}
		}), defaults},
		{"one-egress-ip", "A host with one egress IP, of network 7, a pod of that network, and a pod without an egress IP.", node(one), defaults},
		{"forty-egress-ips", "A host with 40 egress IPs: too many for one chain, so that their SNAT rules form a tree.", node(func(s *State) {
			for i := range 40 {
				s.Hosted = append(s.Hosted, Hosted{IP: testenv.Addr(fmt.Sprintf("192.168.7.%d", 101+i)), NetID: uint32(101 + i)})
			}
		}), defaults},
		{"standby", "A host with one egress IP, and two that it may have to take over: their rules are there, their addresses are not.", node(func(s *State) {
			one(s)
			s.Standby = []Hosted{{IP: testenv.Addr("192.168.7.202"), NetID: 8}, {IP: testenv.Addr("192.168.7.203"), NetID: 9}}
		}), defaults},
		{"dropped-namespace", "A node with a pod whose namespace's egress IP is on no host: what it sends outside is dropped.", node(func(s *State) {
			s.Pods = []Pod{{IP: testenv.Addr("10.244.1.2"), Kind: Drop, NetID: 7}, {IP: testenv.Addr("10.244.1.3"), Kind: Node}}
		}), defaults},
		{"strict", "A strict node with two pod networks: what their addresses send outside is dropped until a pod is known to have them.", node(func(s *State) {
			one(s)
			s.Strict = true
			s.Subnets = append(s.Subnets, netip.MustParsePrefix("10.245.1.0/24"))
		}), defaults},
		{"resets-off", "A host with one egress IP that sends no resets to its pods.", node(one), noResets},
		{"probes-off", "A host with one egress IP in a cluster whose hosts do not probe each other.", node(one), noProbes},
		{"other-mark-mask", "A host with one egress IP, and 0xff0000 as the mask of packet marks.", node(one), otherMask},
	}
}

// golden shows what the dataplane makes, in the notation of iptables-save, of a
// State on a host with rules of others.
func (g goldenState) golden(b Backend) string {
	m := g.input.Marks.(Marks)
	observed := desire(State{}, digested(State{}, nil), m, nil)
	observed.rules = map[Backend]iptables.Tables{b: {}}
	for name, chains := range map[rules.Stage]map[string][]string{
		rules.Raw:    {"PREROUTING": nil, "OUTPUT": nil},
		rules.Mangle: {"PREROUTING": nil, "INPUT": nil, "FORWARD": nil, "OUTPUT": nil, "POSTROUTING": nil},
		rules.Filter: {
			"INPUT":   {"-j KUBE-FIREWALL"},
			"FORWARD": {"-j KUBE-FORWARD", "-j REJECT --reject-with icmp-host-prohibited"}, "OUTPUT": nil,
		},
		rules.NAT: {
			"PREROUTING": {"-j KUBE-SERVICES"}, "INPUT": nil, "OUTPUT": {"-j KUBE-SERVICES"},
			"POSTROUTING": {"-j KUBE-POSTROUTING", "-s 10.244.0.0/16 ! -d 10.244.0.0/16 -j MASQUERADE"},
		},
	} {
		observed.rules[b][name] = iptables.Table{Base: chains}
	}

	aimed, problems, _ := aim(g.state, digested(g.state, nil), m, nil, nil, nil)
	if len(problems) > 0 {
		return fmt.Sprint(problems)
	}
	in := g.input
	in.Indices = union(aimed.prepared, aimed.serving)
	in.Strict = strictNetworks(aimed.state)
	for _, c := range order(orderInput{observed: observed, desired: aimed.desired, marks: m, use: []Backend{b}, rules: in}) {
		observed.do(c, func() {})
	}
	return "# " + g.what + "\n" + observed.text(m, b)
}

// text shows a kernel: sets as "ipset save" does, BPF maps and addresses in
// words, and rules as iptables-save does.
func (k kernel) text(m Marks, b Backend) string {
	var out strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&out, format+"\n", args...) }
	line("\n# Addresses of the uplink")
	for _, ip := range sortedAddrs(k.addresses) {
		line("%v", ip)
	}
	line("\n# BPF map egress_hosted: network, mark")
	for _, n := range slices.SortedFunc(maps.Keys(k.served), bpf.Network.Compare) {
		line("%d %#x", n.NetID, k.served[n])
	}
	line("\n# BPF map egress_pods: pod, network, egress hosts, their source addresses")
	for _, ip := range sortedAddrs(k.routes) {
		line("%v %d %v %v", ip, k.routes[ip].NetID, k.routes[ip].Via, k.routes[ip].Sources)
	}
	line("\n# ipset save")
	for _, set := range []struct {
		name    string
		members map[netip.Addr]struct{}
	}{{setHosts, k.hosts}, {setIPs, k.ips}, {setLocked, k.locked}} {
		for _, ip := range sortedAddrs(set.members) {
			line("add %s %v", set.name, ip)
		}
	}
	for _, p := range masked4(slices.Collect(maps.Keys(k.inside))) {
		line("add %s %v", setInside, p)
	}
	for _, ip := range sortedAddrs(k.pods) {
		line("add %s %v skbmark %#x/%#x", setPods, ip, k.pods[ip], m.Mask)
	}
	line("\n# iptables-save")
	for _, name := range rules.Stages() {
		table := k.rules[b][name]
		line("*%s", name)
		for _, chain := range slices.Sorted(maps.Keys(table.Base)) {
			line(":%s ACCEPT [0:0]", chain)
		}
		for _, chain := range slices.Sorted(maps.Keys(table.Own)) {
			line(":%s - [0:0]", chain)
		}
		for _, chains := range []map[string][]string{table.Base, table.Own} {
			for _, chain := range slices.Sorted(maps.Keys(chains)) {
				for _, spec := range chains[chain] {
					line("-A %s %s", chain, spec)
				}
			}
		}
		line("COMMIT")
	}
	return out.String()
}

// The files in testdata show, for each of the states, all that the dataplane
// makes in the kernel, and so what a change of the code changes there. Both
// iptables backends get the same. Written again with -update.
//
// Mutant killed: any change of a rule's text.
func TestGolden(t *testing.T) {
	for _, g := range goldenStates() {
		t.Run(g.name, func(t *testing.T) {
			path := filepath.Join("testdata", g.name+".golden")
			got := g.golden(NFT)
			if *updateGolden {
				must(t, os.WriteFile(path, []byte(got), 0o644))
			}
			want, err := os.ReadFile(path)
			must(t, err)
			if got != string(want) {
				t.Errorf("not as in %s (-update writes it again):\n%s", path, firstDifference(string(want), got))
			}
			if legacy := g.golden(Legacy); legacy != got {
				t.Errorf("the backends differ:\n%s", firstDifference(got, legacy))
			}
		})
	}
}

// firstDifference shows the first line in which two texts differ.
func firstDifference(want, got string) string {
	wants, gots := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range max(len(wants), len(gots)) {
		w, g := "(end)", "(end)"
		if i < len(wants) {
			w = wants[i]
		}
		if i < len(gots) {
			g = gots[i]
		}
		if w != g {
			return fmt.Sprintf("line %d\nwant: %s\ngot:  %s", i+1, w, g)
		}
	}
	return "no difference"
}
