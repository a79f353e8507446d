package dataplane

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/bpf"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/conntrack"
)

// given: pods that send without a pause; when other software takes a part of ours
// away, then no packet leaks meanwhile, and the next Apply puts it back.
//
// Mutant killed: refused-pods-have-one-lock.
func TestDriftNeverLeaksAndIsRepaired(t *testing.T) {
	for _, rules := range append(openRules(), ownTableShared().ofIPv6(), onlyNFT().ofIPv6()) {
		t.Run(rules.name, func(t *testing.T) {
			w := newWorld(t, 2, rules)
			n1, n2 := w.nodes[0], w.nodes[1]
			here, there, dropped := n1.addPod(t, "here", 2), n2.addPod(t, "there", 2), n2.addPod(t, "dropped", 3)
			n1.host(w.eip(1), 7)
			here.set(local(w.eip(1), 7))
			there.set(remote(7, n1))
			dropped.set(Pod{Kind: Drop})
			if rules.six {
				dropped.set(Pod{Kind: Refuse}) // Drop has the locks that it has with IPv4
			}
			w.applyAll(t)
			senders := []*sender{
				startSender(t, here, w.bastion, 9001),
				startSender(t, there, w.bastion, 9002),
				startSender(t, dropped, w.bastion, 9003),
			}
			w.seen.only(9001, w.eip(1))
			w.seen.only(9002, w.eip(1))
			w.seen.only(9003)
			w.flows(t, senders[0], w.eip(1))
			w.flows(t, senders[1], w.eip(1))

			ipt := rules.iptables()
			damages := []string{
				rules.ip() + " address del " + w.eip(1) + rules.egressBits() + " dev eth0 2>/dev/null || true", // n1 alone has it
				"ip rule del priority 89",
				"ip rule del priority 90",
				"ip rule del priority 91",
				"ip route flush table 2000",
				"ip route flush table 2001",
				"ip route del default dev egress0 table 2000",
				"ip link set egress0 down",
				"ip link del egress0",
				"tc qdisc del dev egress0 clsact",
				"ip neigh flush dev egress0 nud permanent",
				rules.empty(setPods),
				rules.empty(setLocked),
				rules.empty(setInside),
				rules.empty(setHosts),
				rules.empty(setIPs),
				rules.flush("mangle", ""),
				rules.flush("mangle", "EGRESSIP-PREROUTING"),
				rules.flush("mangle", "EGRESSIP-MARKING"),
				rules.flush("mangle", "EGRESSIP-LEAVING"),
				rules.flush("mangle", "EGRESSIP-FORWARD"),
				rules.flush("mangle", "EGRESSIP-PINNED"),
				rules.unjump("mangle", "PREROUTING"),
				rules.flush("raw", ""),
				rules.flush("filter", ""),
				rules.flush("nat", "EGRESSIP-POSTROUTING"),
				rules.unjump("nat", "POSTROUTING"),
				"sysctl -qw net.ipv4.conf.egress0.rp_filter=1",
			}
			switch {
			case rules.six:
				damages = damagesOfIPv6(rules, damages[0])
			case rules.table():
				damages = append(damages,
					"nft flush chain inet egressip mark-1000",
					"nft flush set inet egressip egress-pods",
					"nft flush map inet egressip egress-snat",
					"nft flush map inet egressip egress-save",
					"nft flush map inet egressip egress-restore",
					"nft insert rule inet egressip prerouting accept",
					"nft insert rule inet egressip forward accept",
					"nft insert rule inet egressip postrouting accept",
				)
			default:
				damages = append(damages,
					"ipset del egress-pods "+here.ip.String()+" 2>/dev/null || ipset del egress-pods "+there.ip.String(),
					ipt+" -D FORWARD -j EGRESSIP-LOCKED",
					ipt+" -D FORWARD -j EGRESSIP-ACCEPT",
					ipt+" -t nat -I POSTROUTING -s 10.244.0.0/16 -j MASQUERADE",
				)
			}
			for _, damage := range damages {
				t.Run(damage, func(t *testing.T) {
					w.seen.says(damage)
					for _, n := range w.nodes {
						if out, err := n.Try(t, damage); err != nil {
							t.Fatalf("%v: %s", err, out)
						}
					}
					w.linger(t)
					changes := 0
					for _, n := range w.nodes {
						changes += n.apply(t).Changes
					}
					if changes == 0 {
						t.Fatal("nothing was repaired")
					}
					w.applySettled(t)
					w.flows(t, senders[0], w.eip(1))
					w.flows(t, senders[1], w.eip(1))
				})
			}
		})
	}
}

