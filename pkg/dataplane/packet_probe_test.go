package dataplane

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/pkg/probe"
)

const probePort = 9788

// probing is a node that probes another one over the overlay.
type probing struct {
	*probe.Prober
	t      *testing.T
	target string
}

// probes has the node probe another one, until the test ends.
func (n *node) probes(t *testing.T, other *node) probing {
	t.Helper()
	c := probe.DefaultConfig().WithInterval(testenv.Stretch(40 * time.Millisecond))
	c.HoldDown, c.MaxHoldDown = 0, 0
	p, err := probe.NewProber(probe.ProberConfig{Config: c, Source: n.ip, Port: probePort, Device: overlayName})
	must(t, err)
	must(t, p.SetTargets([]probe.Target{{Name: other.Name, Addr: other.ip, Overlay: true}}))
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var all sync.WaitGroup
	all.Go(func() {
		n.Do(t, func() {
			if err := p.Run(ctx); err != nil {
				t.Error(err)
			}
		})
	})
	t.Cleanup(func() {
		cancel()
		all.Wait()
	})
	return probing{Prober: p, t: t, target: other.Name}
}

// finds waits until the probes have found the host in a state for that cause.
func (p probing) finds(what string, state probe.State, cause probe.Cause) {
	p.t.Helper()
	testenv.Eventually(p.t, func(context.Context) string {
		if h := p.Hosts()[p.target]; h.State != state || h.Cause != cause {
			return fmt.Sprintf("%s: %s is %v (%v), want %v (%v); %+v", what, p.target, h.State, h.Cause, state, cause, p.Stats())
		}
		return ""
	})
}

// goesOn expects more answers of a kind, which a count of Stats gives, and that the host
// stays as it was meanwhile.
func (p probing) goesOn(what string, count func(probe.Stats) uint64) {
	p.t.Helper()
	before, state := p.Stats(), p.Hosts()[p.target].State
	testenv.Eventually(p.t, func(context.Context) string {
		if more := count(p.Stats()) - count(before); more < 10 {
			return fmt.Sprintf("%s: %d more answers, want 10; %+v", what, more, p.Stats())
		}
		return ""
	})
	after := p.Stats()
	if now := p.Hosts()[p.target].State; now == probe.Offline != (state == probe.Offline) || after.WentOffline != before.WentOffline || after.CameBack != before.CameBack {
		p.t.Errorf("%s: %s was %v and is %v; before %+v, after %+v", what, p.target, state, now, before, after)
	}
}

// answers sets what the node's kernel answers.
func (n *node) answers(t *testing.T, ready bool, valid time.Duration) {
	t.Helper()
	must(t, n.dp.AnswerProbes(Answer{HostIP: n.ip, Instance: 7, Host: probe.HostHash(n.Name), Ready: ready, Valid: valid}))
}

// TestProbesTravelTheOverlay: probes find a host silent if and only if the overlay does
// not carry: what guards the host itself does not matter, nor does its agent, which is
// reported apart.
func TestProbesTravelTheOverlay(t *testing.T) {
	ready := func(s probe.Stats) uint64 { return s.Ready }
	for _, rules := range someRules() {
		t.Run(rules.name, func(t *testing.T) {
			w := newWorld(t, 2, rules)
			asker, host := w.nodes[0], w.nodes[1]
			for _, n := range w.nodes {
				n.cfg.ProbePort = probePort
				n.start(t)
			}
			w.applyAll(t)
			p := asker.probes(t, host)
			p.finds("the agent has not said anything yet", probe.Offline, probe.Silent)
			host.answers(t, true, time.Hour)
			p.finds("all is well", probe.Online, probe.NoCause)

			// In one transaction: no probe is lost.
			host.Run(t, `nft 'table ip guard { chain in { type filter hook input priority -10; policy drop; udp dport 9789 accept; }; }'`)
			p.goesOn("a firewall lets the overlay in, and nothing else", ready)

			host.answers(t, false, time.Hour)
			p.finds("the data plane does not work", probe.Offline, probe.NotReady)
			host.answers(t, true, 0)
			p.goesOn("the agent is away", func(s probe.Stats) uint64 { return s.Refused })
			host.answers(t, true, time.Hour)
			p.finds("the agent is back", probe.Online, probe.NoCause)
			host.stop(t)
			p.goesOn("the agent has just died", ready)
			host.start(t)
			host.apply(t)

			host.Run(t, "nft insert rule ip guard in udp dport 9789 drop")
			p.finds("the port of the overlay is closed", probe.Offline, probe.Silent)
			host.Run(t, "nft delete table ip guard")
			p.finds("it is open again", probe.Online, probe.NoCause)

			host.Run(t, "tc filter del dev egress0 ingress")
			p.finds("the programs at the overlay are gone", probe.Offline, probe.Silent)
			host.apply(t)
			host.answers(t, true, time.Hour)
			p.finds("they are back", probe.Online, probe.NoCause)

			asker.Run(t, "ip link del egress0")
			asker.apply(t)
			p.finds("the asker's overlay was replaced", probe.Online, probe.NoCause)
			p.goesOn("and carries its probes", ready)
			w.applySettled(t)
		})
	}
}
