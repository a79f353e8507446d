package dataplane

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netns"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/internal/testenv/netnstest"
)

// world is a cluster without Kubernetes, each machine a network namespace:
//
//	pods   pod   pods         10.244.N.2, .3, ... behind bridge cni0
//	 |      |     |
//	n1     n2    n3           192.168.7.1N on a LAN, each with a CNI's
//	 |      |     |           MASQUERADE and strict reverse path filters
//	 +------+-----+--- router ----- bastion
//	              192.168.7.1      10.1.8.72
type world struct {
	lan, router, bastion *machine
	nodes                []*node
	seen                 *capture
}

// node is one host of the cluster and its dataplane.
type node struct {
	*machine
	index int
	ip    netip.Addr
	pods  netip.Prefix
	cfg   Config
	dp    *Dataplane
	state State
	// alone: it has no IPv4.
	alone bool
	// device2 is its interface of the second network; see secondBy.
	device2 string
	// rights are the capabilities that the agent has; nil for all.
	rights []string
}

// podMachine is a pod on a node.
type podMachine struct {
	*machine
	ip netip.Addr
	// ip6 is its IPv6 address, where the test gives it one.
	ip6  netip.Addr
	node *node
}

const (
	bastionIP = "10.1.8.72"
	eip1      = "192.168.7.201"
	eip2      = "192.168.7.202"
	eip3      = "192.168.7.203"
)

// rulesOf says where the rules of others are on a host.
type rulesOf struct {
	name string
	// masquerade are the backends with the CNI's MASQUERADE.
	masquerade []Backend
	// want are the backends that ours are expected in.
	want []Backend
	// native: the CNI has another MASQUERADE in a chain of nftables that comes before
	// those of iptables.
	native bool
	// shared: others can change our table, as with kernels before Linux 6.9.
	shared bool
	// six: pods, egress IPs and the bastion are of IPv6; see ofIPv6. alone: hosts have no IPv4
	// at all; see withoutIPv4.
	six, alone bool
}

// table: ours are in a table of our own.
func (r rulesOf) table() bool { return usesTable(r.want) }

func (r rulesOf) iptables() string { return "iptables-" + string(r.masquerade[0]) }

func onlyNFT() rulesOf { return rulesOf{name: "nft", masquerade: []Backend{NFT}, want: []Backend{NFT}} }

func onlyLegacy() rulesOf {
	return rulesOf{name: "legacy", masquerade: []Backend{Legacy}, want: []Backend{Legacy}}
}

func bothNFTFirst() rulesOf {
	return rulesOf{name: "both, nft first", masquerade: []Backend{NFT, Legacy}, want: []Backend{NFT, Legacy}}
}

func bothLegacyFirst() rulesOf {
	return rulesOf{name: "both, legacy first", masquerade: []Backend{Legacy, NFT}, want: []Backend{NFT, Legacy}}
}

func ownTable() rulesOf {
	return rulesOf{name: "own table beside nft", masquerade: []Backend{NFT}, want: []Backend{NFTables}}
}

func ownTableLegacy() rulesOf {
	return rulesOf{name: "own table beside legacy", masquerade: []Backend{Legacy}, want: []Backend{NFTables}}
}

func ownTableNative() rulesOf {
	return rulesOf{name: "own table beside nftables", masquerade: []Backend{NFT}, want: []Backend{NFTables}, native: true}
}

func ownTableShared() rulesOf {
	r := ownTable()
	r.name, r.shared = "own table without an owner", true
	return r
}

// flush takes the rules out of a chain of ours, or of a whole stage where chain is "".
func (r rulesOf) flush(stage, chain string) string {
	if !r.table() {
		if chain != "" {
			chain = r.named(chain)
		}
		return r.iptablesOfFamily() + " -t " + stage + " -F " + chain
	}
	if chain != "" {
		return "nft flush chain inet egressip " + r.named(strings.ToLower(strings.TrimPrefix(chain, "EGRESSIP-")))
	}
	return "for c in $(nft -a list table inet egressip | awk '$1 == \"chain\" {print $2}' | grep ^" + stage + "-); do nft flush chain inet egressip $c; done"
}

// unjump takes a jump from a hook to our chain of its name away.
func (r rulesOf) unjump(stage, hook string) string {
	if !r.table() {
		return fmt.Sprintf("%s -t %s -D %s -j %s", r.iptablesOfFamily(), stage, hook, r.named("EGRESSIP-"+hook))
	}
	return "nft flush chain inet egressip " + stage + "-" + strings.ToLower(hook)
}

// empty takes all members out of a set.
func (r rulesOf) empty(set string) string {
	if set != setHosts || r.alone { // else hosts have addresses of IPv4
		set = r.named(set)
	}
	switch {
	case !r.table():
		return "ipset flush " + set
	case strings.HasPrefix(set, setPods):
		return "nft flush map inet egressip " + r.named("egress-marks")
	default:
		return "nft flush set inet egressip " + set
	}
}

