package dataplane

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
)

// Egress IPs of the second network of hosts, and its gateway.
const (
	further1 = "172.16.5.201"
	gateway2 = "172.16.5.1"
)

// secondNetwork is how hosts are connected to a second network.
type secondNetwork struct {
	name string
	// device is the host's interface there; it can be found by interfaces.
	device     string
	interfaces []string
	// parent is what the interface is a VLAN of, and port the port of the switch there; both
	// are empty if it is none. NAME is the host's name.
	parent, port string
	// connects: the parent is another one than the uplink, which is connected, too.
	connects bool
}

// plainSecond is a second interface, eth1.
func plainSecond() secondNetwork {
	return secondNetwork{name: "an interface", device: "eth1", interfaces: []string{"eth*"}}
}

// second connects the nodes' eth1 to a second network.
func (w *world) second(t *testing.T) (lan1, lan2 *capture) {
	t.Helper()
	return w.secondBy(t, plainSecond())
}

// secondBy connects the nodes to a second LAN, 172.16.5.0/24, and the router, which takes
// packets with its addresses from there alone. All reverse path filters are strict. It returns
// what comes to the router from the first LAN and from the second: nothing but what the test
// says.
func (w *world) secondBy(t *testing.T, kind secondNetwork) (lan1, lan2 *capture) {
	t.Helper()
	w.lan.Run(t, "ip link add br1 type bridge; ip link set br1 up")
	plug := func(m *machine, device, addr, addr6 string) {
		port := "q-" + m.Name
		connect(t, m, device, []string{addr}, w.lan, port, nil)
		w.lan.Run(t, "ip link set "+port+" master br1")
		if m.six {
			m.Run(t, fmt.Sprintf("ip address add %s dev %s nodad", addr6, device))
		}
	}
	plug(w.router, "eth2", gateway2+"/24", "fd00:5::1/64")
	for _, n := range w.nodes {
		addr, addr6 := fmt.Sprintf("172.16.5.1%d/24", n.index), fmt.Sprintf("fd00:5::1%d/64", n.index)
		if kind.parent == "" {
			plug(n.machine, kind.device, addr, addr6)
		} else {
			kind.tag(t, w, n, addr, addr6)
		}
		n.Run(t, fmt.Sprintf("sysctl -qw net/ipv4/conf/%[1]s/rp_filter=1; ip route add default via 172.16.5.1 dev %[1]s metric 200", kind.device))
		n.cfg.Interfaces, n.device2 = kind.interfaces, kind.device
		n.start(t)
	}
	w.router.Run(t, "sysctl -qw net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.eth0.rp_filter=1 net.ipv4.conf.eth2.rp_filter=1")
	ethertype := uint16(unix.ETH_P_IP)
	if w.router.six {
		ethertype = unix.ETH_P_IPV6
	}
	return newCaptureOf(t, w.router, "eth0", ethertype), newCaptureOf(t, w.router, "eth2", ethertype)
}

// further returns an egress IP of the second network, and the gateway there.
func (w *world) further() (ip, gateway string) {
	if w.router.six {
		return "fd00:5::201", "fd00:5::1"
	}
	return further1, gateway2
}

// hostFurther gives the node an egress IP of its interface of the second network.
func (n *node) hostFurther(ip, gateway string, netID uint32) {
	h := Hosted{IP: testenv.Addr(ip), NetID: netID, Interface: n.device2}
	if gateway != "" {
		h.Gateway = testenv.Addr(gateway)
	}
	n.state.Hosted = append(n.state.Hosted, h)
}

// furtherRules are one way for each of our backends.
func furtherRules() []rulesOf {
	switch matrix() {
	case everyWay, legacyAlone:
		return someRules()
	default:
		return []rulesOf{ownTable(), onlyNFT(), onlyLegacy(), ownTable().ofIPv6(), onlyNFT().ofIPv6()}
	}
}

