package dataplane

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/warning"
)

// The other addresses of the bastion, in networks that the world of its family knows.
const (
	secondIP  = "203.0.113.72"
	secondIP6 = "2001:db8:113::72"
)

// addSecond gives the bastion another address, with the service that says who asks.
func (w *world) addSecond(t *testing.T) (address string) {
	t.Helper()
	if w.bastion.six {
		w.bastion.Run(t, "ip -6 address add "+secondIP6+"/128 dev lo")
		w.router.Run(t, "ip -6 route add "+secondIP6+"/128 via "+bastionIP6)
		address = net.JoinHostPort(secondIP6, "8081")
	} else {
		w.bastion.Run(t, "ip address add "+secondIP+"/32 dev lo")
		w.router.Run(t, "ip route add "+secondIP+"/32 via "+bastionIP)
		address = net.JoinHostPort(secondIP, "8081")
	}
	w.bastion.serveWhoami(t, address)
	return address
}

// excluding is a way with networks to which a pod leaves as without us.
func excluding(way Pod, networks ...string) Pod {
	for _, n := range networks {
		way.Excluded = append(way.Excluded, netip.MustParsePrefix(n))
	}
	return way
}

// addressOf is an address without its port.
func addressOf(t *testing.T, address string) string {
	t.Helper()
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	return host
}

// bastionNetwork is a network that the bastion's first address is in, and its second is not.
func (w *world) bastionNetwork() string {
	if w.bastion.six {
		return netip.PrefixFrom(testenv.Addr(bastionIP6), 64).Masked().String()
	}
	return "10.1.8.0/24"
}

// given: pods with a network that is excluded for them, whose egress IP is here, elsewhere, or
// nowhere; when they reach out, then to that network they have their node's address as source, as
// without us, and to others their egress IP, or are dropped; so it is if all marks that others set
// are wrong. Pods without such networks have their egress IP everywhere.
//
// Mutants killed: excluded-is-marked, excluded-is-held, excluded-is-lost,
// excluded-of-ipv6-is-closed.
func TestExcludedNetworksAreReachedAsWithoutUs(t *testing.T) {
	for _, rules := range append(allRules(), rulesOfIPv6()...) {
		t.Run(rules.name, func(t *testing.T) {
			w := newWorld(t, 2, rules)
			n1, n2 := w.nodes[0], w.nodes[1]
			n1.needsPairs(t, rules)
			second := w.addSecond(t)
			network := w.bastionNetwork()
			here, there, dropped := n1.addPod(t, "here", 2), n2.addPod(t, "there", 2), n2.addPod(t, "dropped", 3)
			sibling, all := n2.addPod(t, "sibling", 4), n2.addPod(t, "all", 5)
			n1.host(w.eip(1), 7)
			here.set(excluding(local(w.eip(1), 7), network))
			there.set(excluding(remote(7, n1), network))
			sibling.set(remote(7, n1))
			dropped.set(excluding(Pod{Kind: Drop}, network))
			all.set(excluding(remote(7, n1), "0.0.0.0/0", "::/0"))
			w.applyAll(t)

			look := func() {
				t.Helper()
				for _, p := range []*podMachine{here, there, dropped, all} {
					p.leaves(t, p.node.own())
				}
				sibling.leaves(t, w.eip(1))
				from := map[*podMachine]string{here: w.eip(1), there: w.eip(1), sibling: w.eip(1), all: n2.own()}
				for p, want := range from {
					if got, err := p.whoami(t, second); err != nil || got != want {
						t.Fatalf("%s reaches its other destination from %q (%v), want %s", p.Name, got, err, want)
					}
				}
			}
			look()
			w.seen.only(9001)
			w.silent(t, startSenderTo(t, dropped, w.bastion, 9001, net.JoinHostPort(addressOf(t, second), "9001")))
			w.applySettled(t)

			for _, n := range w.nodes {
				n.Run(t, rules.iptablesOfFamily()+" -t mangle -A FORWARD -j MARK --set-mark 0x1005")
			}
			look()
		})
	}
}

