package dataplane

import (
	"testing"
)

// given: a pod that sends without a pause; when its way changes, from each way
// to each other, then no packet ever has a source other than the two ways'.
//
// Mutants killed: phaseForget left out; phaseMark before phaseLock; rules.ChainPinned
// without its DROP (a connection of the overlay would leave with the pod's own
// address when its pod becomes local).
func TestNoPacketLeaksWhileAWayChanges(t *testing.T) {
	for _, rules := range allRules() {
		t.Run(rules.name, func(t *testing.T) {
			w := newWorld(t, 3, rules)
			n1, n2, n3 := w.nodes[0], w.nodes[1], w.nodes[2]
			p := n2.addPod(t, "p", 2)
			n1.host(eip1, 7)
			n2.host(eip2, 7)
			n2.host(eip3, 8)
			n3.host(eip3, 9)
			n3.unhost(eip3)
			p.set(Pod{Kind: Node})
			w.applyAll(t)
			const port = 9000
			s := startSender(t, p, w.bastion, port)
			// The host itself would reset what arrives for connections that it
			// has forgotten. That is no packet of the pod, and only confuses.
			n2.Run(t, rules.iptables()+" -A INPUT -s "+bastionIP+" -j DROP")

			ways := []way{
				{"node", Pod{Kind: Node}, n2.ip.String()},
				{"local", local(eip2, 7), eip2},
				{"remote", remote(7, n1), eip1},
				{"drop", Pod{Kind: Drop}, ""},
				{"local elsewhere", local(eip3, 8), eip3},
			}
			c := changing{world: w, pod: p, sender: s, at: ways[0]}
			for _, from := range ways {
				for _, to := range ways {
					if from.name != to.name {
						c.to(t, from)
						c.to(t, to)
					}
				}
			}
		})
	}
}

// way is one that a pod can have, and the source that the bastion sees; none where it is dropped.
type way struct {
	name   string
	pod    Pod
	source string
}

// changing is a pod that sends without a pause while its way changes.
type changing struct {
	*world
	pod    *podMachine
	sender *sender
	// at is the way that the pod has.
	at way
}

// to gives the pod another way: no packet has another source than the two ways' meanwhile, and that of
// the new one afterwards.
func (c *changing) to(t *testing.T, to way) {
	t.Helper()
	var both, one []string
	for _, source := range []string{c.at.source, to.source} {
		if source != "" {
			both = append(both, source)
		}
	}
	if to.source != "" {
		one = append(one, to.source)
	}
	c.seen.only(c.sender.port, both...)
	c.seen.says("from " + c.at.name + " to " + to.name)
	c.pod.set(to.pod)
	c.pod.node.apply(t)
	// Now, and not later: the old source is gone.
	c.drain(t)
	c.seen.only(c.sender.port, one...)
	c.seen.says("after " + c.at.name + " to " + to.name)
	if to.source != "" {
		c.flows(t, c.sender, to.source)
	} else {
		c.silent(t, c.sender)
	}
	c.pod.node.settled(t)
	c.at = to
	if t.Failed() {
		t.FailNow()
	}
}
