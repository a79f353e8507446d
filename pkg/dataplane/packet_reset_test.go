package dataplane

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/conntrack"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/warning"
)

// remoteFrom is remote, of network 7, with the source addresses that the hosts give.
func remoteFrom(sources map[*node]string) Pod {
	p := Pod{Kind: Remote, NetID: 7}
	for n, ip := range sources {
		p.Via = append(p.Via, n.ip)
		p.Sources = append(p.Sources, testenv.Addr(ip))
	}
	return p
}

// mute has the server outside never reset a connection, like a firewall before it
// that drops what it does not know: a reset that a pod sees is ours.
func (w *world) mute(t *testing.T) {
	t.Helper()
	w.bastion.Run(t, "for f in iptables ip6tables; do $f-nft -A OUTPUT -p tcp --tcp-flags RST RST -j DROP; done")
}

// resets expects that the machine is told at once, as soon as it goes on with a
// connection, that it has ended.
func resets(t *testing.T, c net.Conn) {
	t.Helper()
	if err := tryEcho(c, 10, testenv.Stretch(patience)); !isReset(err) {
		t.Fatalf("%v to %v: not reset: %v", c.LocalAddr(), c.RemoteAddr(), err)
	}
}

func isReset(err error) bool { return errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EPIPE) }

// resetsIdle expects that the machine is told soon that a connection has ended, though
// it only waits for data.
func resetsIdle(t *testing.T, c net.Conn) {
	t.Helper()
	must(t, c.SetReadDeadline(time.Now().Add(testenv.Stretch(patience))))
	if _, err := c.Read(make([]byte, 1)); !isReset(err) {
		t.Fatalf("%v to %v: not reset: %v", c.LocalAddr(), c.RemoteAddr(), err)
	}
}

// hangs expects that a connection neither goes on nor ends.
func hangs(t *testing.T, c net.Conn) {
	t.Helper()
	if err := tryEcho(c, 10, testenv.Stretch(500*time.Millisecond)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("%v to %v: does not hang: %v", c.LocalAddr(), c.RemoteAddr(), err)
	}
}

// The echo server outside, in tests of connections.
const (
	echoPort    = 9000
	echoAddress = bastionIP + ":9000"
)

// withHosts gives each of the first hosts an egress IP, for network 7; one more has a
// pod, and resets connections or does not.
func withHosts(t *testing.T, rules rulesOf, hosts int, reset bool) (*world, *podMachine) {
	t.Helper()
	w := newWorld(t, hosts+1, rules)
	of := w.nodes[hosts]
	of.cfg.ResetConnections = reset
	of.start(t)
	w.bastion.serveEcho(t, echoPort)
	w.mute(t)
	w.seen.only(echoPort, w.egressIPs()[:hosts]...)
	for i, n := range w.nodes[:hosts] {
		n.host(w.eip(i+1), 7)
	}
	return w, of.addPod(t, "p", 2)
}

// given: connections through an egress host; when the pod's namespace goes on with
// another host and address, then they are reset at once, also where the pod only waits
// for data and nothing else would end it, and new ones are made at once. One whose
// address merely moved to another host goes on. What is closed is left alone.
//
// Mutants killed: no-reset, moved-address-is-reset, no-ack-is-elicited, closed-is-reset.
func TestConnectionsThroughADeadHostAreReset(t *testing.T) {
	for _, rules := range slices.Concat(allRules(), rulesOfIPv6()) {
		t.Run(rules.name, func(t *testing.T) {
			w, p := withHosts(t, rules, 2, true)
			n1, n2, n3 := w.nodes[0], w.nodes[1], w.nodes[2]
			p.set(remoteFrom(map[*node]string{n1: w.eip(1)}))
			w.applyAll(t)
			dial := func() net.Conn {
				c := p.dial(t, w.bastion.over("tcp"), w.bastion.outside(echoPort))
				echoes(t, c, 10)
				return c
			}
			broken, closed := dial(), dial()
			must(t, closed.Close())
			testenv.UntilWithin(t, patience, "the closed connection is known as such", func() bool {
				return slices.ContainsFunc(n3.tracked(t), func(f conntrack.Flow) bool { return f.State == nl.TCP_CONNTRACK_TIME_WAIT })
			})

			// The host dies, as the pod's own host sees it.
			p.set(remoteFrom(map[*node]string{n2: w.eip(2)}))
			n3.apply(t)
			resetsIdle(t, broken)
			if noted := n3.Run(t, rules.list(setResets)); strings.Count(noted, p.ip.String()+rules.next()) != 1 {
				t.Errorf("noted, of one open connection and one closed:\n%s", noted)
			}
			echoes(t, dial(), 1000)
			w.applySettled(t)

			// The address moves to another host.
			moving := dial()
			n2.unhost(w.eip(2))
			n2.apply(t)
			n1.unhost(w.eip(1))
			n1.apply(t)
			n1.host(w.eip(2), 7)
			n1.apply(t)
			p.set(remoteFrom(map[*node]string{n1: w.eip(2)}))
			n3.apply(t)
			echoes(t, moving, 10)

			// The pod's way changes here: to the address of its own host.
			n3.host(w.eip(3), 7)
			w.seen.only(echoPort, w.eip(2), w.eip(3))
			p.set(local(w.eip(3), 7))
			n3.apply(t)
			resets(t, moving)
			echoes(t, dial(), 10)
			w.applySettled(t)
		})
	}
}