// damagesOfIPv6 are those that concern IPv6, after that of the egress IP.
func damagesOfIPv6(rules rulesOf, egressIP string) []string {
	more := []string{
		"nft flush map inet egressip egress-snat6",
		"nft insert rule inet egressip forward6 accept",
		"nft insert rule inet egressip postrouting6 accept",
	}
	if !rules.table() {
		ip6tables := rules.iptablesOfFamily()
		more = []string{
			rules.unjump("nat", "POSTROUTING"),
			ip6tables + " -D FORWARD -j EGRESSIP-LOCKED6",
			ip6tables + " -t nat -I POSTROUTING -s fd00:10:244::/48 -j MASQUERADE",
		}
	}
	return append([]string{
		egressIP,
		"ip -6 rule del priority 90",
		"ip -6 rule del priority 91",
		"ip -6 route flush table 2000",
		"ip -6 route flush table 2001",
		"ip link del egress0",
		"ip link set egress0 mtu 1200", // too small for IPv6
		"ip -6 neigh flush dev egress0 nud permanent",
		"sysctl -qw net.ipv6.conf.egress0.addr_gen_mode=0",
		rules.empty(setPods),
		rules.empty(setLocked),
		rules.empty(setInside),
		rules.flush("mangle", ""),
		rules.flush("mangle", "EGRESSIP-FORWARD"),
		rules.flush("mangle", "EGRESSIP-PREROUTING"),
		rules.flush("filter", ""),
		rules.flush("nat", "EGRESSIP-POSTROUTING"),
	}, more...)
}

// given: a host that has forgotten a pod's connections, and hosts that lost parts of
// table mangle; when the other end speaks first, then the pod's answers do not leave
// with the pod's own address, then or when more is lost. To connection tracking they
// would be replies, which are not rewritten and which the locks let pass, as they do the
// replies to clients of a NodePort.
//
// Mutants killed: the overlay may begin connections with pods; it may where mangle has
// noted them as to be answered over the overlay; answers take any way.
func TestForgottenConnectionsAreNotTurnedRound(t *testing.T) {
	const port = 9001
	for _, rules := range append(openRules(), ownTableShared().ofIPv6(), onlyNFT().ofIPv6()) {
		lost := rules.unjump("mangle", "PREROUTING")
		for _, damage := range []struct {
			name string
			// egress befalls the egress host; pods and then later the pod's.
			egress, pods, later string
		}{
			{name: "all of the pod's host", pods: rules.flush("mangle", "")},
			{name: "locks, then marks of the pod's host", pods: rules.flush("mangle", "EGRESSIP-FORWARD"), later: lost},
			{name: "marks of the egress host", egress: lost},
			{name: "marks of both", egress: lost, pods: lost},
		} {
			if rules.six && damage.name != "marks of both" {
				continue // its rules are those of IPv4
			}
			t.Run(rules.name+"/"+damage.name, func(t *testing.T) {
				w, p := withHosts(t, rules, 1, false)
				n1, n2 := w.nodes[0], w.nodes[1]
				p.set(remote(7, n1))
				w.applyAll(t)
				w.seen.only(port, w.eip(1))
				stream, streamFar := w.connects(t, p, w.bastion.over("tcp"), port)
				datagrams, datagramsFar := w.connects(t, p, w.bastion.over("udp"), port)
				says := func(conns ...io.Writer) {
					for _, c := range conns {
						// By IPv6, packets without a mark are refused, and their connection ends.
						if _, err := c.Write([]byte("x")); !rules.six {
							must(t, err)
						}
					}
					w.linger(t)
				}

				n1.Run(t, damage.egress)
				n2.Run(t, damage.pods)
				n2.Do(t, func() {
					if n, err := conntrack.Delete(func(f conntrack.Flow) bool { return f.Source == p.ip }); err != nil || n < 2 {
						t.Fatalf("%d connections forgotten: %v", n, err)
					}
				})
				says(streamFar, datagramsFar)
				n2.Run(t, damage.later)
				says(stream, datagrams)
				w.applyAll(t)
				goOn := []net.Conn{datagrams}
				if !rules.six {
					goOn = append(goOn, stream)
				}
				for _, c := range goOn {
					before := w.seen.from(port, w.eip(1))
					testenv.UntilWithin(t, patience, "it goes on", func() bool {
						says(c) // the first may meet the error of one before
						return w.seen.from(port, w.eip(1)) > before
					})
				}
			})
		}
	}
}

