package controllers

import (
	"context"
	"sync"
	"time"

	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/event"
)

const (
	// passPatience is how long a pass waits for one write. The API server answers in
	// milliseconds, and if it is busy in some hundred.
	passPatience = 500 * time.Millisecond
	// maxLate bounds the writes that go on without a pass that waits for them. If so many
	// get no answer, it is not for their objects, and passes wait.
	maxLate = 64
)

// passWrite is a write that a pass makes.
type passWrite struct {
	key writeKey
	// send makes the request. It must end by a timeout.
	send func() error
	// answered takes the answer, in the goroutine of a pass, and returns the error that
	// the pass reports.
	answered func(error) error
}

// writeKey is what is written to the object of which name.
type writeKey struct{ what, name string }

const (
	writesClaims  = "claims"
	writesMark    = "mark"
	writesVerdict = "verdict"
	// writesNetID creates, binds or deletes a NetNamespace, or gives an EgressIP its netid.
	writesNetID = "netid"
)

// passWrites are the writes of a reconciler whose passes concern all objects. An object whose
// write gets no answer must not hold up all others: a pass waits for each write for
// passPatience only. A write that takes longer goes on, at most one for each key; its answer
// is taken by the pass after it, which it requests.
type passWrites struct {
	clock clock.Clock
	// changed receives an event when an answer came late.
	changed chan event.GenericEvent

	mu sync.Mutex
	// late are under way, and no pass waits for them any more.
	late map[writeKey]bool
	// slow are those whose last answer came late. No pass waits for the next one.
	slow map[writeKey]bool
	// answers came late, and no pass has taken them yet.
	answers []lateAnswer
	ended   bool
	running sync.WaitGroup
}

type lateAnswer struct {
	write passWrite
	err   error
}

func newPassWrites(clock clock.Clock) *passWrites {
	return &passWrites{
		clock: clock, changed: make(chan event.GenericEvent, 1),
		late: make(map[writeKey]bool), slow: make(map[writeKey]bool),
	}
}

// Start waits until ctx ends, and then until all writes have ended.
func (w *passWrites) Start(ctx context.Context) error {
	<-ctx.Done()
	w.mu.Lock()
	w.ended = true
	w.mu.Unlock()
	w.running.Wait()
	return nil
}

// do makes the writes, at most limit at a time, and returns when each has its answer or
// has been waited for. None of the keys may be under way. errs are those of the answers.
func (w *passWrites) do(limit int, writes []passWrite) (errs []error) {
	late := make([]bool, len(writes))
	answers := concurrently(limit, len(writes), func(i int) (err error) {
		late[i], err = w.send(writes[i])
		return err
	})
	for i, write := range writes {
		if !late[i] {
			errs = append(errs, write.answered(answers[i]))
		}
	}
	return errs
}

// send makes one write. late reports that its answer is not there yet.
func (w *passWrites) send(write passWrite) (late bool, err error) {
	answer := make(chan error, 1)
	began := w.clock.Now()
	w.mu.Lock()
	if w.ended {
		w.mu.Unlock()
		return false, context.Canceled
	}
	if late = w.slow[write.key] && len(w.late) < maxLate; late {
		w.late[write.key] = true
	}
	w.running.Go(func() {
		err := write.send()
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.clock.Since(began) < passPatience {
			delete(w.slow, write.key)
		}
		if !w.late[write.key] {
			answer <- err
			return
		}
		delete(w.late, write.key)
		w.answers = append(w.answers, lateAnswer{write: write, err: err})
		select {
		case w.changed <- event.GenericEvent{}:
		default:
		}
	})
	w.mu.Unlock()
	if late {
		return true, nil
	}
	timer := w.clock.NewTimer(passPatience)
	defer timer.Stop()
	select {
	case err := <-answer:
		return false, err
	case <-timer.C():
	}
	w.mu.Lock()
	if len(w.late) >= maxLate {
		w.mu.Unlock()
		return false, <-answer
	}
	defer w.mu.Unlock()
	select {
	case err := <-answer:
		return false, err
	default:
	}
	w.late[write.key], w.slow[write.key] = true, true
	return true, nil
}

// settle takes the answers that came late, and returns their errors.
func (w *passWrites) settle() (errs []error) {
	w.mu.Lock()
	answers := w.answers
	w.answers = nil
	w.mu.Unlock()
	for _, a := range answers {
		errs = append(errs, a.write.answered(a.err))
	}
	return errs
}

// underWay reports whether a write goes on that an earlier pass began.
func (w *passWrites) underWay(what, name string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.late[writeKey{what, name}]
}

// marksUnderWay reports whether a mark is under way that an earlier pass began.
func (w *passWrites) marksUnderWay() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for key := range w.late {
		if key.what == writesMark {
			return true
		}
	}
	return false
}
