package controllers

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/tools/record/util"
	"k8s.io/client-go/tools/reference"
	"k8s.io/utils/clock"
)

const (
	// maxQueuedEvents is the greatest number of events that wait in one queue, which need
	// about 20 MB. After a start, 10,000 namespaces with two egress IPs have 40,000.
	maxQueuedEvents = 50_000
	// eventsOfObject is the number of events of one type about one object that are written
	// at once; beyond that it is one a second. A HostSubnet has two for each egress IP that
	// comes and goes.
	eventsOfObject = 2 * maxClaims
	// eventTries is how often an event is sent that gets no answer, with eventPause in
	// between, as client-go's recorder does.
	eventTries = 12
	eventPause = 10 * time.Second
)

// Why events are lost, in metric egressip_events_lost_total.
const (
	lostQueueFull   = "QueueFull"
	lostRateLimited = "RateLimited"
	lostRefused     = "Refused"
	lostUnanswered  = "Unanswered"
)

// eventQueue writes events one by one, in order. client-go's recorder has room for 1000 and
// drops the rest without a word; after a start there are many more, since every assignment
// is reported. This one has room for those of a large cluster, and what it loses it counts
// and logs. Whoever reports an event waits for nothing.
type eventQueue struct {
	log     logr.Logger
	clock   clock.Clock
	scheme  *runtime.Scheme
	sink    eventSink
	metrics *metrics
	// room is how many events may wait.
	room int
	wake chan struct{}

	mu      sync.Mutex
	waiting []queuedEvent
	// losing are the reasons of losses that were logged since the queue was empty.
	losing map[string]bool
}

// eventSink takes events of any namespace, as the client of core/v1 does.
type eventSink interface {
	CreateWithEventNamespaceWithContext(ctx context.Context, event *corev1.Event) (*corev1.Event, error)
	PatchWithEventNamespaceWithContext(ctx context.Context, event *corev1.Event, data []byte) (*corev1.Event, error)
}

// queuedEvent is an event that is not written yet.
type queuedEvent struct {
	about                      corev1.ObjectReference
	eventType, reason, message string
	at                         time.Time
}

func newEventQueue(log logr.Logger, clock clock.Clock, scheme *runtime.Scheme, sink eventSink, m *metrics) *eventQueue {
	return &eventQueue{
		log: log.WithName("events"), clock: clock, scheme: scheme, sink: sink, metrics: m,
		room: maxQueuedEvents, wake: make(chan struct{}, 1), losing: make(map[string]bool),
	}
}

// Event has an event about the object written.
func (q *eventQueue) Event(object runtime.Object, eventType, reason, message string) {
	about, err := reference.GetReference(q.scheme, object)
	if err != nil {
		q.log.Error(err, "cannot name the object of an event", "reason", reason, "message", message)
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) >= q.room {
		q.lost(lostQueueFull, nil, *about, reason, message)
		return
	}
	q.waiting = append(q.waiting, queuedEvent{about: *about, eventType: eventType, reason: reason, message: message, at: q.clock.Now()})
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// Eventf is Event with a format.
func (q *eventQueue) Eventf(object runtime.Object, eventType, reason, format string, args ...any) {
	q.Event(object, eventType, reason, fmt.Sprintf(format, args...))
}

// lost counts an event that is not written. It is logged if it is the first one for that
// reason since the queue was empty. q.mu must be held.
func (q *eventQueue) lost(why string, err error, about corev1.ObjectReference, reason, message string) {
	q.metrics.eventsLost.WithLabelValues(why).Inc()
	if q.losing[why] {
		return
	}
	q.losing[why] = true
	q.log.Error(err, "an event is lost; further ones are only counted, in egressip_events_lost_total, until all that wait are written",
		"why", why, "waiting", len(q.waiting), "kind", about.Kind, "name", about.Name, "reason", reason, "message", message)
}

// run writes events until ctx ends.
func (q *eventQueue) run(ctx context.Context) {
	correlator := record.NewEventCorrelatorWithOptions(record.CorrelatorOptions{
		BurstSize: eventsOfObject, MaxEvents: eventsOfObject, QPS: 1, Clock: q.clock,
	})
	for {
		e, ok := q.next()
		if !ok {
			select {
			case <-ctx.Done():
				return
			case <-q.wake:
			}
			continue
		}
		why, err := q.write(ctx, correlator, e)
		q.mu.Lock()
		switch {
		case ctx.Err() != nil && (err != nil || len(q.waiting) > 0):
			q.log.Info("stopped before all events were written", "waiting", len(q.waiting))
		case why != "":
			q.lost(why, err, e.about, e.reason, e.message)
		}
		q.mu.Unlock()
		if ctx.Err() != nil {
			return
		}
	}
}

// next takes the event that has waited longest.
func (q *eventQueue) next() (e queuedEvent, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) == 0 {
		q.waiting = nil // and the memory of those that were
		clear(q.losing)
		return queuedEvent{}, false
	}
	e = q.waiting[0]
	q.waiting[0] = queuedEvent{}
	q.waiting = q.waiting[1:]
	return e, true
}

// write writes one event, and tries again while the API server does not answer. It returns
// why the event is lost, "" if it is not.
func (q *eventQueue) write(ctx context.Context, correlator *record.EventCorrelator, e queuedEvent) (lost string, err error) {
	result, err := correlator.EventCorrelate(e.event())
	switch {
	case err != nil:
		return lostRefused, fmt.Errorf("compare an event with former ones: %w", err)
	case result.Skip:
		return lostRateLimited, nil
	}
	for try := 1; ; try++ {
		written, err := q.send(ctx, result)
		switch {
		case err == nil:
			correlator.UpdateState(written)
			return "", nil
		case apierrors.IsAlreadyExists(err):
			return "", nil // the answer to an earlier try was lost
		case refused(err) && !apierrors.IsTooManyRequests(err):
			return lostRefused, fmt.Errorf("write an event: %w", err)
		case try == eventTries:
			return lostUnanswered, fmt.Errorf("write an event, for the %d. time: %w", try, err)
		}
		timer := q.clock.NewTimer(eventPause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return "", ctx.Err()
		case <-timer.C():
		}
	}
}

// send creates an event, or counts one more of the same.
func (q *eventQueue) send(ctx context.Context, result *record.EventCorrelateResult) (*corev1.Event, error) {
	if result.Event.Count > 1 {
		if written, err := q.sink.PatchWithEventNamespaceWithContext(ctx, result.Event, result.Patch); !apierrors.IsNotFound(err) {
			return written, err
		}
		result.Event.ResourceVersion = "" // it has expired
	}
	return q.sink.CreateWithEventNamespaceWithContext(ctx, result.Event)
}

// event returns the event as client-go's recorder makes it.
func (e queuedEvent) event() *corev1.Event {
	namespace := e.about.Namespace
	if namespace == "" {
		namespace = metav1.NamespaceDefault
	}
	return &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Name: util.GenerateEventName(e.about.Name, e.at.UnixNano()), Namespace: namespace},
		InvolvedObject: e.about, Type: e.eventType, Reason: e.reason, Message: e.message,
		FirstTimestamp: metav1.NewTime(e.at), LastTimestamp: metav1.NewTime(e.at), Count: 1,
		Source: corev1.EventSource{Component: FieldManager}, ReportingController: FieldManager,
	}
}
