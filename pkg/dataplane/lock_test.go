package dataplane

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/address"
)

// lock locks the node as a unit does before its kubelet starts.
func (n *node) lock(t *testing.T, hostIP netip.Addr) (r Report, err error) {
	t.Helper()
	s := State{HostIP: hostIP, Inside: n.state.Inside, Subnets: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}, Strict: true}
	if n.six {
		s.Subnets = append(s.Subnets, netip.MustParsePrefix("fd00:10:244::/48"))
	}
	n.Do(t, func() { r, err = n.dp.Lock(context.WithoutCancel(t.Context()), s) })
	return r, err
}

// given: a host that boots, with an egress IP of before; when it is locked before
// its pods start, then nothing of theirs leaves until the agent knows them, and no
// packet of theirs ever with the host's address; and pods reach each other.
//
// Mutants killed: Lock without Strict; Lock that takes over a host in service;
// boot-lock-looks-at-ipv4-alone.
func TestNothingLeavesBetweenBootAndAgent(t *testing.T) {
	for _, rules := range slices.Concat(allRules(), rulesOfIPv6(), rulesWithoutIPv4()) {
		t.Run(rules.name, func(t *testing.T) {
			w := newWorld(t, 2, rules)
			n1, n2 := w.nodes[0], w.nodes[1]
			if before := "ip address add " + w.eip(2); rules.six {
				n1.Run(t, fmt.Sprintf("%s/128 dev eth0 nodad noprefixroute metric %d", before, address.Metric))
			} else {
				n1.Run(t, before+"/24 dev eth0 label "+address.Label("eth0"))
			}
			r, err := n1.lock(t, netip.Addr{}) // n1 finds its address by itself
			must(t, err)
			if len(r.Warnings) > 0 && len(rules.want) == 1 {
				t.Errorf("warnings: %q", r.Warnings)
			}
			if strings.Contains(n1.Run(t, "ip -o addr show dev eth0"), w.eip(2)+"/") {
				t.Errorf("%s is still there", w.eip(2))
			}
			plain, here, elsewhere := n1.addPod(t, "plain", 2), n1.addPod(t, "here", 3), n2.addPod(t, "elsewhere", 2)
			w.seen.only(9001)
			w.seen.only(9002)
			one, two := startSender(t, plain, w.bastion, 9001), startSender(t, here, w.bastion, 9002)
			w.linger(t)
			w.silent(t, one)
			w.silent(t, two)
			elsewhere.serveWhoami(t, elsewhere.web())
			if from, err := here.whoami(t, elsewhere.web()); err != nil || from != here.ip.String() {
				t.Fatalf("pod to pod: seen as %q, %v", from, err)
			}

			// The agent's first pass, which is not strict: what the lock keeps back, it lets go.
			w.seen.only(9001, n1.own())
			w.seen.only(9002, w.eip(1))
			n1.start(t)
			n1.host(w.eip(1), 7)
			plain.set(Pod{Kind: Node})
			here.set(local(w.eip(1), 7))
			w.applyAll(t)
			w.flows(t, one, n1.own())
			w.flows(t, two, w.eip(1))
			w.applySettled(t)

			// Run again by mistake, it must not undo that.
			if _, err := n1.lock(t, n1.ip); !errors.Is(err, ErrServed) {
				t.Errorf("locked in service: %v", err)
			}
			n1.settled(t)
		})
	}
}

// given: a host without a network as yet; when it is locked, then it is, and a
// warning says what is missing.
func TestLockWithoutANetwork(t *testing.T) {
	w := newWorld(t, 1, onlyNFT())
	n := w.nodes[0]
	n.Run(t, "ip route del default")
	r, err := n.lock(t, netip.Addr{})
	must(t, err)
	if len(r.Warnings) == 0 {
		t.Error("no warning")
	}
	p := n.addPod(t, "p", 2)
	n.Run(t, "ip route add default via 192.168.7.1")
	w.seen.only(9001)
	s := startSender(t, p, w.bastion, 9001)
	w.linger(t)
	w.silent(t, s)
}