// given: hosts with a second interface, of which one has an egress IP, and strict filters
// everywhere; then pods, there and elsewhere, leave with it by that interface and its gateway
// and get answers, all others leave by the uplink as before, and inside the cluster nothing
// changes. After a restart nothing is to do, and in the end all is as it was.
//
// Mutants killed: further-egress-ips-leave-by-the-uplink, filters-stay-strict.
func TestEgressIPOfASecondNetwork(t *testing.T) {
	for _, rules := range furtherRules() {
		t.Run(rules.name, func(t *testing.T) { playSecondNetwork(t, rules, plainSecond()) })
	}
}

// playSecondNetwork is what happens to packets with a second network.
func playSecondNetwork(t *testing.T, rules rulesOf, kind secondNetwork) {
	t.Helper()
	w := newWorld(t, 2, rules)
	lan1, lan2 := w.secondBy(t, kind)
	n1, n2 := w.nodes[0], w.nodes[1]
	further1, gateway2 := w.further()
	eip1, eip2 := w.eip(1), w.eip(2)
	mine, there := n1.addPod(t, "mine", 2), n2.addPod(t, "there", 2)
	first, plain, far := n1.addPod(t, "first", 3), n1.addPod(t, "plain", 4), n1.addPod(t, "far", 5)
	before := n1.objects(t)
	n1.hostFurther(further1, gateway2, 7)
	n1.host(eip1, 8)
	n2.host(eip2, 9)
	mine.set(local(further1, 7))
	there.set(remote(7, n1))
	first.set(local(eip1, 8))
	plain.set(Pod{Kind: Node})
	far.set(remote(9, n2))
	w.applyAll(t)
	for _, n := range w.nodes {
		n.settled(t)
	}
	senders := []struct {
		from interface{ enter() error }
		want string
	}{{mine, further1}, {there, further1}, {first, eip1}, {far, eip2}, {plain, n1.own()}, {n1, n1.own()}}
	check := func(t *testing.T, port uint16) {
		t.Helper()
		for _, s := range senders {
			w.seen.only(port, s.want)
			lan1.only(port, s.want)
			lan2.only(port)
			if s.want == further1 {
				lan1.only(port)
				lan2.only(port, s.want)
			}
			w.flows(t, startSender(t, s.from, w.bastion, port), s.want)
			port++
		}
		if rules.six {
			mine.ping6(t, 1500)
			there.ping6(t, 1300)
			return
		}
		mine.ping(t, bastionIP, 1500)
		there.ping(t, bastionIP, 1300)
		mine.ping(t, gateway2, 1300)
		mine.ping(t, there.ip.String(), 1300)
		there.ping(t, mine.ip.String(), 1300)
		plain.ping(t, mine.ip.String(), 1300)
		mine.ping(t, n2.ip.String(), 1300)
	}
	t.Run("packets", func(t *testing.T) { check(t, 9001) })
	if at := n1.guards(t); at != "eth0 "+kind.device {
		t.Errorf("guards at %s", at)
	}
	if got := strings.TrimSpace(n1.Run(t, "sysctl -n net/ipv4/conf/"+kind.device+"/rp_filter net.ipv4.conf.eth0.rp_filter | xargs")); got != "2 1" && !rules.six || got != "1 1" && rules.six {
		t.Errorf("filters of %s and eth0: %s", kind.device, got)
	}
	n1.start(t)
	n1.settled(t)
	t.Run("packets after a restart", func(t *testing.T) { check(t, 9011) })

	n1.unhost(further1)
	mine.set(Pod{Kind: Drop})
	n1.apply(t)
	n1.settled(t)
	if left := n1.Run(t, "for f in -4 -6; do ip $f rule | grep -E '^(7|8[0-7])' || true; ip $f route show table 77000 2>/dev/null || true; done; ip -o address show dev "+kind.device+" | grep -e eip -e :201 || true"); left != "" {
		t.Errorf("left without egress IPs of the second network:\n%s", left)
	}
	if at := n1.guards(t); at != "eth0" {
		t.Errorf("guards at %s", at)
	}
	n1.hostFurther(further1, gateway2, 7)
	mine.set(local(further1, 7))
	n1.apply(t)
	n1.stop(t)
	n1.clean(t)
	if diff := cmp.Diff(before, n1.objects(t)); diff != "" {
		t.Errorf("the host is not as it was (-before +after):\n%s", diff)
	}
}

