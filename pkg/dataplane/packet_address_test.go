package dataplane

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
)

// onUplink are the ways in which hosts have their own address.
type onUplink struct {
	promote, localnet, bits int
	// inOrder: an egress IP must stand behind the host's address, and where that
	// went and came back, the next pass sees to it.
	inOrder bool
}

func (o onUplink) String() string {
	return fmt.Sprintf("promote_secondaries=%d, route_localnet=%d, prefix %d", o.promote, o.localnet, o.bits)
}

func allUplinks() []onUplink {
	return []onUplink{
		{bits: 24},
		{promote: 1, localnet: 1, bits: 24},
		{bits: 32},
		{promote: 1, bits: 32},
		{promote: 1, localnet: 1, bits: 32, inOrder: true},
	}
}

// configure gives a node its own address and routes, as its network daemon does when
// the device comes up.
func (o onUplink) configure(n *node, device string) string {
	other := 3 - n.index
	set := fmt.Sprintf("ip address add %v/%d dev %s\n", n.ip, o.bits, device)
	if o.bits == 32 {
		set += fmt.Sprintf("ip route replace 192.168.7.0/24 dev %s scope link\n", device)
	}
	return set + fmt.Sprintf("ip route replace default via 192.168.7.1\nip route replace 10.244.%d.0/24 via 192.168.7.%d", other, 10+other)
}

func (o onUplink) remove(n *node, device string) string {
	return fmt.Sprintf("ip address delete %v/%d dev %s", n.ip, o.bits, device)
}

// given: hosts with egress IPs, and senders without a pause: pods with an egress IP on
// this host, on the other one, and with none, and the host itself; when the host's
// own address goes and comes back in all the ways in which it does, with an agent or
// without, then no packet has an egress IP that is not its namespace's, be it the outer
// packet of the overlay; and the host and all pods have their network again, the host
// without the agent's help.
//
// Kills the mutants that give egress IPs the host's prefix length everywhere, and that
// let packets without a mark of ours pass the guard with an egress IP.
func TestAddressIsTheNamespacesAlone(t *testing.T) {
	for _, rules := range []rulesOf{onlyNFT(), ownTable()} {
		t.Run(rules.name, func(t *testing.T) {
			for _, on := range allUplinks() {
				t.Run(on.String(), func(t *testing.T) {
					w := newWorld(t, 2, rules)
					n1, n2 := w.nodes[0], w.nodes[1]
					n1.Run(t, fmt.Sprintf("sysctl -qw net.ipv4.conf.eth0.promote_secondaries=%d net.ipv4.conf.all.route_localnet=%d; ip address flush dev eth0\n%s",
						on.promote, on.localnet, on.configure(n1, "eth0")))
					here, away, plain := n1.addPod(t, "here", 2), n1.addPod(t, "away", 3), n1.addPod(t, "plain", 4)
					n1.host(eip1, 7)
					n1.host(eip3, 9)
					n2.host(eip2, 8)
					here.set(local(eip1, 7))
					away.set(remote(8, n2))
					plain.set(Pod{Kind: Node})
					w.applyAll(t)

					cable, outer := newCapture(t, w.router, "eth0"), newCapture(t, n2.machine, "eth0")
					// While the host has no address, the kernel takes that of another device. What began
					// so keeps it, and is answered as well.
					w.router.Run(t, fmt.Sprintf("ip route add %v via %v", n1.pods, n1.ip))
					own := []string{n1.ip.String(), n1.gateway()}
					outer.only(9789, own...)
					w.seen.only(9001, eip1)
					w.seen.only(9002, eip2)
					w.seen.only(9003, own...)
					w.seen.only(9004, own...)
					cable.only(9005, own...)
					senders := map[*sender]string{
						startSender(t, here, w.bastion, 9001):  eip1,
						startSender(t, away, w.bastion, 9002):  eip2,
						startSender(t, plain, w.bastion, 9003): own[0],
						startSender(t, n1, w.bastion, 9004):    own[0],
					}
					w.router.serveEcho(t, 9005)
					n1.sendsTo(t, "192.168.7.1:9005")
					device := "eth0"
					for _, d := range disturbances() {
						if d.strips && on.inOrder {
							continue
						}
						w.seen.says(d.name)
						cable.says(d.name)
						outer.says(d.name)
						gone := d.gone(on, n1, device)
						if d.renames != "" {
							device = d.renames
						}
						n1.Run(t, gone)
						w.linger(t)
						if d.served {
							_, _ = n1.tryApply(t)
						}
						n1.Run(t, d.back(on, n1, device))
						if !on.inOrder {
							n1.leaves(t, own[0])
						}
						w.linger(t)
						n1.apply(t)
						n1.settled(t)
						n1.leaves(t, own[0])
						for s, source := range senders {
							w.flows(t, s, source)
						}
					}
					if cable.from(9005, own[0]) == 0 || outer.from(9789, own[0]) == 0 {
						t.Error("the captures beside the host have not seen its packets")
					}
				})
			}
		})
	}
}

