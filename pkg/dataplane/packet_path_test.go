package dataplane

import (
	"testing"
)

// given: a namespace with an egress IP on n1; when its pods on all nodes reach
// out, then all bear that egress IP, and other pods that of their node.
func TestPodsLeaveWithTheirEgressIP(t *testing.T) {
	for _, rules := range allRules() {
		t.Run(rules.name, func(t *testing.T) {
			w := newWorld(t, 3, rules)
			n1, n2, n3 := w.nodes[0], w.nodes[1], w.nodes[2]
			here, there, plain := n1.addPod(t, "here", 2), n2.addPod(t, "there", 2), n2.addPod(t, "plain", 3)
			dropped := n3.addPod(t, "dropped", 2)
			n1.host(eip1, 7)
			here.set(local(eip1, 7))
			there.set(remote(7, n1))
			plain.set(Pod{Kind: Node})
			dropped.set(Pod{Kind: Drop})
			w.applyAll(t)

			here.leaves(t, eip1)
			there.leaves(t, eip1)
			plain.leaves(t, n2.ip.String())
			w.applySettled(t)
		})
	}
}

func (w *world) applySettled(t *testing.T) {
	t.Helper()
	for _, n := range w.nodes {
		n.settled(t)
	}
}
