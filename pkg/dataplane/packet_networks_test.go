package dataplane

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
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
	// switched: pods are behind a switch that is not the host's, and reach it by one port.
	switched bool
	// host is the device to which the addresses of its pods are routed, from which a program
	// delivers packets to their links; "" where there is none.
	host string
	// mask is that of our marks; 0 for the default.
	mask uint32
	// egress is the address with which the CNI itself lets the plain pod leave; "" for its node's.
	egress string
	// overlaps: its marks have bits of ours, and it does not see them on packets that we have
	// marked. alone is the address with which the plain pod leaves then; "" for egress.
	overlaps bool
	alone    string
	// native: it uses no iptables.
	native bool
	// warns are the warnings on the egress host.
	warns []warning.Reason
	// overwrites: it sets whole marks before packets are routed, or translates in chains behind
	// those of iptables, which then do not end it. With rules in iptables, a pod on another
	// node than its egress host loses what it sends to the outside. warnsThen are
	// more warnings with these.
	overwrites bool
	warnsThen  []warning.Reason
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
		{
			name: "Cilium", rarer: true, script: "cilium", settings: "KEEP=yes", link: "lxc", pods: podCIDRs, gateway: "10.244.%d.254", neighbour: true, host: "cilium_host", mask: 0x107f,
		},
		{
			name: "Cilium beside the default marks", rarer: true, script: "cilium", settings: "KEEP=no", link: "lxc", pods: podCIDRs, gateway: "10.244.%d.254", neighbour: true, host: "cilium_host",
			overlaps: true,
			warns:    []warning.Reason{warning.MarksOverlap, warning.MarksOverlap},
		},
		{name: "Antrea", rarer: true, script: "antrea", settings: "MODE=encap", switched: true, pods: podCIDRs, gateway: "10.244.%d.1", warns: []warning.Reason{warning.MarksOverlap}},
		{name: "Antrea with an Egress", rarer: true, script: "antrea", settings: "MODE=egress", switched: true, pods: podCIDRs, gateway: "10.244.%d.1", mask: 0xfff0000, egress: "192.168.7.50"},
		{
			name: "Antrea with an Egress beside the default marks", rarer: true, script: "antrea", settings: "MODE=egress", switched: true, pods: podCIDRs, gateway: "10.244.%d.1",
			egress: "192.168.7.50", overlaps: true, alone: "192.168.7.11",
			warns: []warning.Reason{warning.MarksOverlap},
		},
		{name: "Kube-OVN", rarer: true, script: "kube-ovn", switched: true, pods: podCIDRs, gateway: "10.244.0.1"},
		{
			name: "OVN-Kubernetes with local gateways", rarer: true, script: "ovn-kubernetes", switched: true, pods: [2]string{"10.244.1.8/29", "10.244.2.8/29"}, gateway: "10.244.%d.1",
			mask: 0x3fe00000, overwrites: true, warnsThen: []warning.Reason{warning.ForeignNATFirst, warning.ForeignNATFirst},
		},
		{
			name: "OVN-Kubernetes with local gateways beside the default marks", rarer: true, script: "ovn-kubernetes", switched: true,
			pods: [2]string{"10.244.1.8/29", "10.244.2.8/29"}, gateway: "10.244.%d.1",
			warns: []warning.Reason{warning.MarksOverlap, warning.MarksOverlap}, overwrites: true, warnsThen: []warning.Reason{warning.ForeignNATFirst, warning.ForeignNATFirst},
		},
	}
}

// play does what a function of the stand-in's script does on a node.
func (p podNetwork) play(t *testing.T, n *node, rules rulesOf, function string) {
	t.Helper()
	p.playIn(t, n.machine, n, rules, function)
}

// playIn is play in a machine that belongs to the node.
func (p podNetwork) playIn(t *testing.T, m *machine, n *node, rules rulesOf, function string) {
	t.Helper()
	names := []string{p.script}
	if p.switched {
		names = []string{"switch", p.script}
	}
	var scripts []string
	for _, name := range names {
		script, err := os.ReadFile(filepath.Join("testdata", "networks", name+".sh"))
		must(t, err)
		scripts = append(scripts, string(script))
	}
	m.Run(t, fmt.Sprintf("IPTABLES=%s; N=%d; ADDRESS=%s; GATEWAY=%s; %s\n%s\n%s", rules.iptables(), n.index, n.ip, p.gatewayOf(n), p.settings, strings.Join(scripts, "\n"), function))
}

// gatewayOf is what pods of a node know as their router.
func (p podNetwork) gatewayOf(n *node) string {
	return strings.ReplaceAll(p.gateway, "%d", strconv.Itoa(n.index))
}

// networked is a cluster whose pod network is a stand-in's.
type networked struct {
	*world
	podNetwork
	rules                             rulesOf
	here, there, plain, dropped, away *podMachine
	// switches are the machines by which pods of nodes are connected, where they are switched.
	switches map[*node]*machine
}