// given: a pod that sends without a pause; when a network becomes excluded for it, ceases to be,
// or is exchanged for one that overlaps it, whatever way the pod has meanwhile, then no packet
// ever has a source other than that of the way before and of the way after, and connections that
// would change their source end.
//
// Mutants killed: excluded-goes-on-its-way, included-before-the-way.
func TestNoPacketLeaksWhileNetworksAreExcluded(t *testing.T) {
	for _, rules := range append(allRules(), rulesOfIPv6()...) {
		t.Run(rules.name, func(t *testing.T) {
			w := newWorld(t, 2, rules)
			n1, n2 := w.nodes[0], w.nodes[1]
			n1.needsPairs(t, rules)
			p := n2.addPod(t, "p", 2)
			n1.host(w.eip(1), 7)
			n2.host(w.eip(2), 8)
			p.set(Pod{Kind: Node})
			w.applyAll(t)
			const port = 9000
			s := startSender(t, p, w.bastion, port)
			// As in TestNoPacketLeaksWhileAWayChanges.
			n2.Run(t, rules.iptablesOfFamily()+" -A INPUT -s "+addressOf(t, w.bastion.outside(80))+" -j DROP")

			network, all := w.bastionNetwork(), "8000::/1" // overlap, and both have the bastion
			if !w.bastion.six {
				all = "0.0.0.0/1"
			}
			ways := []way{
				{"node", Pod{Kind: Node}, n2.own()},
				{"local", local(w.eip(2), 8), w.eip(2)},
				{"local, excluded", excluding(local(w.eip(2), 8), network), n2.own()},
				{"remote", remote(7, n1), w.eip(1)},
				{"remote, excluded", excluding(remote(7, n1), network), n2.own()},
				{"remote, more excluded", excluding(remote(7, n1), all), n2.own()},
				{"drop", Pod{Kind: Drop}, ""},
				{"drop, excluded", excluding(Pod{Kind: Drop}, network), n2.own()},
			}
			c := changing{world: w, pod: p, sender: s, at: ways[0]}
			for _, from := range ways {
				for _, to := range ways {
					if from.name != to.name && (len(from.pod.Excluded) > 0 || len(to.pod.Excluded) > 0) {
						c.to(t, from)
						c.to(t, to)
					}
				}
			}
		})
	}
}

// given: a kernel without ipsets of pairs, or with another set of that name; when networks are
// excluded for a pod, then it uses its egress IP for them, too, which is the safe side, all else
// works, and a warning says so. Where the kernel can have such sets, the warning ends as soon as
// it does.
//
// Mutant killed: excluded-without-a-set.
func TestAllElseWorksWithoutExcludedNetworks(t *testing.T) {
	w := newWorld(t, 1, onlyNFT())
	n := w.nodes[0]
	can := n.hasPairs(t)
	n.Run(t, "ipset create "+setExcluded+" hash:ip")
	n.host(eip1, 7)
	p := n.addPod(t, "p", 2)
	p.set(excluding(local(eip1, 7), w.bastionNetwork()))
	n.warnsOnly(t, warning.NotExcluded, "exclude-cidrs, include-cidrs", "use their egress IPs for excluded networks", setExcluded, "ip_set_hash_netnet")
	p.leaves(t, eip1)
	n.settled(t)
	if can {
		n.Run(t, "ipset destroy "+setExcluded)
		n.warnsNoMore(t)
		p.leaves(t, n.own())
	}
	p.set(local(eip1, 7))
	n.warnsNoMore(t)
	p.leaves(t, eip1)
	n.settled(t)
}

// hasPairs reports whether the kernel has ipsets of pairs of networks.
func (n *node) hasPairs(t *testing.T) bool {
	t.Helper()
	return strings.TrimSpace(n.Run(t, "ipset create egress-trial hash:net,net 2> /dev/null && ipset destroy egress-trial && echo yes || true")) == "yes"
}

