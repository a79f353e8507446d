package dataplane

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/warning"
)

// podNetwork is a stand-in for a CNI that does not run here: what it has on a node, as a
// script of shell functions. node sets a node up, pod adds the pod at LINK with ADDRESS,
// and again is what the CNI does from time to time to have its rules as it wants them.
type podNetwork struct {
	name, script string
	// settings are those of the script, as assignments.
	settings string
	// link begins the names of the nodes' links to pods.
	link string
	// pods are the addresses of pods on each node, and gateway is what they know as their
	// router. neighbour: they know its link-layer address, and do not ask for it.
	pods      [2]string
	gateway   string
	neighbour bool
	// native: it uses no iptables.
	native bool
	// warns are the warnings on the egress host.
	warns []warning.Reason
	// overwrites: it sets whole marks before packets are routed. With rules in iptables, which
	// come before its own, a pod on another node than its egress host loses what it sends to
	// the outside.
	overwrites bool
	// rarer: it is played with the whole matrix only.
	rarer bool
}

func podNetworks() []podNetwork {
	podCIDRs, blocks := [2]string{"10.244.1.0/24", "10.244.2.0/24"}, [2]string{"10.244.1.0/26", "10.244.2.0/26"}
	ofVPC := [2]string{"192.168.7.128/27", "192.168.7.160/27"}
	const linkLocal = "169.254.1.1"
	return []podNetwork{
		{name: "Calico that inserts", script: "calico", settings: "MODE=insert", link: "cali", pods: blocks, gateway: linkLocal},
		{name: "Calico that appends", script: "calico", settings: "MODE=append", link: "cali", pods: blocks, gateway: linkLocal, rarer: true},
		{name: "Calico with nftables", script: "calico-nftables", link: "cali", pods: blocks, gateway: linkLocal, native: true},
		{name: "kindnet", script: "kindnet", link: "knet", pods: podCIDRs, gateway: "10.244.255.1", native: true, rarer: true},
		{
			name: "AWS VPC CNI with iptables", rarer: true, script: "aws-vpc", settings: "CONNMARK=iptables", link: "eni", pods: ofVPC, gateway: linkLocal, neighbour: true,
			warns: []warning.Reason{warning.RoutedElsewhere},
		},
		{
			name: "AWS VPC CNI with nftables", script: "aws-vpc", settings: "CONNMARK=nftables", link: "eni", pods: ofVPC, gateway: linkLocal, neighbour: true,
			overwrites: true,
			warns:      []warning.Reason{warning.RoutedElsewhere},
		},
	}
}

// play does what a function of the stand-in's script does on a node.
func (p podNetwork) play(t *testing.T, n *node, rules rulesOf, function string) {
	t.Helper()
	script, err := os.ReadFile(filepath.Join("testdata", "networks", p.script+".sh"))
	must(t, err)
	n.Run(t, fmt.Sprintf("IPTABLES=%s; N=%d; ADDRESS=%s; GATEWAY=%s; %s\n%s\n%s", rules.iptables(), n.index, n.ip, p.gateway, p.settings, script, function))
}

// networked is a cluster whose pod network is a stand-in's.
type networked struct {
	*world
	podNetwork
	rules                             rulesOf
	here, there, plain, dropped, away *podMachine
}

func newNetworked(t *testing.T, rules rulesOf, p podNetwork) *networked {
	t.Helper()
	w := &networked{world: newWorld(t, 2, rules), podNetwork: p, rules: rules}
	n1, n2 := w.nodes[0], w.nodes[1]
	for _, n := range w.nodes {
		n.pods = netip.MustParsePrefix(p.pods[n.index-1])
		n.state.Subnets, n.state.Strict = []netip.Prefix{n.pods}, true
		for _, pods := range p.pods {
			n.state.Inside = append(n.state.Inside, netip.MustParsePrefix(pods))
		}
		n.Run(t, "ip link delete cni0; "+rules.iptables()+" -t nat -F POSTROUTING")
		p.play(t, n, rules, "node")
	}
	w.here, w.plain = w.addPod(t, n1, "here", 2), w.addPod(t, n1, "plain", 3)
	w.there, w.dropped, w.away = w.addPod(t, n2, "there", 2), w.addPod(t, n2, "dropped", 3), w.addPod(t, n2, "away", 4)
	for _, m := range []*podMachine{w.away, w.here} {
		m.serveWhoami(t, m.ip.String()+":8080")
	}
	for _, n := range w.nodes {
		n.serveWhoami(t, n.ip.String()+":22")
		rules.service(t, n, "10.96.0.10", w.away.ip.String()+":8080")
	}
	return w
}