// disturbance is something that befalls the host's own address.
type disturbance struct {
	name string
	// served: an agent works while the address is away.
	served bool
	// renames is the name that the device gets.
	renames string
	// strips: the kernel takes our label off an egress IP that is not hidden.
	strips     bool
	gone, back func(on onUplink, n *node, device string) string
}

func disturbances() []disturbance {
	configure := func(on onUplink, n *node, device string) string { return on.configure(n, device) }
	removed := func(on onUplink, n *node, device string) string { return on.remove(n, device) }
	up := func(on onUplink, n *node, device string) string {
		return "ip link set " + device + " up\n" + strings.Replace(on.configure(n, device), "ip address add", "ip address replace", 1)
	}
	down := func(_ onUplink, _ *node, device string) string { return "ip link set " + device + " down" }
	rename := func(to string, before func(onUplink, *node, string) string) func(onUplink, *node, string) string {
		return func(on onUplink, n *node, device string) string {
			return fmt.Sprintf("%s; ip link set %s down; ip link set %[2]s name %s", before(on, n, device), device, to)
		}
	}
	return []disturbance{
		{name: "address removed and added", gone: removed, back: configure},
		{name: "address removed and added while an agent works", served: true, gone: removed, back: configure},
		{name: "all addresses flushed", gone: func(_ onUplink, _ *node, device string) string { return "ip address flush dev " + device }, back: configure},
		{name: "device down and up", gone: down, back: up},
		{name: "device renamed", renames: "lan0", gone: rename("lan0", down), back: up},
		{name: "device renamed without the address", strips: true, renames: "eth0", gone: rename("eth0", removed), back: up},
		{name: "device renamed without the address while an agent works", served: true, renames: "lan0", gone: rename("lan0", removed), back: up},
	}
}

// sendsTo makes a machine send UDP packets to an address, each from a new socket whose
// source the kernel chooses, until the test ends.
func (m *machine) sendsTo(t *testing.T, address string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan struct{})
	go func() {
		defer close(done)
		until(ctx, m, 2*time.Millisecond, func() {
			if c, err := net.Dial("udp4", address); err == nil {
				_, _ = c.Write([]byte("x"))
				_ = c.Close()
			}
		})
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
}

// given: egress IPs as an earlier version put them, on a host whose kernel would make
// them its first address, or has done so already; when the agent comes, then they get
// the safe form, and no packet of a pod is lost.
//
// Kills the mutant that leaves the former form.
func TestAddressOfFormerFormIsReplacedUnderTraffic(t *testing.T) {
	for _, rules := range faultRules() {
		t.Run(rules.name, func(t *testing.T) {
			for _, first := range []bool{false, true} {
				t.Run(fmt.Sprintf("egress IPs first: %t", first), func(t *testing.T) {
					w := newWorld(t, 2, rules)
					n1, n2 := w.nodes[0], w.nodes[1]
					here, there := n1.addPod(t, "here", 2), n2.addPod(t, "there", 2)
					n1.host(eip1, 7)
					n1.host(eip2, 8)
					here.set(local(eip1, 7))
					there.set(remote(8, n1))
					w.applyAll(t)
					n1.Run(t, "sysctl -qw net.ipv4.conf.eth0.promote_secondaries=1")
					pods := []*podMachine{here, there}
					if first {
						pods = nil // the overlay has lost its source, and the guard of this version drops such packets
						n1.Run(t, "ip address delete 192.168.7.11/24 dev eth0; ip address add 192.168.7.11/24 dev eth0; ip route replace default via 192.168.7.1")
					}
					w.bastion.serveEcho(t, 7000)
					w.seen.only(7000, eip1, eip2)
					var all sync.WaitGroup
					ctx, cancel := context.WithCancel(t.Context())
					lost := make([]error, 2)
					sent := make([]atomic.Int64, 2)
					for i, p := range pods {
						c := p.dial(t, "udp4", bastionIP+":7000")
						echoes(t, c, 10)
						all.Go(func() {
							for ctx.Err() == nil && lost[i] == nil {
								lost[i] = tryEcho(c, 10, testenv.Stretch(time.Second))
								sent[i].Add(1)
							}
						})
					}
					// Pods send before, during and after the passes, however soon these are over.
					sending := func(packets int64) {
						t.Helper()
						if goal := packets + min(sent[0].Load(), sent[1].Load()); !first {
							testenv.UntilWithin(t, patience, "packets of each pod", func() bool { return min(sent[0].Load(), sent[1].Load()) >= goal })
						}
					}
					sending(5)
					n1.apply(t)
					n1.settled(t)
					sending(5)
					cancel()
					all.Wait()
					if lost[0] != nil || lost[1] != nil {
						t.Errorf("lost: %v, of %d and %d packets", lost, sent[0].Load(), sent[1].Load())
					}
					shown := n1.Run(t, "ip -4 -oneline address show dev eth0")
					for _, ip := range []string{eip1, eip2} {
						if !strings.Contains(shown, ip+"/32 scope nowhere eth0:eip") {
							t.Errorf("%s has not the form that it needs:\n%s", ip, shown)
						}
					}
					n1.leaves(t, n1.ip.String())
					here.leaves(t, eip1)
					there.leaves(t, eip2)
				})
			}
		})
	}
}

