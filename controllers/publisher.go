package controllers

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/priorityqueue"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
)

const (
	// writeTimeout bounds one write of a status. The API server checks the whole
	// object, and needs seconds for the greatest ones if it is busy.
	writeTimeout = 30 * time.Second
	// firstRetry is the pause after a first failed write of a status; it doubles up to
	// lastRetry.
	firstRetry = 50 * time.Millisecond
	lastRetry  = 30 * time.Second
	// repairEvery is the least time between two repairs of one status that someone
	// else has changed: two writers who disagree must not keep the API server busy.
	repairEvery = time.Second
)

// publisher writes the controller's part of all statuses. The egress reconciler gives
// it what they should be; workers write those that differ, the most urgent first, and
// always the newest that is wanted. Nothing waits for it. What others change is
// repaired at once.
type publisher struct {
	log      logr.Logger
	clock    clock.PassiveClock
	observer *observer
	writer   client.Client
	recorder recorder
	metrics  *metrics
	// releases are those that moves of addresses follow from.
	releases *releases
	// uses has changes of what is in use reported; nil for reports of each write by itself.
	uses *uses
	// informers show what others write; nil for none.
	informers cache.Informers
	// limiter has the back-off of each object.
	limiter workqueue.TypedRateLimiter[statusKey]
	// writing has the objects that are written now: two writes of one object that
	// overtake each other would leave the older status.
	writing keyedLock

	mu sync.Mutex
	// queue is nil until Start; what is added before is in early, with its priority.
	queue priorityqueue.PriorityQueue[statusKey]
	early map[statusKey]int
	// wanted are the newest wanted statuses.
	wanted map[statusKey]wantedStatus
	// retrying are in the queue until their back-off is over.
	retrying map[statusKey]bool
	// noops are writes that changed nothing.
	noops map[statusKey]noop
	// lacking are fields that definitions do not have, each with its kind before it, which was
	// logged.
	lacking map[string]bool
	// repairedAt is when the status was repaired last, or will be.
	repairedAt map[statusKey]time.Time
}

// noop is a write that left the object as it was: what differs is not ours to change,
// for instance because another manager owns it as well. The same write is not repeated
// before the object changes.
type noop struct {
	wanted          wantedStatus
	resourceVersion string
}

func newPublisher(log logr.Logger, d deps, o *observer, informers cache.Informers) *publisher {
	return &publisher{
		log: log.WithName("status"), clock: d.clock, observer: o, writer: d.writer, recorder: d.recorder, metrics: d.metrics,
		releases: newReleases(), informers: informers,
		limiter: workqueue.NewTypedItemExponentialFailureRateLimiter[statusKey](firstRetry, lastRetry),
		writing: keyedLock{held: make(map[statusKey]chan struct{})},
		early:   make(map[statusKey]int), wanted: make(map[statusKey]wantedStatus), retrying: make(map[statusKey]bool),
		noops: make(map[statusKey]noop), lacking: make(map[string]bool), repairedAt: make(map[statusKey]time.Time),
	}
}

// NeedLeaderElection is true: only the leader writes statuses.
func (*publisher) NeedLeaderElection() bool { return true }

// Start writes statuses until ctx ends.
func (p *publisher) Start(ctx context.Context) error {
	queue := priorityqueue.New("status", func(o *priorityqueue.Opts[statusKey]) { o.RateLimiter, o.Log = p.limiter, p.log })
	var workers sync.WaitGroup
	defer workers.Wait()
	defer queue.ShutDown()
	p.mu.Lock()
	p.queue = queue
	for key, priority := range p.early {
		p.add(key, priority, 0)
	}
	p.early = nil
	p.mu.Unlock()
	ignore, err := p.watch(ctx)
	defer ignore()
	if err != nil {
		return err
	}
	for range statusWriters {
		workers.Go(func() { p.work(ctx, queue) })
	}
	<-ctx.Done()
	return nil
}

// watch repairs what others change until ignore is called.
func (p *publisher) watch(ctx context.Context) (ignore func(), err error) {
	var all []func()
	ignore = func() {
		for _, f := range all {
			f()
		}
	}
	if p.informers == nil {
		return ignore, nil
	}
	for _, object := range []client.Object{&v1.HostSubnet{}, &v1.NetNamespace{}} {
		informer, err := p.informers.GetInformer(ctx, object)
		if err != nil {
			return ignore, fmt.Errorf("watch %T for the status: %w", object, err)
		}
		registration, err := informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
			UpdateFunc: func(_, after any) {
				if stored, ok := after.(client.Object); ok {
					p.repair(ctx, stored)
				}
			},
			DeleteFunc: func(was any) { p.gone(ctx, was) },
		})
		if err != nil {
			return ignore, fmt.Errorf("watch %T for the status: %w", object, err)
		}
		all = append(all, func() { _ = informer.RemoveEventHandler(registration) }) // fails only after the informer's end
	}
	return ignore, nil
}

