package dataplane

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/warning"
)

const (
	bastionIP6 = "fd00:8::72"
	port6      = 80
)

// world6 is a world with both families.
type world6 struct {
	*world
	// seen6 is what comes to the bastion by IPv6.
	seen6 *capture
}

// withIPv6 gives the machines of a world IPv6 as well: fd00:7::1N to nodes, and
// fd00:10:244:N::/64 to their pods, which reach the bastion without any NAT. What
// bridges forward passes the rules, as where a cluster has br_netfilter.
func (w *world) withIPv6(t *testing.T) world6 {
	t.Helper()
	w.router.Run(t, `sysctl -qw net.ipv6.conf.all.forwarding=1
		ip address add fd00:7::1/64 dev eth0 nodad; ip address add fd00:8::1/64 dev eth1 nodad`)
	w.bastion.Run(t, "ip address add "+bastionIP6+"/64 dev eth0 nodad; ip route add default via fd00:8::1")
	for _, n := range w.nodes {
		n.Run(t, fmt.Sprintf(`sysctl -qw net.ipv6.conf.all.forwarding=1 net.bridge.bridge-nf-call-ip6tables=1
			ip address add fd00:7::1%[1]d/64 dev eth0 nodad; ip address add fd00:10:244:%[1]d::1/64 dev cni0 nodad
			ip route add default via fd00:7::1`, n.index))
		w.router.Run(t, fmt.Sprintf("ip route add fd00:10:244:%[1]d::/64 via fd00:7::1%[1]d", n.index))
		for _, o := range w.nodes {
			if o != n {
				n.Run(t, fmt.Sprintf("ip route add fd00:10:244:%[1]d::/64 via fd00:7::1%[1]d", o.index))
			}
			n.state.Inside = append(n.state.Inside, netip.MustParsePrefix(fmt.Sprintf("fd00:7::1%d/128", o.index)))
		}
		n.state.Inside = append(n.state.Inside, netip.MustParsePrefix("fd00:10:244::/48"))
		n.state.Subnets = append(n.state.Subnets, netip.MustParsePrefix(fmt.Sprintf("fd00:10:244:%d::/64", n.index)))
	}
	return world6{world: w, seen6: newCaptureOf(t, w.bastion, "eth0", unix.ETH_P_IPV6)}
}

// addPod6 makes a pod with addresses of both families.
func (n *node) addPod6(t *testing.T, name string, last int) *podMachine {
	t.Helper()
	p := n.addPod(t, name, last)
	p.addIPv6(t)
	return p
}

// addIPv6 gives a pod an address of IPv6, which ends like that of IPv4.
func (p *podMachine) addIPv6(t *testing.T) {
	t.Helper()
	p.ip6 = testenv.Addr(fmt.Sprintf("fd00:10:244:%d::%d", p.node.index, p.ip.As4()[3]))
	p.Run(t, fmt.Sprintf("ip address add %v/64 dev eth0 nodad; ip route add default via fd00:10:244:%d::1", p.ip6, p.node.index))
}

// set6 gives a pod's IPv6 address its way in its node's state.
func (p *podMachine) set6(kind PodKind) {
	p.unset6()
	p.node.state.Pods = append(p.node.state.Pods, Pod{IP: p.ip6, Kind: kind})
}

func (p *podMachine) unset6() {
	p.node.state.Pods = slices.DeleteFunc(p.node.state.Pods, func(o Pod) bool { return o.IP == p.ip6 })
}

// serve6 answers each TCP connection to the address, and each UDP packet, until
// the test ends.
func (m *machine) serve6(t *testing.T, ip string) {
	t.Helper()
	var l net.Listener
	var u net.PacketConn
	at := net.JoinHostPort(ip, fmt.Sprint(port6))
	m.Do(t, func() {
		var err error
		var c net.ListenConfig
		l, err = c.Listen(t.Context(), "tcp6", at)
		must(t, err)
		u, err = c.ListenPacket(t.Context(), "udp6", at)
		must(t, err)
	})
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte("x"))
			_ = c.Close()
		}
	})
	all.Go(func() {
		b := make([]byte, 64)
		for {
			n, from, err := u.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = u.WriteTo(b[:n], from)
		}
	})
	t.Cleanup(func() {
		_, _ = l.Close(), u.Close()
		all.Wait()
	})
}