// given: an egress host that has lost its marking of packets, or where others overwrite the
// marks of connections; when a pod elsewhere begins a connection, then it does not come about
// until that is repaired: its answers would not come over the overlay. With or without the
// guard at the uplink, no packet leaves.
//
// Mutant killed: connections begin that mangle has not noted.
func TestNoConnectionWhoseAnswersStray(t *testing.T) {
	const port = 9001
	overwrite := "nft add table inet foreign; " +
		"nft 'add chain inet foreign forward { type filter hook forward priority -10; }'; " +
		"nft add rule inet foreign forward ct mark set 0"
	for _, rules := range append(openRules(), ownTableShared().ofIPv6(), onlyNFT().ofIPv6()) {
		for _, damage := range []struct {
			name, made, mended string
			unguarded          bool
		}{
			{name: "no marking", made: rules.unjump("mangle", "PREROUTING")},
			{name: "marks overwritten", made: overwrite, mended: "nft delete table inet foreign"},
			{name: "marks overwritten, no guard", made: overwrite, mended: "nft delete table inet foreign", unguarded: true},
		} {
			t.Run(rules.name+"/"+damage.name, func(t *testing.T) {
				w, p := withHosts(t, rules, 1, false)
				n1 := w.nodes[0]
				p.set(remote(7, n1))
				w.applyAll(t)
				p.leaves(t, w.eip(1))
				w.seen.only(port)
				n1.Run(t, damage.made)
				if damage.unguarded {
					n1.Do(t, func() { must(t, bpf.RemoveGuards(n1.dp.nl)) })
				}
				if p.answers(t, w.bastion.outside(port)) {
					t.Error("a connection came about")
				}
				w.drain(t)
				n1.Run(t, damage.mended)
				w.applyAll(t)
				p.leaves(t, w.eip(1))
			})
		}
	}
}

