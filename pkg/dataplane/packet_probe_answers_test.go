package dataplane

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/pkg/probe"
)

// forgery answers a question of a prober, which it knows, in place of the host that was asked.
type forgery struct {
	what   string
	answer func(question overlaid, with probe.Message)
	// arrives: the prober gets it, and it is the prober that takes it for nothing.
	arrives bool
}

// forgeries answer each question of a node to a host, by what is chosen.
type forgeries struct {
	mu     sync.Mutex
	chosen []forgery
	with   probe.Message
}

func (f *forgeries) choose(with probe.Message, list ...forgery) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.chosen, f.with = list, with
}

func (f *forgeries) answer(o overlaid) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if o.message.Kind != probe.Question {
		return
	}
	for _, c := range f.chosen {
		m := o.message
		m.Kind, m.Ready, m.Away, m.Instance = probe.Answer, f.with.Ready, f.with.Away, 4711
		c.answer(o, m)
	}
}

// refuses says that a port to which a packet went is closed.
func (f forger) refuses(from, to netip.Addr, packet []byte) {
	b, protocol := append([]byte{3, 3, 0, 0, 0, 0, 0, 0}, packet...), byte(unix.IPPROTO_ICMP)
	if from.Is6() {
		b[0], b[1], protocol = 1, 4, unix.IPPROTO_ICMPV6
		binary.BigEndian.PutUint16(b[2:], checksumOver(from, to, protocol, b))
	} else {
		binary.BigEndian.PutUint16(b[2:], checksum(b))
	}
	_ = f.send(to, ipPacket(from, to, protocol, b))
}

// recorded are the last answers of a host.
type recorded struct {
	mu   sync.Mutex
	last []probe.Message
}

func (r *recorded) note(o overlaid) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if o.message.Kind == probe.Answer {
		r.last = append(r.last[max(0, len(r.last)-9):], o.message)
	}
}

func (r *recorded) all() []probe.Message {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last
}

// during waits until the prober has had some more outcomes of a kind, and returns what it had seen
// before and after.
func (p probing) during(what string, count func(probe.Stats) uint64) (before, after probe.Stats) {
	p.t.Helper()
	before = p.Stats()
	testenv.Eventually(p.t, func(context.Context) string {
		if after = p.Stats(); count(after)-count(before) < 4 {
			return fmt.Sprintf("%s: before %+v, now %+v", what, before, after)
		}
		return ""
	})
	return before, after
}

// saysNothing expects that forgeries change neither what the prober finds nor what it counts, and
// that they arrive, or do not.
func (p probing) saysNothing(what string, arrives bool, state probe.State, before, after probe.Stats) {
	p.t.Helper()
	if now := p.Hosts()[p.target]; now.State != state || after.WentOffline != before.WentOffline || after.CameBack != before.CameBack {
		p.t.Errorf("%s: the host is %v (%v), and was %v; before %+v, after %+v", what, now.State, now.Cause, state, before, after)
	}
	if stray := after.Stray - before.Stray; (stray > 0) != arrives {
		p.t.Errorf("%s: %d strays, and they arrive: %t", what, stray, arrives)
	}
}

