package dataplane

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
)

// away stops the agents of all nodes, and waits until they are not present any more.
func (w *world) away(t *testing.T) {
	t.Helper()
	for _, n := range w.nodes {
		n.stop(t)
	}
	for _, n := range w.nodes {
		n.start(t)
		testenv.UntilWithin(t, patience, "the agent of "+n.Name+" is away", func() bool { return !n.isPresent(t) })
		n.stop(t)
	}
}

func (n *node) isPresent(t *testing.T) (is bool) {
	t.Helper()
	n.Do(t, func() {
		content, err := n.dp.nft.Observe()
		must(t, err)
		for _, where := range presences() {
			if !where.table || content.Has(setPresent) {
				present, _, err := n.dp.present(where)
				must(t, err)
				is = is || present
			}
		}
	})
	return is
}

// given: strict classification; when no agent runs any more, then pods with egress IPs
// leave as before, or not at all, and after a while a new pod leaves as without us; when
// the agents are back, all is as before.
//
// Mutants killed: strict-without-end, presence-is-not-renewed,
// presence-of-a-waiting-agent-ends, strict-of-ipv6-has-no-end.
func TestStrictEndsWithoutAnAgent(t *testing.T) {
	for _, rules := range slices.Concat(someRules(), rulesOfIPv6()) {
		t.Run(rules.name, func(t *testing.T) {
			w := newWorld(t, 2, rules)
			n1, n2 := w.nodes[0], w.nodes[1]
			for _, n := range w.nodes {
				n.state.Strict = true
				n.cfg.AwayAfter = testenv.Stretch(2 * time.Second)
				n.start(t)
			}
			here, there, drop := n1.addPod(t, "here", 2), n2.addPod(t, "there", 2), n2.addPod(t, "drop", 3)
			n1.host(w.eip(1), 7)
			here.set(local(w.eip(1), 7))
			there.set(remote(7, n1))
			drop.set(Pod{Kind: Drop})
			w.applyAll(t)
			fresh := n2.addPod(t, "fresh", 4)
			w.seen.only(9001, w.eip(1))
			w.seen.only(9002, w.eip(1))
			w.seen.only(9003)
			w.seen.only(9004)
			var senders []*sender
			for i, p := range []*podMachine{here, there, drop, fresh} {
				senders = append(senders, startSender(t, p, w.bastion, uint16(9001+i)))
			}

			// An agent that works, and one that waits, are present for as long as they are.
			w.seen.says("working")
			stays := func(do func(n *node)) {
				until, turn, longest := time.Now().Add(n1.cfg.AwayAfter+200*time.Millisecond), time.Now(), time.Duration(0)
				defer func() {
					if t.Failed() {
						t.Logf("the longest turn of all agents took %v; they are away after %v", longest, n1.cfg.AwayAfter)
					}
				}()
				testenv.UntilWithin(t, patience, "time passes", func() bool {
					for _, n := range w.nodes {
						do(n)
					}
					longest, turn = max(longest, time.Since(turn)), time.Now()
					return turn.After(until)
				})
				w.drain(t)
			}
			stays(func(n *node) { n.apply(t) })
			w.seen.says("waiting")
			for _, n := range w.nodes {
				n.start(t)
			}
			stays(func(n *node) { n.Do(t, func() { must(t, n.dp.StayPresent()) }) })

			w.seen.says("away")
			w.seen.only(9004, n2.own())
			w.away(t)
			w.flows(t, senders[3], n2.own())
			w.flows(t, senders[0], w.eip(1))
			w.flows(t, senders[1], w.eip(1))
			w.silent(t, senders[2])
			for _, n := range w.nodes {
				n.start(t)
				// One that waits does not bring back what has ended.
				n.Do(t, func() { must(t, n.dp.StayPresent()) })
			}
			w.flows(t, senders[3], n2.own())

			w.seen.says("back")
			w.seen.only(9004, n2.own(), w.eip(1))
			fresh.set(remote(7, n1))
			w.applyAll(t)
			w.flows(t, senders[3], w.eip(1))
			w.seen.only(9005, w.eip(1))
			w.flows(t, startSender(t, fresh, w.bastion, 9005), w.eip(1))
			w.applySettled(t)
		})
	}
}

