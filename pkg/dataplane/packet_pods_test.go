package dataplane

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/conntrack"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/warning"
)

// togglePod takes a pod whose packets are dropped out of the node's state, or puts it there.
func (n *node) togglePod(ip netip.Addr) {
	before := len(n.state.Pods)
	n.state.Pods = slices.DeleteFunc(n.state.Pods, func(p Pod) bool { return p.IP == ip })
	if len(n.state.Pods) == before {
		n.state.Pods = append(n.state.Pods, Pod{IP: ip, Kind: Drop})
	}
}

// applyPods applies a State of which only the pods are new, and expects that nothing else is
// read for that.
func (n *node) applyPods(t *testing.T) Report {
	t.Helper()
	before := n.dp.steady.at
	r := n.apply(t)
	if n.dp.steady == nil || n.dp.steady.at != before {
		t.Error("a pass for pods alone has read all, or the next one will")
	}
	return r
}

// tracked counts the connections of a pod that leave with a source.
func (p *podMachine) tracked(t *testing.T, source netip.Addr) (count int) {
	t.Helper()
	p.node.Do(t, func() {
		found, err := conntrack.Find(func(f conntrack.Flow) bool { return f.Source == p.ip && f.SourceOutside == source })
		must(t, err)
		count = len(found)
	})
	return count
}

// given: a host on which nothing changes but pods, which come, get another way, and go; then a
// pass reads nothing else again, and leaves what a pass that reads all would: each pod has its
// way, the connections from the former one are forgotten, and those of other pods are not.
//
// Mutants killed: moved-pods-had-no-connections, gone-pods-had-no-connections,
// pods-hide-the-rest-of-a-state, other-pods-put-off-reading, pods-make-passes-read-all.
func TestPodsComeAndGo(t *testing.T) {
	w := newWorld(t, 2, ownTable())
	n := w.nodes[0]
	p, other, gone := n.addPod(t, "p", 2), n.addPod(t, "other", 3), n.addPod(t, "gone", 4)
	first, second := testenv.Addr(eip1), testenv.Addr(eip2)
	n.host(eip1, 7)
	n.host(eip2, 8)
	other.set(local(eip2, 8))
	n.untilSteady(t)

	p.set(local(eip1, 7))
	gone.set(local(eip1, 7))
	n.applyPods(t)
	w.connects(t, p, "tcp4", 9001)
	w.connects(t, other, "tcp4", 9002)
	w.connects(t, gone, "tcp4", 9003)
	expect := func(when string, ofP, ofOther, ofGone int) {
		t.Helper()
		if a, b, c := p.tracked(t, first), other.tracked(t, second), gone.tracked(t, first); a != ofP || b != ofOther || c != ofGone {
			t.Errorf("%s: the pods have %d, %d and %d connections", when, a, b, c)
		}
		n.settled(t)
		n.untilSteady(t)
	}
	expect("all are there", 1, 1, 1)

	gone.unset()
	n.applyPods(t)
	expect("one has gone", 1, 1, 0)

	p.set(local(eip2, 8))
	n.applyPods(t)
	expect("one has another egress IP", 0, 1, 0)
	w.connects(t, p, "tcp4", 9004)
	if got := p.tracked(t, second); got != 1 {
		t.Errorf("%d connections have the other egress IP", got)
	}

	p.set(remote(7, w.nodes[1]))
	n.applyPods(t)
	if got := p.tracked(t, second); got != 0 {
		t.Errorf("%d connections stay although the pod leaves elsewhere", got)
	}
	n.settled(t)

	// What is new besides pods is not put off.
	n.untilSteady(t)
	p.set(local(eip3, 9))
	n.host(eip3, 9)
	n.apply(t)
	w.connects(t, p, "tcp4", 9005)
	if got := p.tracked(t, testenv.Addr(eip3)); got != 1 {
		t.Errorf("%d connections have the new egress IP", got)
	}

	// Nor is what must be read from time to time.
	n.untilSteady(t)
	old := n.dp.steady.at - wholeEvery
	n.dp.steady.at = old
	n.togglePod(testenv.Addr("10.244.1.78"))
	n.apply(t)
	if n.dp.steady == nil || n.dp.steady.at == old {
		t.Error("nothing was read again after a while, or the next pass reads all again")
	}
}

// given: a host of both families, without a pod that has an egress IP of IPv6; when the first
// one comes and nothing else is new, then it leaves with that.
//
// Mutant killed: first-pod-of-ipv6-waits.
func TestFirstPodWithAnEgressIPOfIPv6(t *testing.T) {
	w := newDualWorld(t, ownTable())
	w.here.unset6()
	for _, n := range w.nodes {
		n.apply(t)
	}
	w.n1.untilSteady(t)
	w.here.way6(remote(7, w.n2))
	w.n1.apply(t)
	w.here.leaves6(t, eip61)
}

// given: a pod of which nobody knows where it is; when it goes, then the warning goes with it,
// and what was found on the way of a change is not repeated.
//
// Mutant killed: warnings-of-former-pods-stay.
func TestWarningsGoWithTheirPods(t *testing.T) {
	w := newWorld(t, 1, ownTable())
	n := w.nodes[0]
	p, nowhere := n.addPod(t, "p", 2), testenv.Addr("10.244.1.77")
	n.host(eip1, 7)
	p.set(local(eip1, 7))
	n.togglePod(nowhere)
	n.untilSteady(t)
	unbound := func(r Report) bool {
		return slices.ContainsFunc(r.Warnings, func(w warning.Warning) bool {
			return w.Reason == warning.SourcesUnbound([]netip.Addr{nowhere}, "").Reason
		})
	}
	n.dp.links.unbound[nowhere] -= unboundFor
	n.settled(t)
	n.untilSteady(t)
	if !unbound(n.apply(t)) {
		t.Fatal("the test wants a warning of the pod")
	}
	n.togglePod(nowhere)
	if unbound(n.applyPods(t)) || unbound(n.apply(t)) {
		t.Error("the warning stays")
	}
}

// given: a kernel that does not forget the connections of a pod that goes; then the pod stays
// locked, and the next pass tries again.
func TestPodWhoseConnectionsStay(t *testing.T) {
	w := newWorld(t, 1, ownTable())
	n := w.nodes[0]
	p := n.addPod(t, "p", 2)
	n.host(eip1, 7)
	p.set(local(eip1, 7))
	n.untilSteady(t)
	w.connects(t, p, "tcp4", 9001)
	n.dp.tracked = forgetful{n.dp.tracked}
	p.unset()
	if _, err := n.tryApply(t); err == nil {
		t.Fatal("connections that stay are no error")
	}
	n.dp.tracked = kernelTracker{}
	n.apply(t)
	if got := p.tracked(t, testenv.Addr(eip1)); got != 0 {
		t.Errorf("%d connections stay", got)
	}
	n.settled(t)
}