// list shows the members of a set; next is what follows an address in it.
func (r rulesOf) list(set string) string {
	if r.table() {
		return "nft list set inet egressip " + r.named(set)
	}
	return "ipset list " + r.named(set)
}

func (r rulesOf) next() string {
	if r.table() {
		return " . "
	}
	return ","
}

// Values of EGRESSIP_TEST_MATRIX, which says which ways are tested. By default they are
// those that differ most.
const (
	// everyWay is for "make packet-matrix".
	everyWay = "all"
	// fewWays is one for each of our backends: a slow machine has no time for more.
	fewWays = "few"
	// legacyAlone is the one way on a kernel without nf_tables.
	legacyAlone = "legacy"
)

func matrix() string { return os.Getenv("EGRESSIP_TEST_MATRIX") }

// wholeMatrix reports whether every way is tested.
func wholeMatrix() bool { return matrix() == everyWay }

// allRules are the ways in which the rules of others are on hosts, and ours.
func allRules() []rulesOf {
	switch matrix() {
	case everyWay:
		return []rulesOf{onlyNFT(), onlyLegacy(), bothNFTFirst(), bothLegacyFirst(), ownTable(), ownTableLegacy(), ownTableNative()}
	case fewWays, legacyAlone:
		return someRules()
	default:
		return []rulesOf{onlyNFT(), bothLegacyFirst(), ownTableLegacy()}
	}
}

// someRules are one way for each of our backends.
func someRules() []rulesOf {
	switch matrix() {
	case everyWay:
		return []rulesOf{onlyNFT(), onlyLegacy(), ownTable()}
	case legacyAlone:
		return []rulesOf{onlyLegacy()}
	default:
		return []rulesOf{onlyLegacy(), ownTable()}
	}
}

// openRules are one way for each of our backends, in which others can take away what
// is ours.
func openRules() []rulesOf {
	switch matrix() {
	case everyWay:
		return []rulesOf{onlyNFT(), onlyLegacy(), ownTableShared()}
	case legacyAlone:
		return []rulesOf{onlyLegacy()}
	default:
		return []rulesOf{onlyNFT(), ownTableShared()}
	}
}

// faultRules are those of tests of single faults: the default, and with the whole matrix one
// way for each of our backends.
func faultRules() []rulesOf {
	switch matrix() {
	case everyWay, legacyAlone:
		return someRules()
	default:
		return []rulesOf{ownTable()}
	}
}

// service adds what kube-proxy would for a ClusterIP with one endpoint.
func (r rulesOf) service(t *testing.T, n *node, clusterIP, endpoint string) {
	t.Helper()
	n.Run(t, fmt.Sprintf("%s -t nat -A PREROUTING -d %s -p tcp --dport 80 -j DNAT --to-destination %s", r.iptablesOfFamily(), clusterIP, endpoint))
}

// nodePort is the port of nodes that leads to a service.
const nodePort = 30080

// nodePort adds what kube-proxy would for a NodePort with policy Cluster.
func (r rulesOf) nodePort(t *testing.T, n *node, endpoint string) {
	t.Helper()
	n.Run(t, fmt.Sprintf(`%[1]s -t nat -C POSTROUTING -m mark --mark 0x4000/0x4000 -j MASQUERADE 2>/dev/null ||
			%[1]s -t nat -A POSTROUTING -m mark --mark 0x4000/0x4000 -j MASQUERADE
		%[1]s -t nat -A PREROUTING -d %[2]s -p tcp --dport %[3]d -j MARK --set-xmark 0x4000/0x4000
		%[1]s -t nat -A PREROUTING -d %[2]s -p tcp --dport %[3]d -j DNAT --to-destination %[4]s`, r.iptables(), n.ip, nodePort, endpoint))
}

// nodePortLocal adds what kube-proxy would for one with policy Local.
func (r rulesOf) nodePortLocal(t *testing.T, n *node, port int, endpoint string) {
	t.Helper()
	n.Run(t, fmt.Sprintf("%s -t nat -A PREROUTING -d %s -p tcp --dport %d -j DNAT --to-destination %s", r.iptables(), n.ip, port, endpoint))
}