// addPod makes a pod whose only neighbour is its node, as these CNIs do.
func (w *networked) addPod(t *testing.T, n *node, name string, last int) *podMachine {
	t.Helper()
	a := n.pods.Addr().As4()
	a[3] += byte(last)
	p := &podMachine{machine: newMachine(t, name), node: n, ip: netip.AddrFrom4(a)}
	link := w.link + name
	connect(t, p.machine, "eth0", []string{p.ip.String() + "/32"}, n.machine, link, nil)
	p.Run(t, fmt.Sprintf("ip route add %[1]s dev eth0; ip route add default via %[1]s", w.gateway))
	if w.neighbour {
		p.Run(t, "ip neigh replace "+w.gateway+" dev eth0 lladdr "+strings.TrimSpace(n.Run(t, "ip -o link show dev "+link+" | sed 's/.*link.ether //; s/ .*//'")))
	}
	w.play(t, n, w.rules, "pod "+link+" "+p.ip.String())
	return p
}

// inside lists, for each connection inside the cluster, which address its server sees.
func (w *networked) inside(t *testing.T) (seen []string) {
	t.Helper()
	n1, n2 := w.nodes[0], w.nodes[1]
	pods := []*machine{w.here.machine, w.there.machine, w.plain.machine, w.dropped.machine}
	ask := func(to string, from ...*machine) {
		for _, m := range from {
			source, err := m.whoami(t, to)
			if err != nil {
				source = "nobody"
			}
			seen = append(seen, fmt.Sprintf("%s at %s: %s", m.Name, to, source))
		}
	}
	for _, to := range []string{w.away.ip.String() + ":8080", w.here.ip.String() + ":8080", n1.ip.String() + ":22", n2.ip.String() + ":22"} {
		ask(to, append(pods, n1.machine, n2.machine)...)
	}
	ask("10.96.0.10:80", pods...)
	return seen
}

// objectsOfOthers are those of a node that are not ours.
func (n *node) objectsOfOthers(t *testing.T) string {
	t.Helper()
	return n.rulesOfOthers(t) + n.Run(t, `ipset save | grep -v egress- || true
		ip rule | grep -v 'proto 77'
		ip -4 route show table all | grep -v -e egress0 -e ' table 200[01]' -e '192\.168\.7\.20' | sort
		ip -4 -o address | grep -v -e '192\.168\.7\.20' -e egress0 | sed 's/valid_lft.*//'
		sysctl net.ipv4.conf net.ipv4.neigh 2>/dev/null | grep -v egress0 | grep `+"'rp_filter\\|proxy\\|localnet\\|forwarding\\|valid_mark'")
}

// given: nodes with the rules, routes and settings of a CNI, as far as packets meet them; then pods with egress IPs, on
// their host and elsewhere, leave with them and get answers, others with their node's
// address, and none of it with another source while the CNI puts its rules where it wants
// them again and again; inside the cluster everybody is seen as before; and all that the CNI
// has is as it was, with us and after us.
//
// Mutant killed: source-nat-behind-others.
func TestPodNetworksOfOthers(t *testing.T) {
	for _, p := range podNetworks() {
		for _, rules := range p.backends() {
			t.Run(p.name+"/"+rules.name, func(t *testing.T) {
				newNetworked(t, rules, p).plays(t)
			})
		}
	}
}

// backends are where the stand-in's rules are, and ours.
func (p podNetwork) backends() []rulesOf {
	switch {
	case matrix() == legacyAlone, p.rarer && !wholeMatrix():
		return nil
	case wholeMatrix() && !p.native:
		return []rulesOf{ownTable(), ownTableLegacy(), onlyNFT(), onlyLegacy()}
	default:
		return []rulesOf{ownTable()}
	}
}

