package dataplane

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
)

// uplinkKind is a way to connect a host to the segment.
type uplinkKind struct {
	name   string
	device string
	// needs is a device that the kernel must know; others are known everywhere.
	needs string
	// machine and lan make the device out of eth0, whose addresses and routes are gone
	// then, and of the other end, p-NAME.
	machine, lan string
	// gateway: the host's address is alone in its network, and all go by the gateway.
	gateway bool
	// filter is its rp_filter; strict if it is empty.
	filter string
	// rarer: it is tested with the whole matrix only.
	rarer bool
}

func uplinkKinds() []uplinkKind {
	return []uplinkKind{
		{name: "bridge", device: "br-ex", machine: "ip link add br-ex type bridge; ip link set eth0 master br-ex up; ip link set br-ex up"},
		{name: "macvlan", rarer: true, device: "ext", machine: "ip link set eth0 up; ip link add ext link eth0 type macvlan mode bridge; ip link set ext up"},
		{
			name: "bond", device: "bond0", needs: "bond",
			machine: "ip link add bond0 type bond mode active-backup miimon 100; ip link set eth0 down; ip link set eth0 master bond0; ip link set bond0 up",
		},
		{
			name: "VLAN", device: "eth0.5", needs: "vlan",
			machine: "ip link set eth0 up; ip link add link eth0 name eth0.5 type vlan id 5; ip link set eth0.5 up",
			lan:     "ip link set p-NAME nomaster; ip link add link p-NAME name p-NAME.5 type vlan id 5; ip link set p-NAME.5 master br0 up",
		},
		{name: "an address with prefix length 32", device: "eth0", machine: "ip link set eth0 up", gateway: true},
		{name: "no filter of reverse paths", rarer: true, device: "eth0", machine: "ip link set eth0 up; sysctl -qw net.ipv4.conf.all.rp_filter=0", filter: "0"},
		{name: "a loose filter of reverse paths", rarer: true, device: "eth0", machine: "ip link set eth0 up", filter: "2"},
		{name: "jumbo frames", device: "eth0", machine: "ip link set eth0 mtu 9000 up", lan: "ip link set p-NAME mtu 9000"},
		{name: "a small MTU", rarer: true, device: "eth0", machine: "ip link set eth0 mtu 1450 up", lan: "ip link set p-NAME mtu 1450"},
		{name: "a name of 15 characters", rarer: true, device: "enp0s31f6np0123", machine: "ip link set eth0 down; ip link set eth0 name enp0s31f6np0123 up"},
	}
}

// known skips the test where the kernel does not know the device.
func (k uplinkKind) known(t *testing.T) {
	t.Helper()
	if k.needs == "" {
		return
	}
	m := newMachine(t, "try")
	add := "ip link add try0 type " + k.needs
	if k.needs == "vlan" {
		add = "ip link add below type bridge && ip link add link below name try0 type vlan id 5"
	}
	if out := m.Run(t, "if "+add+" 2>&1; then echo made; else echo refused; fi"); strings.Contains(out, "refused") {
		t.Skipf("this kernel has no device of kind %s: %s", k.needs, out)
	}
}

// build replaces the node's uplink.
func (k uplinkKind) build(t *testing.T, w *world, n *node) {
	t.Helper()
	n.Run(t, "ip address flush dev eth0; "+k.machine)
	if k.lan != "" {
		w.lan.Run(t, strings.ReplaceAll(k.lan, "NAME", n.Name))
	}
	bits, via, filter := 24, "", k.filter
	if filter == "" {
		filter = "1"
	}
	if k.gateway {
		bits, via = 32, "via 192.168.7.1"
	}
	n.Run(t, fmt.Sprintf(`ip address add %[1]v/%[2]d dev %[3]s; sysctl -qw net/ipv4/conf/%[3]s/rp_filter=%[4]s
		ip route replace 192.168.7.1 dev %[3]s src %[1]v; ip route replace default via 192.168.7.1 dev %[3]s`, n.ip, bits, k.device, filter))
	for _, other := range w.nodes {
		if other == n {
			continue
		}
		if k.gateway {
			n.Run(t, fmt.Sprintf("ip route replace %v/32 %s src %v", other.ip, via, n.ip))
			n.Run(t, fmt.Sprintf("ip route replace %v %s", other.pods, via))
			w.router.Run(t, fmt.Sprintf("ip route replace %v via %v; ip route replace %v via %v", other.pods, other.ip, n.pods, n.ip))
		} else {
			n.Run(t, fmt.Sprintf("ip route replace %v via %v dev %s", other.pods, other.ip, k.device))
		}
	}
}