func newWorld(t *testing.T, nodes int, rules rulesOf) *world {
	t.Helper()
	w := &world{lan: newMachine(t, "lan"), router: newMachine(t, "router"), bastion: newMachine(t, "bastion")}
	w.lan.Run(t, "ip link add br0 type bridge; ip link set br0 up")
	w.plug(t, w.router, "192.168.7.1/24")
	connect(t, w.router, "eth1", []string{"10.1.8.1/24"}, w.bastion, "eth0", []string{bastionIP + "/24"})
	w.router.Run(t, "sysctl -qw net.ipv4.ip_forward=1")
	w.bastion.Run(t, "ip route add default via 10.1.8.1")
	for i := 1; i <= nodes; i++ {
		w.addNode(t, i, nodes, rules)
	}
	w.seen = newCapture(t, w.bastion, "eth0")
	w.bastion.serveWhoami(t, bastionIP+":8080")
	if rules.six {
		w.turnToIPv6(t, rules)
	}
	if rules.alone {
		w.takeIPv4(t)
	}
	return w
}

// plug connects a machine's eth0 to the LAN.
func (w *world) plug(t *testing.T, m *machine, addr string) {
	t.Helper()
	port := "p-" + m.Name
	connect(t, m, "eth0", []string{addr}, w.lan, port, nil)
	w.lan.Run(t, "ip link set "+port+" master br0")
}

func (w *world) addNode(t *testing.T, i, nodes int, rules rulesOf) {
	t.Helper()
	n := &node{
		machine: newMachine(t, fmt.Sprintf("n%d", i)),
		index:   i,
		ip:      testenv.Addr(fmt.Sprintf("192.168.7.%d", 10+i)),
		pods:    netip.MustParsePrefix(fmt.Sprintf("10.244.%d.0/24", i)),
		device2: "eth1",
		cfg:     Config{PinDir: netnstest.PinDir(t), IPTables: !rules.table(), shared: rules.shared},
	}
	w.plug(t, n.machine, n.ip.String()+"/24")
	// CNIs give their bridge a MAC address of its own, too. One without takes the lowest of
	// its ports: each new pod may change it, and others send to the former for half a minute.
	n.Run(t, `ip route add default via 192.168.7.1
		sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.default.rp_filter=1 net.ipv4.conf.eth0.rp_filter=1
		sysctl -qw net.bridge.bridge-nf-call-iptables=1
		ip link add cni0 address `+fmt.Sprintf("0a:58:0a:f4:%02x:01", i)+` type bridge; ip link set cni0 up; ip address add `+n.gateway()+`/24 dev cni0`)
	for o := 1; o <= nodes; o++ {
		if o != i {
			n.Run(t, fmt.Sprintf("ip route add 10.244.%d.0/24 via 192.168.7.%d", o, 10+o))
		}
	}
	for _, b := range rules.masquerade {
		n.Run(t, fmt.Sprintf("iptables-%s -t nat -A POSTROUTING -s 10.244.0.0/16 ! -d 10.244.0.0/16 -j MASQUERADE", b))
	}
	if rules.native {
		n.Run(t, `nft add table ip cni; nft 'add chain ip cni post { type nat hook postrouting priority 99; }'
			nft add rule ip cni post ip saddr 10.244.0.0/16 ip daddr != 10.244.0.0/16 masquerade`)
	}
	// As kube-proxy has it: NAT never touches such packets.
	n.Run(t, rules.iptables()+" -A FORWARD -m conntrack --ctstate INVALID -j DROP")
	n.state = State{HostIP: n.ip, Inside: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("10.96.0.0/16"), netip.MustParsePrefix("169.254.0.0/16")}, Subnets: []netip.Prefix{n.pods}}
	for o := 1; o <= nodes; o++ {
		n.state.Hosts = append(n.state.Hosts, testenv.Addr(fmt.Sprintf("192.168.7.%d", 10+o)))
	}
	w.nodes = append(w.nodes, n)
	n.start(t)
	t.Cleanup(func() {
		if n.dp != nil {
			must(t, n.dp.Close())
		}
	})
}

func (n *node) gateway() string { return fmt.Sprintf("10.244.%d.1", n.index) }

// start begins the life of an agent on the node; the one before has died.
func (n *node) start(t *testing.T) {
	t.Helper()
	n.stop(t)
	n.act(t, func() {
		dp, err := New(n.cfg)
		if err != nil {
			t.Fatal(err)
		}
		n.dp = dp
	})
}

// act does what the agent does, with its rights.
func (n *node) act(t *testing.T, f func()) {
	t.Helper()
	n.Do(t, func() {
		if n.rights != nil {
			must(t, confine(n.rights))
		}
		f()
	})
}

// stop ends the life of the agent on the node.
func (n *node) stop(t *testing.T) {
	t.Helper()
	if n.dp != nil {
		must(t, n.dp.Close())
		n.dp = nil
	}
}

