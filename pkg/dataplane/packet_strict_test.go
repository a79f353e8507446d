package dataplane

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
)

// given: strict classification; when a pod that the State does not have sends, then
// nothing leaves; and what it began goes on once it is known, from the right
// source.
//
// Mutant killed: rules.ChainTo without its DROP of unknown sources, by which the
// connection would be tracked, without source rewriting, before its pod is known; and
// strict-is-of-ipv4-alone.
func TestStrictHoldsWhatIsNotKnownYet(t *testing.T) {
	for _, rules := range slices.Concat(allRules(), rulesOfIPv6()) {
		t.Run(rules.name, func(t *testing.T) {
			w := newWorld(t, 2, rules)
			n1, n2 := w.nodes[0], w.nodes[1]
			for _, n := range w.nodes {
				n.state.Strict = true
			}
			n1.host(w.eip(1), 7)
			w.applyAll(t)
			plain, here, there := n1.addPod(t, "plain", 2), n1.addPod(t, "here", 3), n2.addPod(t, "there", 2)
			pods := []*podMachine{plain, here, there}
			want := []string{n1.own(), w.eip(1), w.eip(1)}
			var senders []*sender
			for i, p := range pods {
				w.seen.only(uint16(9001 + i))
				senders = append(senders, startSender(t, p, w.bastion, uint16(9001+i)))
			}
			w.linger(t)
			for _, s := range senders {
				w.silent(t, s)
			}
			plain.serveWhoami(t, plain.web())
			if from, err := there.whoami(t, plain.web()); err != nil || from != there.ip.String() {
				t.Fatalf("pod to pod: seen as %q, %v", from, err)
			}
			for i := range pods {
				w.seen.only(uint16(9001+i), want[i])
			}
			plain.set(Pod{Kind: Node})
			here.set(local(w.eip(1), 7))
			there.set(remote(7, n1))
			w.applyAll(t)
			for i := range pods {
				w.flows(t, senders[i], want[i])
			}
			w.applySettled(t)
		})
	}
}

// given: a host with egress IPs and services of its own; when a client asks for
// them at an egress IP, or speaks to the overlay without being a host, then
// there is no answer. A pod whose packets the CNI gives its node's address is no host,
// by whatever address or service it reaches the overlay's port.
//
// Kills the mutants that take packets to any address of the host, what services lead to
// the port, or what pods send to that port outside.
func TestEgressIPsAndOverlayTakeNothingFromStrangers(t *testing.T) {
	for _, rules := range someRules() {
		t.Run(rules.name, func(t *testing.T) {
			w := newWorld(t, 2, rules)
			n1, n2 := w.nodes[0], w.nodes[1]
			n1.serveWhoami(t, ":22")
			n1.host(eip1, 7)
			for _, n := range w.nodes {
				n.state.Inside = append(n.state.Inside, netip.MustParsePrefix("192.168.7.99/32")) // another address of n1
			}
			p, plain := n2.addPod(t, "p", 2), n2.addPod(t, "plain", 3)
			p.set(remote(7, n1))
			plain.set(Pod{Kind: Node})
			w.applyAll(t)
			for _, m := range []*machine{w.bastion, n2.machine, p.machine, n1.machine} {
				if m.answers(t, eip1+":22") {
					t.Fatalf("%s got an answer from %s", m.Name, eip1)
				}
			}
			if from, err := w.bastion.whoami(t, n1.ip.String()+":22"); err != nil || from != bastionIP {
				t.Fatalf("the host's own address: %q, %v", from, err)
			}

			// Packets of VXLAN that would leave with the egress IP, if they
			// were taken: from a pod, and from a machine on the LAN.
			w.seen.only(9009)
			forged := forge(7, netip.MustParseAddrPort(p.ip.String()+":1000"), netip.MustParseAddrPort(bastionIP+":9009"))
			stranger := newMachine(t, "stranger")
			w.plug(t, stranger, "192.168.7.66/24")
			stranger.Run(t, "ip route add default via 192.168.7.1")
			other := n1.addPod(t, "other", 3)
			n1.Run(t, "ip address add 192.168.7.99/32 dev eth0")
			// As other software may do.
			n1.Run(t, rules.iptables()+" -t raw -A PREROUTING -p udp -d 192.168.7.99 -j NOTRACK")
			dnat := rules.iptables() + " -t nat -A PREROUTING -p udp -d %s --dport %d -j DNAT --to-destination " + n1.ip.String() + ":9789"
			n1.Run(t, fmt.Sprintf(dnat, n1.ip, 30090))
			n2.Run(t, fmt.Sprintf(dnat, n2.ip, 30090)+"; "+rules.iptables()+" -t nat -A POSTROUTING -p udp --dport 9789 -m conntrack --ctstate DNAT -j MASQUERADE")
			w.router.Run(t, fmt.Sprintf("iptables-nft -t nat -A PREROUTING -p udp -d %s --dport %d -j DNAT --to-destination %s", "203.0.113.5", 9789, n1.ip))
			for _, m := range []*machine{p.machine, other.machine, stranger, w.bastion, plain.machine} {
				for _, to := range []string{n1.ip.String() + ":9789", "192.168.7.99:9789", n1.ip.String() + ":30090", n2.ip.String() + ":30090", "203.0.113.5:9789"} {
					c := m.dial(t, "udp4", to)
					for range 5 {
						_, _ = c.Write(forged)
					}
				}
			}
			w.linger(t)
			// The same packet from a host does: the test would see it.
			w.seen.only(9009, eip1)
			c := n2.dial(t, "udp4", n1.ip.String()+":9789")
			_, err := c.Write(forged)
			must(t, err)
			testenv.UntilWithin(t, patience, "the packet from a host arrives", func() bool { return w.seen.from(9009, eip1) > 0 })
		})
	}
}

// answers reports whether a TCP connection is made within a short time.
func (m *machine) answers(t *testing.T, to string) (ok bool) {
	t.Helper()
	m.Do(t, func() {
		d := net.Dialer{Timeout: linger}
		c, err := d.DialContext(t.Context(), "tcp"+family(to), to)
		if ok = err == nil; ok {
			_ = c.Close()
		}
	})
	return ok
}