// connects opens a connection from a pod to a port of the bastion, and gives both of
// its ends.
func (w *world) connects(t *testing.T, p *podMachine, network string, port int) (near net.Conn, far io.Writer) {
	t.Helper()
	address := w.bastion.outside(port)
	if strings.HasPrefix(network, "udp") {
		var l *net.UDPConn
		w.bastion.Do(t, func() {
			var err error
			l, err = net.ListenUDP(network, net.UDPAddrFromAddrPort(netip.MustParseAddrPort(address)))
			must(t, err)
		})
		t.Cleanup(func() { _ = l.Close() })
		near = p.dial(t, network, address)
		_, err := near.Write([]byte("x"))
		must(t, err)
		must(t, l.SetReadDeadline(time.Now().Add(testenv.Stretch(patience))))
		_, from, err := l.ReadFromUDPAddrPort(make([]byte, 1))
		must(t, err)
		return near, writerFunc(func(b []byte) (int, error) { return l.WriteToUDPAddrPort(b, from) })
	}
	var l net.Listener
	w.bastion.Do(t, func() {
		var err error
		l, err = (&net.ListenConfig{}).Listen(t.Context(), network, address)
		must(t, err)
	})
	defer l.Close()
	near = p.dial(t, network, address)
	c, err := l.Accept()
	must(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return near, c
}

// writerFunc is an io.Writer.
type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// linger is how long a test waits for what must not come.
const linger = 200 * time.Millisecond

// linger lets the senders go on for a while: long enough for some hundred
// packets of each to show a leak.
func (w *world) linger(t *testing.T) {
	t.Helper()
	until := time.Now().Add(testenv.Stretch(linger))
	testenv.UntilWithin(t, patience, "time passes", func() bool { return time.Now().After(until) })
	w.drain(t)
}

// given: an agent that died, its rules in place and connections open; when the
// next one starts, then it changes nothing, and the connections live.
func TestRestartChangesNothing(t *testing.T) {
	for _, rules := range slices.Concat(allRules(), rulesOfIPv6(), rulesWithoutIPv4()) {
		t.Run(rules.name, func(t *testing.T) {
			w := newWorld(t, 2, rules)
			n1, n2 := w.nodes[0], w.nodes[1]
			here, there := n1.addPod(t, "here", 2), n2.addPod(t, "there", 2)
			for i, ip := range []string{w.eip(3), w.eip(2), w.eip(1)} {
				n1.host(ip, uint32(7+i))
			}
			here.set(local(w.eip(2), 8))
			there.set(remote(8, n1))
			w.applyAll(t)
			n1.unhost(w.eip(1)) // its index falls free, and the others keep theirs
			w.applyAll(t)
			w.bastion.serveEcho(t, 7000)
			a, b := here.dial(t, w.bastion.over("tcp"), w.bastion.outside(7000)), there.dial(t, w.bastion.over("tcp"), w.bastion.outside(7000))
			echoes(t, a, 1000)
			echoes(t, b, 1000)
			for _, n := range w.nodes {
				n.start(t)
				n.settled(t)
			}
			echoes(t, a, 1000)
			echoes(t, b, 1000)
			here.leaves(t, w.eip(2))
			there.leaves(t, w.eip(2))
			n1.host(w.eip(1), 9)
			w.applyAll(t)
			echoes(t, a, 1000)
			echoes(t, b, 1000)
			here.leaves(t, w.eip(2))
			there.leaves(t, w.eip(2))
		})
	}
}

// given: an egress IP on one host, under traffic; when it moves to another and
// back, then open connections go on, and no packet has another source. A pod that sends while no
// host has the address gets no answer, and no reset either.
//
// Mutants killed: moves-are-told, pending-ipv6-is-reset.
func TestEgressIPMovesUnderTraffic(t *testing.T) {
	for _, rules := range slices.Concat(someRules(), rulesOfIPv6(), rulesWithoutIPv4()) {
		t.Run(rules.name, func(t *testing.T) {
			w := newWorld(t, 3, rules)
			n1, n2, n3 := w.nodes[0], w.nodes[1], w.nodes[2]
			p, q := n2.addPod(t, "p", 2), n1.addPod(t, "q", 2)
			n1.host(w.eip(1), 7)
			p.set(remote(7, n1))
			q.set(local(w.eip(1), 7))
			w.applyAll(t)
			sp, sq := startSender(t, p, w.bastion, 9001), startSender(t, q, w.bastion, 9002)
			w.seen.only(9001, w.eip(1))
			w.seen.only(9002, w.eip(1))
			w.flows(t, sp, w.eip(1))
			w.bastion.serveEcho(t, 7000)
			a, b := p.dial(t, p.over("tcp"), p.outside(7000)), q.dial(t, q.over("tcp"), q.outside(7000))
			echoes(t, a, 1000)
			echoes(t, b, 1000)
			others := []net.Conn{p.dial(t, p.over("tcp"), p.outside(7000)), q.dial(t, q.over("tcp"), q.outside(7000))}
			for round, to := range []*node{n3, n2, n1, n2, n3, n1} {
				w.seen.says(fmt.Sprintf("move %d, to %s", round, to.Name))
				// Release before claim, in any order of hosts in between.
				for _, n := range w.nodes {
					n.unhost(w.eip(1))
				}
				p.set(Pod{Kind: Drop})
				if round > 0 { // before, its agent finds out by itself that the address is not there
					q.set(Pod{Kind: Drop})
				}
				w.applyAll(t)
				if round == 0 {
					toldNothing(t, others)
				}
				to.host(w.eip(1), 7)
				for _, pod := range []*podMachine{p, q} {
					if pod.node == to {
						pod.set(local(w.eip(1), 7))
					} else {
						pod.set(remote(7, to))
					}
				}
				w.applyAll(t)
				w.flows(t, sp, w.eip(1))
				w.flows(t, sq, w.eip(1))
				echoes(t, a, 1000)
				echoes(t, b, 1000)
			}
		})
	}
}

// toldNothing sends on connections, and demands that nothing comes back.
func toldNothing(t *testing.T, connections []net.Conn) {
	t.Helper()
	for _, c := range connections {
		if err := tryEcho(c, 10, 100*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%v to %v, while no host has the egress IP: %v", c.LocalAddr(), c.RemoteAddr(), err)
		}
	}
}