// given: a node that probes a host. When others answer in its place that it is not ready, then it
// stays online; when the host is cut off, and others answer that it is well, then it stays silent: a
// machine on the LAN with the host's address that does not know what was asked, or answers again
// what the host has answered before; and, although they know what was asked, a machine on the LAN
// with its own address or another host's, a pod of the node, and a pod of the host, whose packets to
// the outside have the host's address. Who has the host's address and knows what was asked is
// believed: the network between the nodes must be trusted.
//
// Mutants killed: forged-sequences-count, forged-hosts-count, questions-count-as-answers,
// answers-count-from-anywhere, forged-refusals-count, strangers-answer,
// pods-answer-for-their-node, overlay-begins-with-an-answer.
func TestForgedAnswersSayNothing(t *testing.T) {
	// In iptables, that pods cannot send as hosts is up to the kernel's reverse path filter, and
	// IPv6 has none.
	for _, rules := range append(someRules(), ownTable().withoutIPv4()) {
		t.Run(rules.name, func(t *testing.T) {
			w, host, asker, stranger := newForgedWorld(t, rules)
			third := w.nodes[2]
			near, far := asker.addPod(t, "near", 2), host.addPod(t, "far", 2)
			near.set(Pod{Kind: Node})
			far.set(Pod{Kind: Node})
			w.applyAll(t)
			host.answers(t, true, time.Hour)
			replay := &recorded{}
			w.tapOverlay(t, host, replay.note)
			forged := &forgeries{}
			w.tapOverlay(t, asker, forged.answer)
			p := asker.probes(t, host)
			p.finds("all is well", probe.Online, probe.NoCause)

			lan, ofAsker, ofHost := newForger(t, stranger.machine, host.ip), newForger(t, near.machine, host.ip), newForger(t, far.machine, host.ip)
			atPort := func(ip netip.Addr) netip.AddrPort { return netip.AddrPortFrom(ip, probePort) }
			// over answers over the overlay, with two sources.
			over := func(f forger, outer netip.Addr, inner netip.AddrPort, change func(*probe.Message)) func(overlaid, probe.Message) {
				return func(q overlaid, m probe.Message) {
					if change != nil {
						change(&m)
					}
					f.overlay(probesVNI, between(outer, asker.ip, inner, q.inner.from, m))
				}
			}
			// direct answers past the overlay.
			direct := func(f forger, from netip.Addr, change func(*probe.Message)) func(overlaid, probe.Message) {
				return func(q overlaid, m probe.Message) {
					change(&m)
					f.udp(atPort(from), q.inner.from, m.Append(nil))
				}
			}
			refuses := func(q overlaid, _ probe.Message) {
				q.message.Sequence++
				lan.refuses(host.ip, asker.ip, udpPacket(q.inner.from, q.inner.to, q.message.Append(nil)))
			}
			token := func(m *probe.Message) { m.Token++ }
			none := func(*probe.Message) {}
			list := []forgery{
				{"the LAN as the host, another token", over(lan, host.ip, atPort(host.ip), token), true},
				{"the LAN as the host, another sequence", over(lan, host.ip, atPort(host.ip), func(m *probe.Message) { m.Sequence++ }), true},
				{"the LAN as the host, another host's name", over(lan, host.ip, atPort(host.ip), func(m *probe.Message) { m.Host++ }), true},
				{"the LAN as the host, a question", over(lan, host.ip, atPort(host.ip), func(m *probe.Message) { m.Kind = probe.Question }), true},
				{"the LAN as the host, from another port", over(lan, host.ip, netip.AddrPortFrom(host.ip, 40000), none), false},
				{"the LAN as the host, past the overlay, another token", direct(lan, host.ip, token), true},
				{"the LAN as the host, a refusal of another question", refuses, true},
				{"the LAN as the host, what it said before", func(q overlaid, _ probe.Message) {
					for _, m := range replay.all() {
						lan.overlay(probesVNI, between(host.ip, asker.ip, atPort(host.ip), q.inner.from, m))
					}
				}, true},
				{"the LAN as another host", over(lan, third.ip, atPort(third.ip), none), false},
				{"the LAN", over(lan, stranger.ip, atPort(stranger.ip), none), false},
				{"the LAN, with the host's address inside", over(lan, stranger.ip, atPort(host.ip), none), false},
				{"the LAN, past the overlay", direct(lan, stranger.ip, none), true},
				{"a pod of the node", over(ofAsker, near.ip, atPort(near.ip), none), false},
				{"a pod of the node, with the host's address inside", over(ofAsker, near.ip, atPort(host.ip), none), false},
				{"a pod of the node, with the host's address", over(ofAsker, host.ip, atPort(host.ip), none), false},
				{"a pod of the host", over(ofHost, far.ip, atPort(host.ip), none), false},
				{"a pod of the host, with its node's address", over(ofHost, host.ip, atPort(host.ip), none), false},
			}
			for _, m := range []probe.Message{{}, {Away: true}} {
				forged.choose(m, list...)
				before, after := p.during("others say that it is not well", func(s probe.Stats) uint64 { return s.Ready })
				p.saysNothing("others say that it is not well", true, probe.Online, before, after)
				if after.Unready+after.Refused > before.Unready+before.Refused {
					t.Errorf("others are believed: before %+v, after %+v", before, after)
				}
			}
			forged.choose(probe.Message{})
			p.during("nobody forges", func(s probe.Stats) uint64 { return s.Ready }) // what was sent has arrived

			host.Run(t, `nft 'table inet guard { chain in { type filter hook input priority -10; udp dport 9789 drop; }; }'`)
			p.finds("the host is cut off", probe.Offline, probe.Silent)
			for _, f := range list {
				forged.choose(probe.Message{Ready: true}, f)
				before, after := p.during(f.what, func(s probe.Stats) uint64 { return s.Missed })
				p.saysNothing(f.what, f.arrives, probe.Offline, before, after)
				if after.Ready+after.Refused+after.Late > before.Ready+before.Refused+before.Late {
					t.Errorf("%s: is believed: before %+v, after %+v", f.what, before, after)
				}
				forged.choose(probe.Message{})
				p.during("nobody forges", func(s probe.Stats) uint64 { return s.Missed })
			}
			// What arrives and is right counts: the test would see it.
			forged.choose(probe.Message{Ready: true}, forgery{answer: over(lan, host.ip, atPort(host.ip), none)})
			p.finds("somebody knows what was asked", probe.Online, probe.NoCause)
			for _, n := range w.nodes {
				n.Do(t, func() {
					if of, err := n.dp.countUsages(); err != nil || len(of) > 0 {
						t.Errorf("%s: packets count for egress IPs: %+v, %v", n.Name, of, err)
					}
				})
			}
		})
	}
}