// What a pass reports of other interfaces is what may have egress IPs, with the gateways of the
// host's routes; without an uplink that is not known.
//
// Mutant killed: no-interfaces-are-not-known.
func TestNetworksOfOtherInterfaces(t *testing.T) {
	w := newWorld(t, 1, ownTable())
	w.second(t)
	n := w.nodes[0]
	n.Run(t, "ip address add 172.16.6.11/24 dev eth1; ip address add fd00:5::11/64 dev eth1 nodad")
	eth1 := []Network{
		{Interface: "eth1", CIDR: testenv.Prefix("172.16.5.0/24"), Gateway: testenv.Addr(gateway2)},
		{Interface: "eth1", CIDR: testenv.Prefix("172.16.6.0/24"), Gateway: testenv.Addr(gateway2)},
		{Interface: "eth1", CIDR: testenv.Prefix("fd00:5::/64")},
	}
	for _, c := range []struct {
		interfaces []string
		host       string
		want       []Network
		known      bool
	}{
		{[]string{"eth1"}, n.ip.String(), eth1, true},
		{[]string{"eth*", "cni0"}, n.ip.String(), eth1, true},
		{[]string{AnyInterface}, n.ip.String(), nil, true}, // a veth
		{nil, n.ip.String(), nil, true},
		{[]string{"eth1"}, "192.168.7.99", nil, false},
	} {
		n.cfg.Interfaces, n.state.HostIP = c.interfaces, testenv.Addr(c.host)
		n.start(t)
		r, err := n.tryApply(t)
		if (err == nil) != c.known || r.NetworksKnown != c.known || !slices.Equal(r.Networks, c.want) {
			t.Errorf("interfaces %q, host IP %s: %+v, known %t, %v", c.interfaces, c.host, r.Networks, r.NetworksKnown, err)
		}
	}
}

// given: a host with an egress IP on its second interface, whose pods and those of another host
// send without a pause; when the interface goes down, loses its carrier, its address or itself,
// when others delete our policy rules or routes, translate first, or the gateway changes, then
// nothing leaves with another address, nor by the uplink, before the next pass and after it;
// what cannot be served is reported with the reason, and when all is well again, so is the
// traffic. When another host takes the egress IP over, the traffic leaves there.
//
// Mutants killed: guard-lets-further-egress-ips-leave, further-interfaces-are-not-watched.
func TestSecondInterfaceInTrouble(t *testing.T) {
	for _, rules := range faultRules() {
		t.Run(rules.name, func(t *testing.T) { playSecondInTrouble(t, rules, plainSecond()) })
	}
}

// fault is what happens to an interface, DEV, in a test.
type fault struct {
	name, fault string
	// reason is what the egress IPs say that cannot be served then; empty if they are served.
	reason string
	mend   string
}