// given: a host whose uplink is not a plain interface; then pods, here and elsewhere, leave
// with the egress IPs of this host and of another, the host and other pods leave with the
// host's address, pods reach each other, and nothing is left when it is over.
func TestKindsOfUplinks(t *testing.T) {
	for _, rules := range faultRules() {
		t.Run(rules.name, func(t *testing.T) {
			for _, kind := range uplinkKinds() {
				t.Run(kind.name, func(t *testing.T) {
					if kind.rarer && !wholeMatrix() {
						t.Skip("with the whole matrix only")
					}
					kind.known(t)
					w := newWorld(t, 2, rules)
					n1, n2 := w.nodes[0], w.nodes[1]
					kind.build(t, w, n1)
					mine, far := n1.addPod(t, "mine", 2), n1.addPod(t, "far", 3)
					there, plain := n2.addPod(t, "there", 2), n1.addPod(t, "plain", 4)
					before := n1.objects(t)
					n1.host(eip1, 7)
					n2.host(eip2, 8)
					mine.set(local(eip1, 7))
					there.set(remote(7, n1))
					far.set(remote(8, n2))
					w.applyAll(t)
					for _, n := range w.nodes {
						n.settled(t)
					}
					t.Run("packets", func(t *testing.T) {
						port := uint16(9001)
						for _, s := range []struct {
							from interface{ enter() error }
							want string
						}{{mine, eip1}, {there, eip1}, {far, eip2}, {plain, n1.ip.String()}, {n1, n1.ip.String()}} {
							sends := startSender(t, s.from, w.bastion, port)
							w.seen.only(port, s.want)
							w.flows(t, sends, s.want)
							port++
						}
						there.ping(t, mine.ip.String(), 1300)
						plain.ping(t, there.ip.String(), 1300)
						there.ping(t, bastionIP, 1300)
					})
					n1.settled(t)
					n1.stop(t)
					n1.clean(t)
					if diff := cmp.Diff(before, n1.objects(t)); diff != "" {
						t.Errorf("the host is not as it was (-before +after):\n%s", diff)
					}
				})
			}
		})
	}
}

// given: a host that serves egress IPs, while its pods, those of another node, other pods and the
// host itself send without a pause; when its interface becomes a port of a bridge or a bond, or
// gets a VLAN, which has the host's address from then on, then nobody sends with a wrong source at
// any moment; after the next pass, egress IPs and guard are at the new device alone.
//
// Mutant killed: guard-stays-at-a-former-uplink.
func TestUplinkBecomesAnotherDevice(t *testing.T) {
	for _, rules := range faultRules() {
		for _, kind := range uplinkKinds() {
			if kind.device == "eth0" || kind.rarer && !wholeMatrix() {
				continue // the same device, with other settings
			}
			t.Run(rules.name+", "+kind.name, func(t *testing.T) {
				kind.known(t)
				w := newWorld(t, 2, rules)
				n1, n2 := w.nodes[0], w.nodes[1]
				mine, plain, there := n1.addPod(t, "mine", 2), n1.addPod(t, "plain", 3), n2.addPod(t, "there", 2)
				n1.host(eip1, 7)
				mine.set(local(eip1, 7))
				plain.set(Pod{Kind: Node})
				there.set(remote(7, n1))
				w.applyAll(t)
				own := n1.ip.String()
				senders := []struct {
					port uint16
					from interface{ enter() error }
					want string
				}{{9001, mine, eip1}, {9002, there, eip1}, {9003, plain, own}, {9004, n1, own}}
				for _, s := range senders {
					w.seen.only(s.port, s.want)
					if s.want == own {
						w.seen.only(s.port, own, n1.gateway()) // the kernel's choice while the host's own address is away
					}
					w.flows(t, startSender(t, s.from, w.bastion, s.port), s.want)
				}
				flows := func() {
					t.Helper()
					for _, s := range senders {
						before := w.seen.from(s.port, s.want)
						testenv.UntilWithin(t, patience, fmt.Sprintf("packets to port %d from %s", s.port, s.want), func() bool {
							return w.seen.from(s.port, s.want) > before+20
						})
					}
				}
				w.seen.says("its address goes to " + kind.device)
				kind.build(t, w, n1)
				w.router.Run(t, "ip neigh flush dev eth0")
				n2.Run(t, "ip neigh flush dev eth0")
				w.linger(t)
				w.seen.says("after a pass")
				if r := n1.apply(t); r.Uplink != kind.device {
					t.Fatalf("uplink %s", r.Uplink)
				}
				n2.apply(t)
				flows()
				n1.settled(t)
				if at := n1.guards(t); at != kind.device {
					t.Errorf("guards at %s", at)
				}
				w.seen.says("after a restart")
				n1.start(t)
				n1.settled(t)
				flows()
			})
		}
	}
}