// publish replaces everything that is wanted. Statuses that differ from what the view shows
// as stored are written soon. It does not block.
func (p *publisher) publish(v view, wanted []wantedStatus) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wanted = make(map[statusKey]wantedStatus, len(wanted))
	for _, w := range wanted {
		p.wanted[w.key] = w
	}
	forgetUnwanted(p.retrying, p.wanted)
	forgetUnwanted(p.noops, p.wanted)
	forgetUnwanted(p.repairedAt, p.wanted)
	for _, w := range wanted {
		if p.retrying[w.key] {
			continue // its turn comes, and the newest is written then
		}
		if change, due := p.due(w, v.object(w.key)); due {
			p.add(w.key, change.priority, 0)
		}
	}
}

func forgetUnwanted[T any](about map[statusKey]T, wanted map[statusKey]wantedStatus) {
	for key := range about {
		if _, still := wanted[key]; !still {
			delete(about, key)
		}
	}
}

// writeNow writes a status at once, and returns when it is written. wrote reports whether
// that changed the object.
func (p *publisher) writeNow(ctx context.Context, wanted wantedStatus) (wrote bool, err error) {
	p.mu.Lock()
	p.wanted[wanted.key] = wanted
	p.mu.Unlock()
	return p.write(ctx, wanted.key)
}

// repair has a status written again if someone else changed the controller's part. If it is as it
// is wanted, it is what this controller wrote, whose answer may be lost.
func (p *publisher) repair(ctx context.Context, stored client.Object) {
	if p.repairLater(stored) || p.uses == nil || keyOf(stored).kind == kindHostSubnet {
		return
	}
	p.uses.saw(ctx, p.observer.newest(stored))
}

// repairLater has a status written again, and reports whether it is not known to be as it is
// wanted.
func (p *publisher) repairLater(stored client.Object) bool {
	key := keyOf(stored)
	p.mu.Lock()
	defer p.mu.Unlock()
	w, ok := p.wanted[key]
	if !ok || w.uid != stored.GetUID() {
		return true
	}
	change, due := p.due(w, p.observer.newest(stored))
	if !due || p.retrying[key] {
		return due
	}
	now := p.clock.Now()
	at := p.repairedAt[key]
	if at.After(now) {
		return true // it will be
	}
	at = at.Add(repairEvery)
	if at.Before(now) {
		at = now
	}
	p.repairedAt[key] = at
	p.add(key, change.priority, at.Sub(now))
	return true
}

// gone takes an object that was deleted, as an informer gives it.
func (p *publisher) gone(ctx context.Context, was any) {
	if last, ok := was.(toolscache.DeletedFinalStateUnknown); ok {
		was = last.Obj
	}
	if object, ok := was.(client.Object); ok && p.uses != nil {
		p.uses.gone(ctx, object)
	}
}

// due reports whether the status must be written, and how. p.mu must be held.
func (p *publisher) due(w wantedStatus, stored client.Object) (statusChange, bool) {
	if stored == nil || stored.GetUID() != w.uid {
		return statusChange{}, false
	}
	change, differs := w.change(stored, metav1.NewTime(p.clock.Now()).Rfc3339Copy())
	if !differs {
		return statusChange{}, false
	}
	last, tried := p.noops[w.key]
	same := tried && last.resourceVersion == stored.GetResourceVersion() &&
		last.wanted.equal(w)
	return change, !same
}

// add adds an object to the queue. p.mu must be held.
func (p *publisher) add(key statusKey, priority int, after time.Duration) {
	if p.queue == nil {
		if was, ok := p.early[key]; !ok || was < priority {
			p.early[key] = priority
		}
		return
	}
	p.queue.AddWithOpts(priorityqueue.AddOpts{After: after, Priority: &priority}, key)
}

// work writes what the queue gives until it is shut down.
func (p *publisher) work(ctx context.Context, queue priorityqueue.PriorityQueue[statusKey]) {
	for {
		key, _, ended := queue.GetWithPriority()
		if ended {
			return
		}
		p.try(ctx, key)
		queue.Done(key)
	}
}

// try writes one status, or has it tried again later.
func (p *publisher) try(ctx context.Context, key statusKey) {
	p.mu.Lock()
	delete(p.retrying, key)
	p.mu.Unlock()
	_, err := p.write(ctx, key)
	if err == nil {
		p.limiter.Forget(key)
		return
	}
	if ctx.Err() != nil {
		return
	}
	after := p.limiter.When(key)
	p.log.Error(err, "cannot write a status; trying again", "kind", key.kind, "name", key.name, "after", after.String())
	p.mu.Lock()
	defer p.mu.Unlock()
	p.retrying[key] = true
	p.add(key, priorityRetry, after)
}

// keyedLock locks objects one by one.
type keyedLock struct {
	mu   sync.Mutex
	held map[statusKey]chan struct{} // closed when released
}

// lock waits until no other goroutine has the object, or ctx ends.
func (l *keyedLock) lock(ctx context.Context, key statusKey) (unlock func(), err error) {
	for {
		l.mu.Lock()
		other, busy := l.held[key]
		if !busy {
			released := make(chan struct{})
			l.held[key] = released
			l.mu.Unlock()
			return func() {
				l.mu.Lock()
				defer l.mu.Unlock()
				delete(l.held, key)
				close(released)
			}, nil
		}
		l.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for a write of %s %s: %w", key.kind, key.name, ctx.Err())
		}
	}
}