// playSecondInTrouble is what happens to packets while a second interface is in trouble.
func playSecondInTrouble(t *testing.T, rules rulesOf, kind secondNetwork, more ...fault) {
	t.Helper()
	w := newWorld(t, 2, rules)
	lan1, lan2 := w.secondBy(t, kind)
	n1, n2 := w.nodes[0], w.nodes[1]
	mine, there := n1.addPod(t, "mine", 2), n2.addPod(t, "there", 2)
	n1.hostFurther(further1, gateway2, 7)
	mine.set(local(further1, 7))
	there.set(remote(7, n1))
	w.applyAll(t)
	ports := []uint16{9001, 9002}
	for i, from := range []*podMachine{mine, there} {
		w.seen.only(ports[i], further1)
		lan1.only(ports[i])
		lan2.only(ports[i], further1)
		w.flows(t, startSender(t, from, w.bastion, ports[i]), further1)
	}
	flow := func() {
		t.Helper()
		for _, port := range ports {
			before := lan2.from(port, further1)
			testenv.UntilWithin(t, patience, fmt.Sprintf("packets to port %d by the second LAN", port), func() bool {
				return lan2.from(port, further1) > before+20
			})
		}
	}
	says := func(what string) {
		for _, c := range []*capture{w.seen, lan1, lan2} {
			c.says(what)
		}
	}
	named := func(text string) string { return strings.ReplaceAll(text, "DEV", kind.device) }
	up := `ip link set DEV up; ip address replace 172.16.5.11/24 dev DEV; ip route replace default via 172.16.5.1 dev DEV metric 200`
	for _, c := range append([]fault{
		{"down", "ip link set DEV down", "is down", up},
		{"without its address", "ip address delete 172.16.5.11/24 dev DEV", "interface DEV", up},
		{"in another network", "ip address delete 172.16.5.11/24 dev DEV; ip address add 172.16.9.11/24 dev DEV", "no address in a network", "ip address delete 172.16.9.11/24 dev DEV; " + up},
		{"that forwards nothing", "sysctl -qw net/ipv4/conf/DEV/forwarding=0", "does not forward", "sysctl -qw net/ipv4/conf/DEV/forwarding=1"},
		{"gone", "ip link set DEV name eth7", "is not there", "ip link set eth7 down; ip link set eth7 name DEV; " + up},
		{"down and up again", "ip link set DEV down; ip link set DEV up", "", ""}, // the kernel drops our routes without a word
		{"without our rules", "ip rule del priority 85", "", ""},
		{"without our routes", "ip route flush table 77000", "", ""},
		{"without the note about its filter", "ip rule del priority 79", "", ""},
		{"with a strict filter again", "sysctl -qw net/ipv4/conf/DEV/rp_filter=1", "", ""},
	}, more...) {
		says("interface " + c.name)
		n1.Run(t, named(c.fault))
		w.linger(t)
		r, err := n1.tryApply(t)
		if c.reason != "" {
			if err == nil || len(r.Hosted) != 1 || r.Hosted[0].Configured || !strings.Contains(r.Hosted[0].Error, named(c.reason)) {
				t.Errorf("interface %s: %+v, %v", c.name, r.Hosted, err)
			}
			w.linger(t)
		} else {
			must(t, err)
		}
		says("after interface " + c.name)
		n1.Run(t, named(c.mend))
		n1.apply(t)
		flow()
		n1.settled(t)
		if got := n1.Run(t, "ip rule show priority 79; sysctl -n net/ipv4/conf/"+kind.device+"/rp_filter"); !strings.Contains(got, "nop") || !strings.HasSuffix(got, "\n2\n") {
			t.Errorf("after interface %s, note and filter: %s", c.name, got)
		}
	}
	says("others translate first")
	n1.masqueradeFirst(t)
	w.linger(t)
	n1.masqueradeSecond(t)
	flow()

	says("another gateway")
	w.router.Run(t, "ip address add 172.16.5.2/24 dev eth2")
	n1.state.Hosted[0].Gateway = testenv.Addr("172.16.5.2")
	n1.apply(t)
	n1.settled(t)
	flow()
	if got := n1.Run(t, "ip route show table 77000; ip route show table 77001 2>/dev/null || true"); !strings.Contains(got, "via 172.16.5.2") || strings.Contains(got, "172.16.5.1 ") {
		t.Errorf("routes by the other gateway:\n%s", got)
	}

	says("no gateway")
	n1.state.Hosted[0].Gateway = netip.Addr{}
	n1.apply(t)
	w.linger(t)
	mine.ping(t, "172.16.5.1", 1300)
	there.ping(t, "172.16.5.1", 1300)
	n1.state.Hosted[0].Gateway = testenv.Addr(gateway2)
	n1.apply(t)
	flow()

	says("another host takes over")
	n1.unhost(further1)
	n2.state.Standby = []Hosted{{IP: testenv.Addr(further1), NetID: 7, Interface: n2.device2, Gateway: testenv.Addr(gateway2)}}
	n2.apply(t)
	n2.settled(t)
	flow()
	mine.set(remote(7, n2))
	there.set(local(further1, 7))
	n1.apply(t)
	n2.state.Standby = nil
	n2.hostFurther(further1, gateway2, 7)
	n2.apply(t)
	flow()
	for _, n := range w.nodes {
		n.settled(t)
	}
}