// given: a connection whose pod has just answered a segment outside of its window, of which
// its kernel answers one in 500 ms; when its host dies, then it is reset at once all the same.
//
// Mutant killed: elicited-acks-are-limited.
func TestConnectionsAreResetAfterAnotherAnswer(t *testing.T) {
	for _, rules := range []rulesOf{ownTable(), ownTable().ofIPv6()} {
		t.Run(rules.name, func(t *testing.T) {
			w, p := withHosts(t, rules, 2, true)
			n1, n2, n3 := w.nodes[0], w.nodes[1], w.nodes[2]
			p.set(remoteFrom(map[*node]string{n1: w.eip(1)}))
			w.applyAll(t)
			var l net.Listener
			w.bastion.Do(t, func() {
				var err error
				l, err = new(net.ListenConfig).Listen(t.Context(), w.bastion.over("tcp"), w.bastion.outside(echoPort+1))
				must(t, err)
			})
			defer func() { must(t, l.Close()) }()
			c := p.dial(t, w.bastion.over("tcp"), w.bastion.outside(echoPort+1))
			server, err := l.Accept()
			must(t, err)
			defer func() { must(t, server.Close()) }()
			probesWindow(t, server)

			p.set(remoteFrom(map[*node]string{n2: w.eip(2)}))
			n3.apply(t)
			resetsIdle(t, c)
		})
	}
}

// probesWindow has one end of an idle connection send segments that are outside of the
// other's window, until one is answered.
func probesWindow(t *testing.T, c net.Conn) {
	t.Helper()
	raw, err := c.(*net.TCPConn).SyscallConn()
	must(t, err)
	received := func() (segments uint32) {
		must(t, raw.Control(func(fd uintptr) {
			info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
			must(t, err)
			segments = info.Segs_in
		}))
		return segments
	}
	before := received()
	testenv.UntilWithin(t, patience, "a window probe is answered", func() bool {
		must(t, raw.Control(func(fd uintptr) {
			// The kernel sends a window probe when a socket goes on after its repair.
			must(t, unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_REPAIR, 1))
			must(t, unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_REPAIR, 0))
		}))
		return received() > before
	})
}

// given: a connection to a service whose endpoint is outside; when its egress host dies,
// then the server resets it: a reset of ours would come from the endpoint, which the pod
// does not know.
//
// Mutant killed: translated-is-reset.
func TestConnectionsThroughAServiceAreResetByTheServer(t *testing.T) {
	for _, rules := range slices.Concat(someRules(), rulesOfIPv6()) {
		t.Run(rules.name, func(t *testing.T) {
			w, p := withHosts(t, rules, 2, true)
			n1, n2, n3 := w.nodes[0], w.nodes[1], w.nodes[2]
			w.bastion.Run(t, "iptables-nft -F OUTPUT; ip6tables-nft -F OUTPUT") // the server speaks
			clusterIP := map[bool]string{false: "10.96.0.10", true: "fd00:96::10"}[rules.six]
			p.set(remoteFrom(map[*node]string{n1: w.eip(1)}))
			w.applyAll(t)
			rules.service(t, n3, clusterIP, w.bastion.outside(echoPort))
			c := p.dial(t, w.bastion.over("tcp"), net.JoinHostPort(clusterIP, "80"))
			echoes(t, c, 10)
			p.set(remoteFrom(map[*node]string{n2: w.eip(2)}))
			n3.apply(t)
			resets(t, c)
		})
	}
}

