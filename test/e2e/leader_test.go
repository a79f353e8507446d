package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/egressip-operator/egressip-operator/test/testbed"
)

// controllers are where they run: the leader, the one that stands by, and a node without.
type controllers struct{ leader, standby, without string }

// placed finds the controllers.
func (b *bed) placed(t *testing.T) (c controllers) {
	t.Helper()
	c.leader, _, _ = strings.Cut(b.leader(t), "_")
	pods, err := b.Pods(t.Context(), testbed.OperatorNamespace, "app.kubernetes.io/component=controller")
	if err != nil {
		t.Fatal(err)
	}
	for _, node := range b.Nodes() {
		switch {
		case node == c.leader:
		case slices.ContainsFunc(pods, func(p testbed.Pod) bool { return p.Node == node }):
			c.standby = node
		default:
			c.without = node
		}
	}
	if c.standby == "" || c.without == "" {
		t.Fatalf("controllers: %v, led by %s; want two, and a node without", pods, c.leader)
	}
	return c
}

// givenHostWithoutController has an automatic egress IP on the node without a controller,
// which could move to the node of the one that stands by.
func (b *bed) givenHostWithoutController(t *testing.T) controllers {
	t.Helper()
	c := b.placed(t)
	b.withdrawAfter(t)
	b.request(t, egressNamespace, b.egressIP)
	b.patch(t, "hostsubnet", c.without, b.automatic())
	b.leaveWith(t, b.egress, func(testbed.Pod) string { return b.egressIP })
	b.patch(t, "hostsubnet", c.standby, b.automatic())
	b.witnessed(t, c.without)
	return c
}

// testLeaderSeesNobody: the leader's node reaches the API server and nothing else. To its
// controller all other hosts seem dead; nothing moves, then or when they begin to answer
// again, and others lose no connection. The condition says what the controller does not
// see.
func (b *bed) testLeaderSeesNobody(t *testing.T) {
	c := b.givenHostWithoutController(t)
	rest := []string{testbed.Router, testbed.LANHost, c.standby, c.without}
	b.leaderCut(t, c, rest, func() {
		b.eventually(t, func() error { return b.hasCondition(t, c.without, "Online", "Unknown", "ControllerAlone") })
		// For longer than any verdict or Lease takes, without anything to wait for:
		// nothing may happen.
		hold(t, 10*time.Second)
		if err := b.hasField(t, "hostsubnet", c.without, "{.egressIPs[*]}", b.egressIP); err != nil {
			t.Error(err)
		}
	})
}

// testAPIServerGone: the leader's node reaches everything but the API server. Another
// controller takes over and works; the former leader ends, and stays without claims to
// write when it is back.
func (b *bed) testAPIServerGone(t *testing.T) {
	c := b.givenHostWithoutController(t)
	former, err := b.PIDs(c.leader, isController)
	if err != nil || len(former) != 1 {
		t.Fatalf("controllers on %s: %v, %v; want one", c.leader, former, err)
	}
	b.leaderCut(t, c, []string{testbed.ControlPlane}, func() {
		b.eventually(t, func() error {
			if now := b.leader(t); !strings.HasPrefix(now, c.standby+"_") {
				return fmt.Errorf("the leader is %q", now)
			}
			return nil
		})
		b.eventually(t, func() error {
			pids, err := b.PIDs(c.leader, isController)
			if err == nil && slices.Contains(pids, former[0]) {
				err = errors.New("the former leader still runs")
			}
			return err
		})
		// The new leader works.
		b.request(t, egressNamespace, b.egressIP, b.secondIP)
		b.eventually(t, func() error { return b.hasField(t, "hostsubnet", c.standby, "{.egressIPs[*]}", b.secondIP) })
	})
}

// leaderCut cuts the leader's node from some places, does something, and mends it. Beside
// that, no pod elsewhere loses a connection, no packet has a wrong source, no address is on
// two lists, and no two controllers write claims in turns.
func (b *bed) leaderCut(t *testing.T, c controllers, from []string, do func()) {
	t.Helper()
	verify, oneOwner := b.watchBastion(t, b.egressIP, b.secondIP), b.oneOwner(t)
	b.afterwards(t, b.Mend)
	var others []testbed.Pod // the leader's may be cut from all that the probers need
	for _, p := range b.egress {
		if p.Node != c.leader {
			others = append(others, p)
		}
	}
	done := b.keepSending(t, b.egress)
	mend := func() {
		if err := b.Mend(t.Context()); err != nil {
			t.Fatal(err)
		}
		b.back(t, c.leader)
	}
	b.lossless(t, others, 40*time.Second, func() {
		if err := b.Partition(t.Context(), []string{c.leader}, from); err != nil {
			t.Fatal(err)
		}
		do()
		mend()
	})
	t.Logf("%s led, and %s does afterwards", c.leader, b.leader(t))
	b.trusted(t, c.without)
	done()
	oneOwner()
	verify()
}

// hold waits: what must not happen has no event to wait for.
func hold(t *testing.T, d time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	<-ctx.Done()
}