// given: pods with egress IPs, which have sent; when no agent runs any more, and another
// pod gets the address of one that has ended, then it leaves as without us, and never
// with the egress IP; the others go on. When the agents are back, it is what they say.
//
// Mutants killed: heir-has-the-egress-ip, heir-is-locked, heir-is-learned,
// senders-are-remembered, present-before-the-sets-are, heir-of-ipv6-has-the-egress-ip.
func TestReusedAddressHasNoEgressIP(t *testing.T) {
	for _, rules := range bothFamilies() {
		t.Run(rules.name, func(t *testing.T) {
			w := newWorld(t, 2, rules)
			n1, n2 := w.nodes[0], w.nodes[1]
			for _, n := range w.nodes {
				n.state.Strict = true
				// Far longer than a busy machine keeps a pass waiting: the kernel records who sends
				// only while the agent is present, and tells no heir from a pod that it never saw.
				n.cfg.AwayAfter = testenv.Stretch(5 * time.Second)
				n.start(t)
			}
			here, there, drop := n1.addPod(t, "here", 2), n2.addPod(t, "there", 2), n1.addPod(t, "drop", 3)
			n1.host(w.eip(1), 7)
			here.set(local(w.eip(1), 7))
			there.set(remote(7, n1))
			drop.set(Pod{Kind: Drop})
			w.applyAll(t)
			w.seen.only(9001, w.eip(1))
			stays := startSender(t, there, w.bastion, 9001)
			w.flows(t, stays, w.eip(1))
			w.seen.only(9002)
			dropped := startSender(t, drop, w.bastion, 9002)
			testenv.UntilWithin(t, patience, "the kernel has recorded who sends", func() bool {
				n1.apply(t) // it records nothing while the agent is away
				here.leaves(t, w.eip(1))
				bound := n1.Run(t, rules.list("egress-bound"))
				return strings.Contains(bound, here.ip.String()) && strings.Contains(bound, drop.ip.String())
			})
			w.silent(t, dropped)

			end := func(p *podMachine) { p.node.Run(t, "ip link delete v-"+p.Name) }
			// A pod that has ended while an agent was there says nothing of the next one, which
			// is silent.
			first := n1.addPod(t, "first", 4)
			first.set(Pod{Kind: Drop})
			n1.apply(t)
			if first.answers(t, w.bastion.outside(8080)) {
				t.Fatal("a dropped pod got an answer")
			}
			end(first)
			first.unset()
			n1.apply(t)
			second := n1.addPod(t, "second", 4)
			second.set(Pod{Kind: Drop})
			n1.apply(t)

			w.away(t)
			w.seen.only(9007)
			w.silent(t, startSender(t, second, w.bastion, 9007))
			end(here)
			end(drop)
			heirs := []*podMachine{n1.addPod(t, "heir", 2), n1.addPod(t, "heir2", 3)}
			for i, p := range heirs {
				w.seen.only(uint16(9003+i), n1.own())
				w.flows(t, startSender(t, p, w.bastion, uint16(9003+i)), n1.own())
			}
			w.flows(t, stays, w.eip(1))

			// The one is without an egress IP, the other one has it.
			w.seen.only(9004, n1.own(), w.eip(1))
			for _, n := range w.nodes {
				n.start(t)
			}
			heirs[0].set(Pod{Kind: Node})
			heirs[1].set(local(w.eip(1), 7))
			w.applyAll(t)
			w.flows(t, startSender(t, heirs[0], w.bastion, 9005), n1.own())
			w.seen.only(9006, w.eip(1))
			last := startSender(t, heirs[1], w.bastion, 9006)
			w.flows(t, last, w.eip(1))
			w.away(t)
			w.flows(t, last, w.eip(1))
			w.linger(t)
		})
	}
}

// given: strict classification, and a node whose agent has just ended; when a pod without
// egress IPs ends, and a pod that the agent has never seen gets its address, then nothing of
// it leaves with the node's address while the agent counts as present; pods that go on are
// not touched. Then it leaves as without us, until an agent knows it.
//
// Mutants killed: known-addresses-come-by-new-links, known-links-are-new,
// known-addresses-never-leave.
func TestReusedAddressOfAPlainPod(t *testing.T) {
	for _, rules := range bothFamilies() {
		t.Run(rules.name, func(t *testing.T) {
			w := newWorld(t, 2, rules)
			n1, n2 := w.nodes[0], w.nodes[1]
			for _, n := range w.nodes {
				n.state.Strict = true
				n.cfg.AwayAfter = testenv.Stretch(5 * time.Second)
				n.start(t)
			}
			there, plain, other := n2.addPod(t, "there", 2), n2.addPod(t, "plain", 3), n2.addPod(t, "other", 4)
			n1.host(w.eip(1), 7)
			there.set(remote(7, n1))
			plain.set(Pod{Kind: Node})
			other.set(Pod{Kind: Node})
			w.applyAll(t)
			w.seen.only(9001, w.eip(1))
			w.seen.only(9002, n2.own())
			w.seen.only(9003)
			stays, goesOn := startSender(t, there, w.bastion, 9001), startSender(t, other, w.bastion, 9002)
			w.flows(t, stays, w.eip(1))
			w.flows(t, goesOn, n2.own())

			w.seen.says("present")
			n2.stop(t)
			n2.Run(t, "ip link delete v-plain")
			heir := n2.addPod(t, "heir", 3)
			sends := startSender(t, heir, w.bastion, 9003)
			w.silent(t, sends)
			w.flows(t, goesOn, n2.own())
			w.flows(t, stays, w.eip(1))

			w.seen.says("away")
			w.seen.only(9003, n2.own())
			w.away(t)
			w.flows(t, sends, n2.own())

			w.seen.says("back")
			w.seen.only(9003, n2.own(), w.eip(1))
			for _, n := range w.nodes {
				n.start(t)
			}
			plain.unset()
			heir.set(remote(7, n1))
			w.applyAll(t)
			w.flows(t, sends, w.eip(1))
			w.flows(t, goesOn, n2.own())
			w.applySettled(t)
		})
	}
}