// given: a pod whose connections are spread over hosts, and busy all the time; when a
// host dies, then the connections through it are reset, and the others go on.
//
// Mutants killed: all-of-a-pod-are-reset; any-host-for-a-flows-own.
func TestOnlyConnectionsThroughTheDeadHostAreReset(t *testing.T) {
	for _, c := range []struct {
		hosts int
		rules rulesOf
	}{{2, onlyNFT()}, {3, onlyNFT()}, {3, ownTable().ofIPv6()}} {
		hosts := c.hosts
		t.Run(fmt.Sprintf("%d hosts, %s", hosts, c.rules.name), func(t *testing.T) {
			w, p := withHosts(t, c.rules, hosts, true)
			sources := map[*node]string{}
			for i, n := range w.nodes[:hosts] {
				sources[n] = w.eip(i + 1)
			}
			p.set(remoteFrom(sources))
			w.applyAll(t)
			var doomed, others []net.Conn
			for range 12 * hosts {
				before := w.seen.from(echoPort, w.eip(1))
				c := p.dial(t, w.bastion.over("tcp"), w.bastion.outside(echoPort))
				echoes(t, c, 10)
				w.drain(t)
				if w.seen.from(echoPort, w.eip(1)) > before {
					doomed = append(doomed, c)
				} else {
					others = append(others, c)
				}
			}
			if len(doomed) == 0 || len(others) == 0 {
				t.Fatalf("%d connections go through one host, %d through others", len(doomed), len(others))
			}
			stop := make(chan struct{})
			busy := func(conns []net.Conn) (ends []chan error) {
				for _, c := range conns {
					end := make(chan error, 1)
					ends = append(ends, end)
					go func() {
						for {
							select {
							case <-stop:
								end <- nil
								return
							default:
							}
							if err := tryEcho(c, 10, testenv.Stretch(patience)); err != nil {
								end <- err
								return
							}
						}
					}()
				}
				return ends
			}
			ends, goOn := busy(doomed), busy(others)
			before := w.seen.total(echoPort)
			testenv.UntilWithin(t, patience, "all are busy", func() bool { return w.seen.total(echoPort) > before+1000 })

			delete(sources, w.nodes[0])
			p.set(remoteFrom(sources))
			p.node.apply(t)
			for _, end := range ends {
				if err := <-end; !isReset(err) {
					t.Errorf("through the dead host: %v, want a reset", err)
				}
			}
			close(stop)
			for _, end := range goOn {
				if err := <-end; err != nil {
					t.Errorf("through another host: %v", err)
				}
			}
		})
	}
}

// given: connections through the only egress host; when another joins, as when it comes
// back, then they go on through the first.
//
// Mutant killed: the host of a connection noted only where there are several.
func TestConnectionsStayWhenAHostJoins(t *testing.T) {
	w, p := withHosts(t, onlyNFT(), 2, true)
	n1, n2, n3 := w.nodes[0], w.nodes[1], w.nodes[2]
	w.seen.only(echoPort, eip1)
	p.set(remoteFrom(map[*node]string{n1: eip1}))
	w.applyAll(t)
	var conns []net.Conn
	for range 16 {
		c := p.dial(t, "tcp4", echoAddress)
		echoes(t, c, 10)
		conns = append(conns, c)
	}
	p.set(remoteFrom(map[*node]string{n1: eip1, n2: eip2}))
	n3.apply(t)
	for _, c := range conns {
		echoes(t, c, 10)
	}
	w.drain(t)
}

// given: a kernel whose set for resets is of another kind, as one that lacks it; when
// the agent works, then all but the resets does, and a warning says so. When the set can be as
// it must, then there is no warning.
//
// Mutant killed: missing-resets-are-not-told.
func TestAllElseWorksWithoutResets(t *testing.T) {
	w := newWorld(t, 1, onlyNFT())
	n := w.nodes[0]
	n.cfg.ResetConnections = true
	n.start(t)
	n.Run(t, "ipset create "+setResets+" hash:ip")
	n.host(eip1, 7)
	p := n.addPod(t, "p", 2)
	p.set(local(eip1, 7))
	n.warnsOnly(t, warning.NotReset, "--reset-connections", "pods get no resets", setResets, "set --reset-connections=false")
	p.leaves(t, eip1)
	n.settled(t)
	n.Run(t, "ipset destroy "+setResets)
	n.warnsNoMore(t)
	n.settled(t)
}

// given: resets switched off; when the host of a connection dies, then it hangs,
// as without us.
//
// Mutant killed: resets whatever the switch says.
func TestNoResetWhereSwitchedOff(t *testing.T) {
	w, p := withHosts(t, onlyNFT(), 2, false)
	n1, n2, n3 := w.nodes[0], w.nodes[1], w.nodes[2]
	p.set(remoteFrom(map[*node]string{n1: eip1}))
	w.applyAll(t)
	c := p.dial(t, "tcp4", echoAddress)
	echoes(t, c, 10)
	p.set(remoteFrom(map[*node]string{n2: eip2}))
	n3.apply(t)
	hangs(t, c)
}

// tracked lists the tracked connections.
func (m *machine) tracked(t *testing.T) (list []conntrack.Flow) {
	t.Helper()
	m.Do(t, func() {
		_, err := conntrack.Find(func(f conntrack.Flow) bool { list = append(list, f); return false })
		must(t, err)
	})
	return list
}
