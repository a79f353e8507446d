package controllers

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coordinationv1client "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/klog/v2"
)

// directLeases is the API of a Lease without a network.
type directLeases struct{ *leases }

func (d directLeases) Leases(string) coordinationv1client.LeaseInterface { return d.leases }

// contender is an elector with its lock.
type contender struct {
	lock *leaseLock
	lost chan error
	// ended is when the elector returned.
	ended chan time.Time
	stop  context.CancelFunc
}

// stand runs an elector until it is stopped, or the test ends.
func stand(t *testing.T, l *leases, identity string, dead func(string) bool) *contender {
	t.Helper()
	c := &contender{lost: make(chan error, 1), ended: make(chan time.Time, 1)}
	ctx, cancel := context.WithCancel(klog.NewContext(context.Background(), logr.Discard()))
	c.stop = cancel
	t.Cleanup(cancel) // a bubble ends with its last goroutine
	c.lock = &leaseLock{
		Interface: &resourcelock.LeaseLock{
			LeaseMeta: metav1.ObjectMeta{Namespace: "system", Name: FieldManager}, Client: directLeases{l},
			LockConfig: resourcelock.ResourceLockConfig{Identity: identity},
		},
		dead: func(_ context.Context, identity string) bool { return dead(identity) },
		lost: func(err error) { c.lost <- err; cancel() },
	}
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: c.lock, LeaseDuration: leaseDuration, RenewDeadline: renewDeadline, RetryPeriod: retryPeriod, ReleaseOnCancel: true,
		Callbacks: leaderelection.LeaderCallbacks{OnStartedLeading: func(context.Context) {}, OnStoppedLeading: func() {}},
	})
	if err != nil {
		panic(err) // a mistake of the test
	}
	go func() {
		elector.Run(ctx)
		c.ended <- time.Now()
	}()
	return c
}

// receive is what comes within twice the time for which a Lease is valid.
func receive[T any](t *testing.T, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(2 * leaseDuration):
		t.Fatal("nothing came")
		panic("not reached")
	}
}

func nobodyDead(string) bool { return false }

// TestDeadLeaderIsReplacedOnce: the leader's host seems dead while the leader lives. A
// standby takes the Lease in one update; the former leader ends at its next renewal,
// leaves the new Lease alone, and does not come back.
//
// Mutants killed: other-holder-ignored, lease-of-another-released.
func TestDeadLeaderIsReplacedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // a sleep moves the bubble's clock
		l := &leases{}
		first := stand(t, l, "node1_a", nobodyDead)
		time.Sleep(3 * time.Second)
		var fooled atomic.Bool
		second := stand(t, l, "node2_b", func(identity string) bool { return fooled.Load() && identity == "node1_a" })
		time.Sleep(3 * time.Second)
		if holder := l.holder(); holder != "node1_a" {
			t.Fatalf("%q holds the Lease", holder)
		}
		fooled.Store(true)
		began := time.Now()
		for l.holder() == "node1_a" {
			time.Sleep(time.Millisecond)
		}
		if took := time.Since(began); l.holder() != "node2_b" || took > 4*retryPeriod {
			t.Fatalf("%q holds the Lease after %s", l.holder(), took)
		}
		taken := time.Now()
		if err := receive(t, first.lost); !errors.Is(err, errLeadTaken) || !strings.Contains(err.Error(), "node2_b") {
			t.Errorf("the first ended with: %v", err)
		}
		if ended := receive(t, first.ended); ended.Sub(taken) > 2*retryPeriod {
			t.Errorf("the first led for %s after another did", ended.Sub(taken))
		}
		time.Sleep(3 * leaseDuration)
		if holder := l.holder(); holder != "node2_b" {
			t.Errorf("%q holds the Lease in the end", holder)
		}
		second.stop()
		receive(t, second.ended)
		if holder := l.holder(); holder != "" {
			t.Errorf("the Lease is not released: %q holds it", holder)
		}
	})
}

// TestLeaseOfAnotherIsNotReleased: a leader that is stopped just after another has taken
// the Lease leaves it alone. client-go's elector alone would empty it.
//
// Mutant killed: lease-of-another-released.
func TestLeaseOfAnotherIsNotReleased(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // a sleep moves the bubble's clock
		l := &leases{}
		first := stand(t, l, "node1_a", nobodyDead)
		time.Sleep(time.Second + retryPeriod/2)
		other := "node2_b"
		lease, err := l.Get(t.Context(), "", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		lease.Spec.HolderIdentity = &other
		if _, err := l.Update(t.Context(), lease, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		first.stop()
		receive(t, first.ended)
		if holder := l.holder(); holder != other {
			t.Errorf("%q holds the Lease", holder)
		}
	})
}

// TestRestartedContainerKeepsItsLease: a controller that was killed, and starts again in
// the same pod, takes its own Lease at once.
//
// Mutant killed: new-name-each-start.
func TestRestartedContainerKeepsItsLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // a sleep moves the bubble's clock
		identity, err := leaderIdentity(Options{NodeName: "node1", PodUID: "a"})
		if err != nil {
			t.Fatal(err)
		}
		held := metav1.NewMicroTime(time.Now())
		l := &leases{}
		if _, err := l.Create(t.Context(), &coordinationv1.Lease{Spec: coordinationv1.LeaseSpec{
			HolderIdentity: new("node1_a"), LeaseDurationSeconds: new(int32(6)), AcquireTime: &held, RenewTime: &held,
		}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		c := stand(t, l, identity, nobodyDead)
		time.Sleep(retryPeriod)
		if !c.lock.held.Load() {
			t.Error("it waits for its own Lease to expire")
		}
		c.stop()
		receive(t, c.ended)
	})
}
