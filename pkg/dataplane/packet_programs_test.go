package dataplane

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/bpf"
)

// log keeps what a machine received: payload -> the sources it came from.
type receiveLog struct {
	mu      sync.Mutex
	sources map[string][]netip.Addr
}

// receiveUDP notes and answers each UDP packet to the port until the test ends.
func (m *machine) receiveUDP(t *testing.T, port uint16) *receiveLog {
	t.Helper()
	return m.receiveUDPAt(t, fmt.Sprintf(":%d", port))
}

// receiveUDPAt is receiveUDP at an address and port.
func (m *machine) receiveUDPAt(t *testing.T, at string) *receiveLog {
	t.Helper()
	l := &receiveLog{sources: map[string][]netip.Addr{}}
	var u net.PacketConn
	m.Do(t, func() {
		var err error
		u, err = (&net.ListenConfig{}).ListenPacket(t.Context(), m.over("udp"), at)
		must(t, err)
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 8192)
		for {
			n, from, err := u.ReadFrom(b)
			if err != nil {
				return
			}
			l.mu.Lock()
			source := netip.MustParseAddrPort(from.String()).Addr()
			if p := string(b[:n]); !slices.Contains(l.sources[p], source) {
				l.sources[p] = append(l.sources[p], source)
			}
			l.mu.Unlock()
			_, _ = u.WriteTo(b[:n], from)
		}
	}()
	t.Cleanup(func() { _ = u.Close(); <-done })
	return l
}

// of gives the sources of a payload.
func (l *receiveLog) of(payload string) []netip.Addr {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.sources[payload])
}

// forget forgets what was received so far.
func (l *receiveLog) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.sources)
}

// speak sends a payload and waits until it has come back, over and over where
// it does not.
func speak(t *testing.T, c net.Conn, payload string) {
	t.Helper()
	testenv.UntilWithin(t, patience, payload[:min(len(payload), 20)]+" is answered", func() bool {
		b := make([]byte, 8192)
		_ = c.SetDeadline(time.Now().Add(testenv.Stretch(time.Second)))
		if _, err := c.Write([]byte(payload)); err != nil {
			return false
		}
		n, err := c.Read(b)
		return err == nil && string(b[:n]) == payload
	})
}

// given: a pod whose namespace spreads over egress IPs on two hosts; when it
// opens many connections, then they spread; when hosts are listed in another
// order, or another one is added, then each connection keeps its source.
//
// Kills the mutants that choose by the hash alone, without a memory of the
// choice: half of the connections move when the list turns around; and that
// remember nothing of a packet's first fragment: the others go elsewhere; and ipv6-has-no-ports.
func TestConnectionsSpreadAndKeepTheirHost(t *testing.T) {
	const connections = 60
	for _, rules := range []rulesOf{onlyNFT(), ownTable().ofIPv6(), ownTable().withoutIPv4()} {
		t.Run(rules.name, func(t *testing.T) {
			w := newWorld(t, 4, rules)
			n1, n2, n3, pods := w.nodes[0], w.nodes[1], w.nodes[2], w.nodes[3]
			pod := pods.addPod(t, "pod", 2)
			n1.host(w.eip(1), 7)
			n2.host(w.eip(2), 7)
			n3.host(w.eip(3), 7)
			pod.set(remote(7, n1, n2))
			w.applyAll(t)
			seen := w.bastion.receiveUDP(t, 9000)

			open := map[string]net.Conn{}
			count := map[netip.Addr]int{}
			for i := range connections {
				id := fmt.Sprintf("connection %d", i)
				open[id] = pod.dial(t, w.bastion.over("udp"), w.bastion.outside(9000))
				speak(t, open[id], id)
				if s := seen.of(id); len(s) == 1 {
					count[s[0]]++
				}
			}
			// Fair coins fall below 10 of 60 about once in ten million times.
			if count[testenv.Addr(w.eip(1))] < 10 || count[testenv.Addr(w.eip(2))] < 10 || count[testenv.Addr(w.eip(1))]+count[testenv.Addr(w.eip(2))] != connections {
				t.Fatalf("sources of %d connections: %v", connections, count)
			}
			for _, via := range [][]*node{{n2, n1}, {n3, n2, n1}, {n1, n3, n2}} {
				pod.set(remote(7, via...))
				pods.apply(t)
				for id, c := range open {
					// Only the first fragment has ports.
					large := id + strings.Repeat(".", 4000)
					speak(t, c, id)
					speak(t, c, large)
					if small, all := seen.of(id), seen.of(large); len(small) != 1 || !slices.Equal(small, all) {
						t.Fatalf("%s: small packets came from %v, large ones from %v", id, small, all)
					}
				}
			}

			// One host is no longer among them: what it carried goes elsewhere.
			pod.set(remote(7, n2, n3))
			pods.apply(t)
			for id, c := range open {
				speak(t, c, id)
				s := seen.of(id)
				if moved := s[0] == testenv.Addr(w.eip(1)); moved != (len(s) == 2) {
					t.Fatalf("%s came from %v", id, s)
				}
			}
		})
	}
}