// addPod makes a pod on the node, with no way of ours as yet.
func (n *node) addPod(t *testing.T, name string, last int) *podMachine {
	t.Helper()
	p := &podMachine{machine: newMachine(t, name), node: n, ip: testenv.Addr(fmt.Sprintf("10.244.%d.%d", n.index, last))}
	connect(t, p.machine, "eth0", []string{p.ip.String() + "/24"}, n.machine, "v-"+name, nil)
	n.Run(t, "ip link set v-"+name+" master cni0; bridge link set dev v-"+name+" hairpin on")
	p.Run(t, "ip route add default via "+n.gateway())
	if n.six {
		p.addIPv6(t)
		p.six, p.ip = true, p.ip6
	}
	if n.alone {
		p.Run(t, "ip -4 address flush dev eth0")
	}
	return p
}

// addStranger makes a pod with an address in a network that nobody but its own node has a
// route to, or knows.
func (n *node) addStranger(t *testing.T, name string) *podMachine {
	t.Helper()
	p := &podMachine{machine: newMachine(t, name), node: n, ip: testenv.Addr(fmt.Sprintf("10.77.%d.2", n.index))}
	connect(t, p.machine, "eth0", []string{p.ip.String() + "/32"}, n.machine, "v-"+name, nil)
	n.Run(t, fmt.Sprintf("ip route add %s dev v-%s; sysctl -qw net.ipv4.conf.v-%s.proxy_arp=1", p.ip, name, name))
	p.Run(t, "ip route add 169.254.1.1 dev eth0; ip route add default via 169.254.1.1")
	if n.six {
		p.ip6 = testenv.Addr(fmt.Sprintf("fd00:77:%d::2", n.index))
		n.Run(t, fmt.Sprintf("ip address add fe80::1/64 dev v-%s nodad; ip route add %v dev v-%[1]s", name, p.ip6))
		p.Run(t, fmt.Sprintf("ip address add %v/128 dev eth0 nodad; ip -6 route add default via fe80::1 dev eth0", p.ip6))
		p.six, p.ip = true, p.ip6
	}
	return p
}

// enter moves the calling thread into the machine.
func (m *machine) enter() error { return netns.Set(m.NS) }

// apply makes the node's kernel do what its state says, and expects success.
func (n *node) apply(t *testing.T) Report {
	t.Helper()
	r, err := n.tryApply(t)
	if err != nil {
		t.Fatalf("apply on %s: %v", n.Name, err)
	}
	automatic := len(n.cfg.Backends) == 0 && !n.cfg.IPTables && matrix() != legacyAlone
	if automatic && !usesTable(r.Backends) {
		t.Fatalf("apply on %s: rules are in %v: %s", n.Name, r.Backends, r.BackendReason)
	}
	for _, h := range r.Hosted {
		if !h.Configured {
			t.Fatalf("apply on %s: egress IP %v is not configured: %s", n.Name, h.IP, h.Error)
		}
	}
	return r
}

func (n *node) tryApply(t *testing.T) (r Report, err error) {
	t.Helper()
	n.act(t, func() { r, err = n.dp.Apply(context.WithoutCancel(t.Context()), n.state) })
	return r, err
}

// settled expects that another Apply changes nothing.
func (n *node) settled(t *testing.T) {
	t.Helper()
	n.dp.nft.Forget()
	if r := n.apply(t); r.Changes != 0 {
		t.Fatalf("a second Apply on %s made %d changes", n.Name, r.Changes)
	}
}

// host gives the node an egress IP for a network, or takes it away.
func (n *node) host(ip string, netID uint32) {
	n.state.Hosted = append(n.state.Hosted, Hosted{IP: testenv.Addr(ip), NetID: netID})
}

func (n *node) unhost(ip string) {
	n.state.Hosted = slices.DeleteFunc(n.state.Hosted, func(h Hosted) bool { return h.IP == testenv.Addr(ip) })
}

// set gives a pod its way in its node's state.
func (p *podMachine) set(way Pod) {
	way.IP = p.ip
	p.unset()
	p.node.state.Pods = append(p.node.state.Pods, way)
}

func (p *podMachine) unset() {
	p.node.state.Pods = slices.DeleteFunc(p.node.state.Pods, func(o Pod) bool { return o.IP == p.ip })
}

func local(ip string, netID uint32) Pod {
	return Pod{Kind: Local, EgressIP: testenv.Addr(ip), NetID: netID}
}

func remote(netID uint32, via ...*node) Pod {
	p := Pod{Kind: Remote, NetID: netID}
	for _, n := range via {
		p.Via = append(p.Via, n.ip)
	}
	return p
}

// applyAll applies on all nodes.
func (w *world) applyAll(t *testing.T) {
	t.Helper()
	for _, n := range w.nodes {
		n.apply(t)
	}
}

// leaves expects that a machine's connection to the bastion comes from want.
func (m *machine) leaves(t *testing.T, want string) {
	t.Helper()
	got, err := m.whoami(t, m.outside(8080))
	if err != nil {
		t.Fatalf("%s to the bastion, expected from %s: %v", m.Name, want, err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("%s left with another source (-want +got):\n%s", m.Name, diff)
	}
}