func (w *networked) losesThere() bool { return w.overwrites && !w.rules.table() }

func (w *networked) plays(t *testing.T) {
	t.Helper()
	n1, n2 := w.nodes[0], w.nodes[1]
	for _, n := range w.nodes {
		w.play(t, n, w.rules, "again")
	}
	inside := w.inside(t)
	objects := []string{n1.objectsOfOthers(t), n2.objectsOfOthers(t)}
	unchanged := func(when string) {
		t.Helper()
		if diff := cmp.Diff(inside, w.inside(t)); diff != "" {
			t.Errorf("%s: who is seen inside the cluster (-before us +now):\n%s", when, diff)
		}
		for i, n := range w.nodes {
			if diff := cmp.Diff(objects[i], n.objectsOfOthers(t)); diff != "" {
				t.Errorf("%s: what others have on %s (-before us +now):\n%s", when, n.Name, diff)
			}
		}
	}
	ways := []struct {
		pod    *podMachine
		way    Pod
		source []string
		sender *sender
	}{
		{pod: w.here, way: local(eip1, 7), source: []string{eip1}},
		{pod: w.there, way: remote(7, n1), source: []string{eip1}},
		{pod: w.plain, way: Pod{Kind: Node}, source: []string{n1.ip.String()}},
		{pod: w.dropped, way: Pod{Kind: Drop}},
	}
	n1.host(eip1, 7)
	w.away.set(Pod{Kind: Node})
	for _, c := range ways {
		c.pod.set(c.way)
	}
	w.applyAll(t)
	var reasons []warning.Reason
	found := n1.warns(t)
	for _, f := range found {
		reasons = append(reasons, f.Reason)
	}
	if slices.Sort(reasons); !slices.Equal(reasons, w.warns) {
		t.Errorf("warnings, wanted %v:\n%s", w.warns, warning.Lines(found))
	}
	unchanged("with us")

	flow := func() {
		t.Helper()
		for _, c := range ways {
			switch {
			case c.pod == w.there && w.losesThere():
				w.silent(t, c.sender)
			case len(c.source) > 0:
				w.flows(t, c.sender, c.source[0])
			}
		}
	}
	const ofICMP = 0 // the port that a capture notes
	w.seen.only(ofICMP, eip1)
	pings := func() {
		t.Helper()
		before := w.seen.from(ofICMP, eip1)
		senders := []*podMachine{w.here, w.there}
		if w.losesThere() {
			senders = senders[:1]
		}
		for _, p := range senders {
			p.ping(t, bastionIP, 84)
		}
		testenv.UntilWithin(t, patience, "pings come from the egress IP", func() bool { return w.seen.from(ofICMP, eip1) >= before+len(senders) })
	}
	pings()
	// Pods that have closed a socket answer with an error of ICMP, plain ones too.
	w.seen.only(ofICMP, eip1, n1.ip.String(), n2.ip.String())
	for i := range ways {
		port := uint16(9001 + i)
		w.seen.only(port, ways[i].source...)
		ways[i].sender = startSender(t, ways[i].pod, w.bastion, port)
	}
	flow()
	for round := range 4 {
		w.seen.says(fmt.Sprintf("round %d of %s", round, w.name))
		for _, n := range w.nodes {
			w.play(t, n, w.rules, "again")
		}
		for _, n := range w.nodes {
			n.apply(t)
		}
	}
	flow()
	pings()
	w.drain(t)
	unchanged("after the CNI's passes and ours")

	// The pods send on, and nobody cares how any more.
	w.seen.says("after us")
	anyone := []string{eip1, n1.ip.String(), n2.ip.String(), "10.1.8.1"}
	for _, c := range ways {
		anyone = append(anyone, c.pod.ip.String())
	}
	for i := range ways {
		w.seen.only(uint16(9001+i), anyone...)
	}
	w.seen.only(ofICMP, anyone...)
	for _, n := range w.nodes {
		n.Do(t, func() { must(t, n.dp.Cleanup(context.WithoutCancel(t.Context()))) })
		n.stop(t)
	}
	unchanged("after us")
	w.plain.leaves(t, n1.ip.String())
	w.there.leaves(t, n2.ip.String())
}
