package controllers

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/client-go/tools/record"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// controller is one pod: a process that is started again whenever it ends.
func (m *model) controller(ctx context.Context, i int) {
	l := link{model: m, plight: &m.plights[i]}
	identity := fmt.Sprintf("node%d_pod", i)
	for life := 0; ctx.Err() == nil; life++ {
		m.live(ctx, l, i, identity, fmt.Sprintf("%s/%d", identity, life))
		pause(ctx, time.Second)
	}
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// live is the life of one process, with the elector, lock, reconciler and fence that the
// program has.
func (m *model) live(ctx context.Context, l link, i int, identity, writer string) {
	ctx, end := context.WithCancel(ctx)
	defer end()
	cache := &delayed{link: l}
	api := remote{link: l, writer: writer}
	watch := jumping{link: l}
	d := deps{
		cache: cache, live: api, writer: api, recorder: &record.FakeRecorder{}, metrics: newMetrics(), clock: watch,
		claimsWriter: writer, deposed: func(error) { end() },
	}
	o := newObserver(cache, watch, noProbes, 0)
	job := newEgressReconciler(d, o, newPublisher(logr.Discard(), d, o, nil))
	lock := &leaseLock{
		Interface: &resourcelock.LeaseLock{
			LeaseMeta: metav1.ObjectMeta{Namespace: "system", Name: FieldManager}, Client: remoteLeases{link: l},
			LockConfig: resourcelock.ResourceLockConfig{Identity: identity},
		},
		dead: func(context.Context, string) bool { _, fooled := m.within(l.fooled); return fooled },
		lost: func(error) { end() },
	}
	var working sync.WaitGroup
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: lock, LeaseDuration: leaseDuration, RenewDeadline: renewDeadline, RetryPeriod: retryPeriod, ReleaseOnCancel: true,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(context.Context) {},
			OnStoppedLeading: end,
		},
	})
	if err != nil {
		panic(err) // a mistake of the test
	}
	watch.wear(elector)
	// As the manager, which starts the reconcilers when the lead was gained. They end
	// before the Lease is released.
	electing, release := context.WithCancel(context.WithoutCancel(ctx))
	working.Go(func() {
		for ctx.Err() == nil && !lock.held.Load() {
			pause(ctx, 5*time.Millisecond)
		}
		m.lead(i, true)
		defer m.lead(i, false)
		for ctx.Err() == nil {
			l.standStill()
			result, err := job.Reconcile(ctx, reconcile.Request{})
			wait := 250 * time.Millisecond // as if an event came
			if err == nil && result.RequeueAfter > 0 {
				wait = min(wait, result.RequeueAfter)
			}
			pause(ctx, wait)
		}
	})
	go func() {
		<-ctx.Done()
		working.Wait()
		release()
	}()
	elector.Run(electing)
	end()
	working.Wait()
}

func (m *model) lead(i int, leads bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.leading[i] = leads
}