// ask6 asks a serve6 by TCP and UDP, and returns how it went.
func (m *machine) ask6(t *testing.T, ip string) (err error) {
	t.Helper()
	to := net.JoinHostPort(ip, fmt.Sprint(port6))
	m.Do(t, func() {
		for _, network := range []string{"tcp6", "udp6"} {
			d := net.Dialer{Timeout: testenv.Stretch(time.Second)}
			var c net.Conn
			if c, err = d.DialContext(t.Context(), network, to); err != nil {
				return
			}
			_ = c.SetDeadline(time.Now().Add(testenv.Stretch(time.Second)))
			if network == "udp6" {
				_, err = c.Write([]byte("x"))
			}
			if err == nil {
				_, err = c.Read(make([]byte, 8))
			}
			_ = c.Close()
			if err != nil {
				return
			}
		}
	})
	return err
}

func (m *machine) reaches6(t *testing.T, ip string) {
	t.Helper()
	testenv.UntilWithin(t, patience, fmt.Sprintf("%s reaches %s", m.Name, ip), func() bool { return m.ask6(t, ip) == nil })
}

// sends6 has a pod send to a port of the bastion by IPv6 until the test ends.
func (p *podMachine) sends6(t *testing.T, port uint16) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var all sync.WaitGroup
	to := net.JoinHostPort(bastionIP6, fmt.Sprint(port))
	all.Go(func() {
		until(ctx, p, 2*time.Millisecond, func() {
			if c, err := net.Dial("udp6", to); err == nil {
				_, _ = c.Write([]byte("x"))
				_ = c.Close()
			}
			if c, err := net.DialTimeout("tcp6", to, testenv.Stretch(20*time.Millisecond)); err == nil {
				_ = c.Close()
			}
		})
	})
	t.Cleanup(func() {
		cancel()
		all.Wait()
	})
}

