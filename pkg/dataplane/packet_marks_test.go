package dataplane

import (
	"fmt"
	"slices"
	"strings"
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

// given: other software that overwrites the mark of each packet, or of its connection, at
// any point behind ours, on the egress host or on the pod's; then no pod leaves with another
// source than without it, and nobody else with an egress IP. Where our rules have a table of
// their own, marks of packets that have lost ours are given back, and all that leave without it
// do so with it.
//
// Mutants killed: other-marks-are-unlocked, overwritten-marks-pass, pinned-mark-is-lost,
// marks-before-others, mark-of-the-overlay-is-lost, leaving-without-a-lock, two-marks-leave,
// lost-marks-of-the-overlay-leave, foreign-marks-of-plain-pods-pass, held-marks-are-not-given-back,
// lost-marks-to-the-overlay, marked-packets-are-not-ours, locked-packets-are-not-ours,
// ways-to-the-overlay-are-not-given-again.
func TestMarksThatOthersOverwrite(t *testing.T) {
	for _, rules := range slices.Concat(someRules(), rulesOfIPv6()) {
		t.Run(rules.name, func(t *testing.T) {
			w := newWorld(t, 2, rules)
			n1, n2 := w.nodes[0], w.nodes[1]
			here, far, plain := n1.addPod(t, "here", 2), n2.addPod(t, "far", 3), n1.addPod(t, "plain", 4)
			n1.host(w.eip(1), 7)
			n1.host(w.eip(2), 8)
			here.set(local(w.eip(1), 7))
			far.set(remote(7, n1))
			plain.set(Pod{Kind: Node})
			w.applyAll(t)
			all := []markedSender{
				{here.machine, 9001, w.eip(1)}, {far.machine, 9002, w.eip(1)}, {plain.machine, 9003, n1.own()}, {n1.machine, 9004, n1.own()},
			}
			for _, s := range all {
				w.seen.only(uint16(s.port), s.source)
			}
			w.overwritesMarks(t, rules, n1, all)
			w.overwritesMarks(t, rules, n2, all[1:2])
		})
	}
}

// markedSender sends to a port of its own, and must be seen with a source.
type markedSender struct {
	*machine
	port   int
	source string
}

// overwritesMarks has other software on a node overwrite marks at any point, while some send by
// that node.
func (w *world) overwritesMarks(t *testing.T, rules rulesOf, at *node, senders []markedSender) {
	t.Helper()
	send := func() {
		for _, s := range senders {
			c := s.dial(t, s.over("udp"), s.outside(s.port))
			_, err := c.Write([]byte("x"))
			must(t, err)
		}
		w.drain(t)
	}
	overwrite := func(hook, what string) {
		w.seen.says(what + " in " + hook + " of " + at.Name)
		at.Run(t, fmt.Sprintf("nft 'table inet others; delete table inet others; table inet others { chain c { type filter hook %s; %s; }; }'", hook, what))
	}
	marks := at.dp.cfg.Marks
	// No bits; bits of ours that no way has alone; the marks of both egress IPs; all.
	zero, bits := "mark set 0", "mark set 5"
	values := []string{zero, bits, "mark set 0xffffffff"}
	for i := range 2 {
		values = append(values, fmt.Sprintf("mark set %#x", marks.Index(marks.FirstIndex()+i)))
	}
	for _, hook := range []string{"prerouting priority -140", "prerouting priority -90", "forward priority -160", "forward priority -140", "forward priority 10", "postrouting priority -140", "postrouting priority 60"} {
		for _, value := range values {
			for _, of := range []string{"meta ", "ct "} {
				// In iptables, nothing of ours is behind these but source NAT.
				if late := strings.HasPrefix(hook, "post"); late && !rules.table() && value != zero && value != bits {
					continue
				}
				overwrite(hook, of+value)
				send()
				if carried := of == "meta " && (value == zero || value == bits); carried && rules.table() {
					for _, s := range senders {
						if from, err := s.whoami(t, s.outside(8080)); err != nil || from != s.source {
							t.Errorf("%s in %s of %s: %s is seen as %q (%v), expected %s", of+value, hook, at.Name, s.Name, from, err, s.source)
						}
					}
				}
			}
		}
		if rules.table() {
			overwrite(hook, "meta mark set 0; ct mark set 0")
			send()
		}
	}
	if !rules.table() {
		at.Run(t, rules.flush("mangle", ""))
		overwrite("prerouting priority -90", "meta "+bits)
		send()
		at.apply(t)
	}
	at.Run(t, "nft delete table inet others")
	for _, s := range senders {
		s.leaves(t, s.source)
	}
}

// given: other software that marks, with bits of ours, what comes to pods and to egress IPs from
// the uplink, and all that pods send; then pods of all ways reach those of another node, and
// are reached by these and by a machine outside, with the addresses that they would have
// without such marks, and what is outside answers egress IPs.
//
// Mutants killed: answers-to-pods-keep-marks, answers-to-egress-ips-keep-marks,
// answers-of-pods-keep-marks.
func TestMarksOfOthersOnAnswers(t *testing.T) {
	for _, rules := range slices.Concat(someRules(), rulesOfIPv6()) {
		t.Run(rules.name, func(t *testing.T) {
			w := newWorld(t, 2, rules)
			n1, n2 := w.nodes[0], w.nodes[1]
			here, there, plain, dropped := n1.addPod(t, "here", 2), n1.addPod(t, "there", 3), n1.addPod(t, "plain", 4), n1.addPod(t, "dropped", 5)
			web := n2.addPod(t, "web", 2)
			pods := []*podMachine{here, there, plain, dropped}
			for _, p := range append(pods, web) {
				p.serveWhoami(t, p.web())
			}
			n1.host(w.eip(1), 7)
			n2.host(w.eip(2), 8)
			here.set(local(w.eip(1), 7))
			there.set(remote(8, n2))
			plain.set(Pod{Kind: Node})
			dropped.set(Pod{Kind: Drop})
			web.set(Pod{Kind: Node})
			w.applyAll(t)
			ipt, networks, client := rules.iptablesOfFamily(), "10.244.0.0/16", "192.168.7.1"
			if rules.six {
				networks, client = "fd00:10:244::/48", "fd00:7::1"
			} else {
				w.router.Run(t, fmt.Sprintf("ip route add %v via %v", n1.pods, n1.ip))
			}
			marks := n1.dp.cfg.Marks
			for _, mark := range []uint32{marks.Mask, marks.Return(), marks.Remote(), marks.Index(marks.FirstIndex() + 9)} {
				for _, n := range w.nodes {
					n.Run(t, fmt.Sprintf(`%[1]s -t raw -F PREROUTING 2>/dev/null
						for d in %[2]s %[3]s %[4]s; do %[1]s -t raw -A PREROUTING -i eth0 -d $d -j MARK --set-mark %[5]d; done
						%[1]s -t raw -A PREROUTING -i cni0 -s %[2]s -j MARK --set-mark %[5]d`, ipt, networks, w.eip(1), w.eip(2), mark))
					n.apply(t) // where our rules are in the same chain
				}
				reaches := func(from *machine, source string, to *podMachine) {
					t.Helper()
					if got, err := from.whoami(t, to.web()); err != nil || got != source {
						t.Fatalf("mark %#x: %s at %s: seen as %q, %v", mark, from.Name, to.Name, got, err)
					}
				}
				for _, p := range pods {
					reaches(p.machine, p.ip.String(), web)
					reaches(web.machine, web.ip.String(), p)
					reaches(w.router, client, p)
				}
				here.leaves(t, w.eip(1))
				there.leaves(t, w.eip(2))
				if dropped.answers(t, w.bastion.outside(8080)) {
					t.Errorf("mark %#x: the dropped pod leaves", mark)
				}
			}
		})
	}
}