func newNetworked(t *testing.T, rules rulesOf, p podNetwork) *networked {
	t.Helper()
	w := &networked{world: newWorld(t, 2, rules), podNetwork: p, rules: rules, switches: map[*node]*machine{}}
	n1, n2 := w.nodes[0], w.nodes[1]
	for _, n := range w.nodes {
		n.pods = netip.MustParsePrefix(p.pods[n.index-1])
		n.state.Subnets, n.state.Strict = []netip.Prefix{n.pods}, true
		for _, pods := range p.pods {
			n.state.Inside = append(n.state.Inside, netip.MustParsePrefix(pods))
		}
		n.Run(t, "ip link delete cni0; "+rules.iptables()+" -t nat -F POSTROUTING")
		if p.mask != 0 {
			n.cfg.Marks.Mask = p.mask
			n.start(t)
		}
		if p.switched {
			w.switches[n] = w.connectSwitch(t, n)
		} else {
			p.play(t, n, rules, "node")
		}
	}
	w.here, w.plain = w.addPod(t, n1, "here", 2), w.addPod(t, n1, "plain", 3)
	w.there, w.dropped, w.away = w.addPod(t, n2, "there", 2), w.addPod(t, n2, "dropped", 3), w.addPod(t, n2, "away", 4)
	for _, m := range []*podMachine{w.away, w.here} {
		m.serveWhoami(t, m.ip.String()+":8080")
	}
	for _, n := range w.nodes {
		n.serveWhoami(t, n.ip.String()+":22")
		if w.switched {
			w.switches[n].Run(t, "iptables-nft -t nat -A PREROUTING -d 10.96.0.10 -p tcp --dport 80 -j DNAT --to-destination "+w.away.ip.String()+":8080")
			continue
		}
		rules.service(t, n, "10.96.0.10", w.away.ip.String()+":8080")
	}
	return w
}

// connectSwitch makes the switch of a node's pods. Their tunnel's packets are the host's own.
func (w *networked) connectSwitch(t *testing.T, n *node) *machine {
	t.Helper()
	s := newMachine(t, "switch-"+n.Name)
	connect(t, s, "host", nil, n.machine, "ovs", nil)
	w.play(t, n, w.rules, "node")
	h := n.Handle(t)
	tunnel, err := h.LinkByName("tunnel")
	must(t, err)
	must(t, h.LinkSetNsFd(tunnel, int(s.NS)))
	w.playIn(t, s, n, w.rules, "switch")
	return s
}

// addPod makes a pod whose only neighbour is its node, or the switch there, as these CNIs do.
func (w *networked) addPod(t *testing.T, n *node, name string, last int) *podMachine {
	t.Helper()
	a := n.pods.Addr().As4()
	a[3] += byte(last)
	p := &podMachine{machine: newMachine(t, name), node: n, ip: netip.AddrFrom4(a)}
	link, at := w.link+name, n.machine
	if w.switched {
		at = w.switches[n]
	}
	connect(t, p.machine, "eth0", []string{p.ip.String() + "/32"}, at, link, nil)
	p.Run(t, fmt.Sprintf("ip route add %[1]s dev eth0; ip route add default via %[1]s", w.gatewayOf(n)))
	if w.switched {
		p.Run(t, "ip link set eth0 mtu 1450")
	}
	if w.neighbour {
		p.Run(t, "ip neigh replace "+w.gatewayOf(n)+" dev eth0 lladdr "+strings.TrimSpace(n.Run(t, "ip -o link show dev "+link+" | sed 's/.*link.ether //; s/ .*//'")))
	}
	w.playIn(t, at, n, w.rules, "pod "+link+" "+p.ip.String())
	if w.host != "" {
		n.delivers(t, w.host, link, p.ip)
	}
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
	plain := n1.ip.String()
	if w.egress != "" {
		plain = w.egress
	}
	plainWithUs := plain
	if w.alone != "" {
		plainWithUs = w.alone
	}
	for _, n := range w.nodes {
		w.play(t, n, w.rules, "again")
	}
	inside := w.inside(t)
	withUs := slices.Clone(inside)
	if w.overlaps && w.host != "" {
		// The CNI lets a pod that reaches one of its node by a translated address be seen as
		// its router, for the way back, and knows such packets by their marks.
		for i, p := range map[int]*podMachine{len(inside) - 3: w.there, len(inside) - 1: w.dropped} {
			withUs[i] = fmt.Sprintf("%s at 10.96.0.10:80: %v", p.Name, p.ip)
		}
	}
	objects := []string{n1.objectsOfOthers(t), n2.objectsOfOthers(t)}
	unchanged := func(when string, inside []string) {
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
		{pod: w.plain, way: Pod{Kind: Node}, source: []string{plainWithUs}},
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
	wanted := slices.Clone(w.warns)
	if !w.rules.table() {
		wanted = append(wanted, w.warnsThen...)
	}
	slices.Sort(wanted)
	if slices.Sort(reasons); !slices.Equal(reasons, wanted) {
		t.Errorf("warnings, wanted %v:\n%s", wanted, warning.Lines(found))
	}
	unchanged("with us", withUs)

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
	w.seen.only(ofICMP, eip1, plainWithUs, n2.ip.String())
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
	unchanged("after the CNI's passes and ours", withUs)

	// The pods send on, and nobody cares how any more.
	w.seen.says("after us")
	anyone := []string{eip1, plain, n1.ip.String(), n2.ip.String(), "10.1.8.1"}
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
	unchanged("after us", inside)
	w.plain.leaves(t, plain)
	w.there.leaves(t, n2.ip.String())
}