// given: pods with IPv6 addresses too; when those whose namespaces request egress IPs,
// and those that are not known yet, send by IPv6, then nothing comes outside, also where
// one of the two locks is lost; the cluster they reach, and all others reach
// everything, as before.
//
// Mutants killed: ipv6-is-left-alone, ipv6-has-one-lock, unknown-leaves-by-ipv6,
// neighbours-are-not-found.
func TestNoEgressByIPv6(t *testing.T) {
	for _, rules := range openRules() {
		t.Run(rules.name, func(t *testing.T) {
			w := newWorld(t, 2, rules).withIPv6(t)
			n1, n2 := w.nodes[0], w.nodes[1]
			w.bastion.serve6(t, bastionIP6)
			n1.host(eip1, 7)
			here, drop, plain, other := n1.addPod6(t, "here", 2), n2.addPod6(t, "drop", 2), n2.addPod6(t, "plain", 3), n1.addPod6(t, "other", 3)
			for _, p := range []*podMachine{here, plain, other} {
				p.serve6(t, p.ip6.String())
			}
			for _, n := range w.nodes {
				n.serve6(t, n.ip6())
				n.state.Strict = true
			}
			here.set(local(eip1, 7))
			here.set6(Refuse)
			drop.set(Pod{Kind: Drop})
			drop.set6(Refuse)
			plain.set6(Node)
			w.applyAll(t)

			w.seen6.says("locked")
			for i, p := range []*podMachine{here, drop, other} {
				w.seen6.only(uint16(9001 + i))
				p.sends6(t, uint16(9001+i))
			}
			plain.reaches6(t, bastionIP6)
			for _, p := range []*podMachine{here, drop} {
				for _, to := range []string{n1.ip6(), n2.ip6(), plain.ip6.String(), other.ip6.String()} {
					p.reaches6(t, to)
				}
				// The answer is immediate, so that a client goes on with IPv4.
				if err := p.ask6(t, bastionIP6); !errors.Is(err, unix.ECONNREFUSED) {
					t.Errorf("%s to the outside: %v", p.Name, err)
				}
			}
			here.leaves(t, eip1)
			// Somebody outside who asks a pod gets an answer.
			w.bastion.reaches6(t, here.ip6.String())
			// Neighbours find a pod, on its bridge those outside the cluster, too.
			neighbour := newMachine(t, "neighbour")
			connect(t, neighbour, "eth0", nil, n1.machine, "v-neighbour", nil)
			n1.Run(t, "ip link set v-neighbour master cni0")
			neighbour.Run(t, "ip address add fd00:99::5/64 dev eth0 nodad; ip route add fd00:10:244:1::/64 dev eth0")
			here.Run(t, "ip route add fd00:99::/64 dev eth0")
			neighbour.reaches6(t, here.ip6.String())
			n1.apply(t) // a new link
			w.applySettled(t)

			w.seen6.says("one lock is lost")
			for _, n := range w.nodes {
				n.Run(t, rules.flush6("filter-forward", "LOCKED6"))
			}
			w.linger(t)
			w.applyAll(t)
			for _, n := range w.nodes {
				n.Run(t, rules.flush6("mangle-postrouting", "LEAVING6"))
			}
			w.linger(t)
			w.applyAll(t)

			w.seen6.says("known")
			w.drain(t)
			w.seen6.only(9003, other.ip6.String())
			other.set6(Node)
			n1.apply(t)
			other.reaches6(t, bastionIP6)
			w.seen6.says("without egress IPs")
			w.seen6.only(9002, drop.ip6.String())
			drop.set6(Node)
			n2.apply(t)
			drop.reaches6(t, bastionIP6)
			w.applySettled(t)
			w.seen6.only(9001, here.ip6.String())
			n1.stop(t)
			n1.clean(t)
			if left := n1.Run(t, "for b in nft legacy; do ip6tables-$b-save 2>/dev/null | grep EGRESSIP || true; done; ipset list -n | grep ^egress- || true"); left != "" {
				t.Errorf("cleanup leaves\n%s", left)
			}
		})
	}
}

// ip6 is the node's own address.
func (n *node) ip6() string { return fmt.Sprintf("fd00:7::1%d", n.index) }

// flush6 takes the rules of a lock for IPv6 away: those of a hook, or in iptables those
// of a chain.
func (r rulesOf) flush6(hook, chain string) string {
	if r.table() {
		return "nft flush chain inet egressip " + strings.ToLower(chain)
	}
	stage, _, _ := strings.Cut(hook, "-")
	return "ip6tables-" + string(r.masquerade[0]) + " -t " + stage + " -F EGRESSIP-" + chain
}

// given: a host whose kernel has no IPv6, or without ip6tables; then all else works, and
// a lock that cannot be had is a warning.
func TestHostWithoutIPv6(t *testing.T) {
	for _, rules := range someRules() {
		t.Run(rules.name, func(t *testing.T) {
			w := newWorld(t, 1, rules)
			n := w.nodes[0]
			here := n.addPod(t, "here", 2)
			here.ip6 = testenv.Addr("fd00:10:244:1::2")
			n.host(eip1, 7)
			here.set(local(eip1, 7))
			here.set6(Refuse)
			n.state.Strict = true
			n.state.Subnets = append(n.state.Subnets, netip.MustParsePrefix("fd00:10:244:1::/64"))
			n.dp.ip6tables = nil
			if warnings := n.apply(t).Warnings; strings.Contains(warning.Lines(warnings), "ip6tables") == rules.table() {
				t.Errorf("without ip6tables: warnings %q", warnings)
			}
			n.start(t)
			n.dp.ipv6 = false
			n.apply(t)
			n.settled(t)
			here.leaves(t, eip1)
		})
	}
}