// given: a setting of the kernel that changes; then an egress IP gets the form that is
// safe with it, and is reachable in each.
func TestFormFollowsTheSettings(t *testing.T) {
	for _, rules := range faultRules() {
		t.Run(rules.name, func(t *testing.T) {
			w := newWorld(t, 1, rules)
			n := w.nodes[0]
			here := n.addPod(t, "here", 2)
			n.host(eip1, 7)
			here.set(local(eip1, 7))
			for _, c := range []struct{ set, want string }{
				{"promote_secondaries=0", "/24 brd 192.168.7.255 scope global secondary eth0:eip"},
				{"promote_secondaries=1", "/32 scope nowhere eth0:eip"},
				{"arp_ignore=1", "/32 scope nowhere eth0:eip"},
				{"arp_ignore=2", "/32 scope nowhere eth0:eip"},
				{"arp_ignore=3", "/32 scope global eth0:eip"},
				{"arp_ignore=0", "/32 scope nowhere eth0:eip"},
				{"promote_secondaries=0", "/24 brd 192.168.7.255 scope global secondary eth0:eip"},
			} {
				n.Run(t, "sysctl -qw net.ipv4.conf.eth0."+c.set)
				n.apply(t)
				n.settled(t)
				if shown := n.Run(t, "ip -4 -oneline address show dev eth0"); !strings.Contains(shown, eip1+c.want) {
					t.Errorf("%s: want %s%s, have\n%s", c.set, eip1, c.want, shown)
				}
				w.router.Run(t, "ip neigh flush dev eth0")
				here.leaves(t, eip1)
				n.leaves(t, n.ip.String())
			}
		})
	}
}

// given: a NodePort; when a client outside asks for it at an egress IP, then it gets no
// answer: the answer would come from the egress IP, which is another namespace's.
func TestNoNodePortAtAnEgressIP(t *testing.T) {
	for _, rules := range faultRules() {
		t.Run(rules.name, func(t *testing.T) {
			w := newWorld(t, 1, rules)
			n := w.nodes[0]
			web := n.addPod(t, "web", 2)
			web.serveWhoami(t, ":80")
			n.host(eip1, 7)
			web.set(Pod{Kind: Node})
			n.apply(t)
			n.Run(t, fmt.Sprintf("%s -t nat -A PREROUTING -p tcp --dport %d -m addrtype --dst-type LOCAL -j DNAT --to-destination %v:80", rules.iptables(), nodePort, web.ip))
			if got, err := w.bastion.whoami(t, fmt.Sprintf("%v:%d", n.ip, nodePort)); err != nil || got != bastionIP {
				t.Errorf("at the host's address: %q, %v", got, err)
			}
			if w.bastion.answers(t, fmt.Sprintf("%s:%d", eip1, nodePort)) {
				t.Error("the NodePort answers at the egress IP")
			}
		})
	}
}

// given: a server that sends to a pod on another node more than the overlay takes; then
// the egress host's error reaches the server, although the host sends it from the
// egress IP.
func TestServersLearnThePathMTUOfTheOverlay(t *testing.T) {
	for _, rules := range faultRules() {
		t.Run(rules.name, func(t *testing.T) {
			w := newWorld(t, 2, rules)
			n1, n2 := w.nodes[0], w.nodes[1]
			there := n2.addPod(t, "there", 2)
			n1.host(eip1, 7)
			there.set(remote(7, n1))
			w.applyAll(t)
			var server *net.UDPConn
			w.bastion.Do(t, func() {
				var err error
				server, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(bastionIP), Port: 7000})
				must(t, err)
			})
			defer server.Close()
			raw, err := server.SyscallConn()
			must(t, err)
			must(t, raw.Control(func(fd uintptr) {
				must(t, unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO))
			}))
			_, err = there.dial(t, "udp4", bastionIP+":7000").Write([]byte("x"))
			must(t, err)
			must(t, server.SetReadDeadline(time.Now().Add(testenv.Stretch(patience))))
			_, from, err := server.ReadFromUDPAddrPort(make([]byte, 1))
			must(t, err)
			testenv.UntilWithin(t, patience, "the server learns the path MTU", func() bool {
				_, err := server.WriteToUDPAddrPort(make([]byte, 1472), from)
				return errors.Is(err, unix.EMSGSIZE)
			})
		})
	}
}
