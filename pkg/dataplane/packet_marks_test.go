package dataplane

import (
	"fmt"
	"testing"
)

// given: other software that marks each packet of a node's pods before ours sees it, with all bits but
// ours, or with all; then pods with egress IPs and without reach what is inside, and their
// packets have the bits that are not ours all the way; to the outside each leaves with the
// address that it would have without these marks: bits of ours on packets of pods are
// nobody else's.
//
// Mutants killed: other-bits-are-cleared, other-bits-are-cleared-by-sets, bits-of-others-are-ways.
func TestMarksOfOthersOnPackets(t *testing.T) {
	for _, rules := range someRules() {
		t.Run(rules.name, func(t *testing.T) {
			w := newWorld(t, 2, rules)
			n1, n2 := w.nodes[0], w.nodes[1]
			here, there, plain, dropped := n1.addPod(t, "here", 2), n1.addPod(t, "there", 3), n1.addPod(t, "plain", 4), n1.addPod(t, "dropped", 5)
			web, near := n2.addPod(t, "web", 2), n1.addPod(t, "near", 6)
			for _, m := range []*podMachine{web, near} {
				m.serveWhoami(t, ":80")
			}
			n1.serveWhoami(t, ":80")
			rules.service(t, n1, "10.96.0.10", web.ip.String()+":80")
			n1.host(eip1, 7)
			n2.host(eip2, 8)
			here.set(local(eip1, 7))
			there.set(remote(8, n2))
			plain.set(Pod{Kind: Node})
			dropped.set(Pod{Kind: Drop})
			w.applyAll(t)
			n1.Run(t, rules.iptables()+" -t raw -N OTHERS; "+rules.iptables()+" -t raw -A PREROUTING -i cni0 -s "+n1.pods.String()+" -j OTHERS")
			others := ^n1.dp.cfg.Marks.Mask
			for _, mark := range []uint32{others, ^uint32(0)} {
				// Before connection tracking; what has lost a bit ends in FORWARD or INPUT.
				n1.Run(t, fmt.Sprintf(`%[1]s -t raw -F OTHERS; %[1]s -t raw -A OTHERS -j MARK --set-mark %[2]d
					lost="-s 10.244.1.0/24 -m mark ! --mark %[3]d/%[3]d -j DROP"
					for c in FORWARD INPUT; do %[1]s -C $c $lost 2>/dev/null || %[1]s -A $c $lost; done`, rules.iptables(), mark, others))
				for _, p := range []*podMachine{here, there, plain, dropped} {
					for _, to := range []string{web.ip.String(), near.ip.String(), n1.ip.String(), n1.gateway(), "10.96.0.10"} {
						if from, err := p.whoami(t, to+":80"); err != nil || from != p.ip.String() {
							t.Errorf("mark %#x: %s at %s: seen as %q, %v", mark, p.Name, to, from, err)
						}
					}
				}
				here.leaves(t, eip1)
				there.leaves(t, eip2)
				plain.leaves(t, n1.ip.String())
				if dropped.answers(t, bastionIP+":8080") {
					t.Errorf("mark %#x: the dropped pod leaves", mark)
				}
			}
		})
	}
}