// sendUDP sends one packet from the machine.
func (m *machine) sendUDP(t *testing.T, to string, payload []byte) {
	t.Helper()
	m.sendUDPOver(t, "udp4", to, payload)
}

// sendUDPOver is sendUDP over a network of package net.
func (m *machine) sendUDPOver(t *testing.T, network, to string, payload []byte) {
	t.Helper()
	m.Do(t, func() {
		c, err := net.Dial(network, to)
		must(t, err)
		defer c.Close()
		_, err = c.Write(payload)
		must(t, err)
	})
}

// given: an egress IP for a network; when a packet of that network comes over
// the overlay from a machine that is no host, or one of another network from a
// host, or one to a pod or to the inside, then it is dropped.
//
// Kills the mutants without the rule in INPUT, without the one in FORWARD, and
// without the drop of packets that have no index.
func TestOverlayTakesPacketsOfHostsAndKnownNetworksAlone(t *testing.T) {
	for _, rules := range someRules() {
		t.Run(rules.name, func(t *testing.T) {
			w := newWorld(t, 2, rules)
			host, other := w.nodes[0], w.nodes[1]
			pod, near := other.addPod(t, "pod", 2), host.addPod(t, "near", 2)
			host.host(eip1, 7)
			pod.set(remote(7, host))
			near.set(Pod{Kind: Node})
			w.applyAll(t)
			seen, inside := w.bastion.receiveUDP(t, 9000), near.receiveUDP(t, 9000)
			port := uint16(5000)
			packet := func(netID uint32, to netip.AddrPort, text string) []byte {
				port++ // each a connection of its own
				return vxlan(netID, netip.AddrPortFrom(pod.ip, port), to, []byte(text))
			}
			out, in := netip.MustParseAddrPort(bastionIP+":9000"), netip.AddrPortFrom(near.ip, 9000)
			overlay := host.ip.String() + ":9789"

			w.router.sendUDP(t, overlay, packet(7, out, "from a machine that is no host"))
			w.bastion.sendUDP(t, overlay, packet(7, out, "from outside"))
			pod.sendUDP(t, overlay, packet(7, out, "from a pod"))
			near.sendUDP(t, overlay, packet(7, out, "from a pod of the host"))
			other.sendUDP(t, overlay, packet(8, out, "of a network that is not hosted"))
			other.sendUDP(t, overlay, packet(7, in, "to a pod"))
			other.sendUDP(t, overlay, packet(7, netip.AddrPortFrom(host.ip, 9000), "to the host"))
			other.sendUDP(t, overlay, packet(7, netip.AddrPortFrom(other.ip, 9000), "back to a host"))

			// What a host sends for its pod comes, and all before it has been seen.
			other.sendUDP(t, overlay, packet(7, out, "as it should be"))
			testenv.UntilWithin(t, patience, "the one good packet", func() bool { return len(seen.of("as it should be")) > 0 })
			for _, l := range []*receiveLog{seen, inside} {
				l.mu.Lock()
				for text, sources := range l.sources {
					if text != "as it should be" || sources[0] != testenv.Addr(eip1) {
						t.Errorf("a packet %s went through, from %v", text, sources)
					}
				}
				l.mu.Unlock()
			}
		})
	}
}

// given: a host that does not know a pod's packets any more; what the pod's
// host sends is dropped there by the program itself, without any rule.
func TestProgramDropsWhatItDoesNotKnow(t *testing.T) {
	w := newWorld(t, 2, onlyNFT())
	host, other := w.nodes[0], w.nodes[1]
	pod := other.addPod(t, "pod", 2)
	host.host(eip1, 7)
	pod.set(remote(7, host))
	w.applyAll(t)
	s := startSender(t, pod, w.bastion, 9001)
	w.seen.only(9001, eip1)
	w.flows(t, s, eip1)
	must(t, other.dp.maps.DeleteRoute(pod.ip))
	w.silent(t, s)
	other.apply(t)
	w.flows(t, s, eip1)
	must(t, host.dp.maps.DeleteHosted(bpf.Network{NetID: 7}))
	w.silent(t, s)
	host.apply(t)
	w.flows(t, s, eip1)
	if out := other.Run(t, "tc -statistics filter show dev egress0 egress"); !strings.Contains(out, "direct-action") {
		t.Fatalf("programs: %s", out)
	}
}