// needsPairs skips a test with ipsets where the kernel has none of pairs of networks.
func (n *node) needsPairs(t *testing.T, rules rulesOf) {
	t.Helper()
	if !rules.table() && !n.hasPairs(t) {
		t.Skip("this kernel has no ipset type hash:net,net: see TestAllElseWorksWithoutExcludedNetworks")
	}
}

// given: others who write to our sets of excluded networks; when a pass looks, then what is not
// ours is gone, and what is ours is back.
//
// Mutant killed: excluded-by-others-stays.
func TestExcludedNetworksAreRepaired(t *testing.T) {
	for _, rules := range openRules() {
		t.Run(rules.name, func(t *testing.T) {
			w := newWorld(t, 1, rules)
			n := w.nodes[0]
			n.needsPairs(t, rules)
			second := w.addSecond(t)
			n.host(eip1, 7)
			p := n.addPod(t, "p", 2)
			p.set(excluding(local(eip1, 7), w.bastionNetwork()))
			w.applyAll(t)
			// For the pod, and for several.
			for nft, ipset := range map[string]string{"10.244.1.2 . 203.0.113.3-203.0.113.200": "10.244.1.2,203.0.113.0/24", "10.244.0.0/16 . 203.0.113.0/24": "10.244.0.0/16,203.0.113.0/24"} {
				if rules.table() {
					n.Run(t, "nft flush set inet egressip "+setExcluded+"; nft add element inet egressip "+setExcluded+" '{ "+nft+" }'")
				} else {
					n.Run(t, "ipset flush "+setExcluded+"; ipset add "+setExcluded+" "+ipset)
				}
				n.apply(t)
				p.leaves(t, n.own())
				if got, err := p.whoami(t, second); err != nil || got != eip1 {
					t.Fatalf("after %s, the pod reaches a network that others have excluded from %q (%v), want %s", nft, got, err, eip1)
				}
				n.settled(t)
			}
		})
	}
}

// given: connections of a pod to two networks; when one of them becomes excluded, and when it ceases
// to be, then those to it end, so that what comes after has the right source, and those to the other
// go on.
//
// Mutants killed: excluded-is-not-forgotten, other-connections-of-the-pod-end.
func TestConnectionsToExcludedNetworksEnd(t *testing.T) {
	for _, rules := range append(someRules(), rulesOfIPv6()...) {
		t.Run(rules.name, func(t *testing.T) {
			w := newWorld(t, 2, rules)
			n1, n2 := w.nodes[0], w.nodes[1]
			n1.needsPairs(t, rules)
			for _, n := range w.nodes { // else a stream that was forgotten may go on
				n.cfg.ResetConnections = true
				n.start(t)
			}
			second := net.JoinHostPort(addressOf(t, w.addSecond(t)), "7000")
			w.bastion.serveEcho(t, 7000)
			n1.host(w.eip(1), 7)
			local1, remote1 := n1.addPod(t, "local", 2), n2.addPod(t, "remote", 2)
			ways := map[*podMachine]Pod{local1: local(w.eip(1), 7), remote1: remote(7, n1)}
			for p, way := range ways {
				p.set(way)
			}
			w.applyAll(t)
			for _, excluded := range [][]string{{w.bastionNetwork()}, nil} {
				for p, way := range ways {
					first := p.dial(t, w.bastion.over("udp"), w.bastion.outside(7000))
					other := p.dial(t, w.bastion.over("tcp"), second)
					stream := p.dial(t, w.bastion.over("tcp"), w.bastion.outside(7000))
					for _, c := range []net.Conn{first, other, stream} {
						echoes(t, c, 10)
					}
					p.set(excluding(way, excluded...))
					p.node.apply(t)
					echoes(t, first, 10) // a new connection between the same ports
					echoes(t, other, 10)
					if err := tryEcho(stream, 10, testenv.Stretch(patience)); !isReset(err) {
						t.Errorf("%s: a stream whose source must change (excluded: %v): %v, want a reset", p.Name, excluded, err)
					}
				}
			}
		})
	}
}
