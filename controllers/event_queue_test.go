package controllers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/testenv"
)

// TestWarningsDoNotQueueBehindOthers: a warning is written while other events wait, such as those
// of all assignments after a start.
//
// Mutant killed: warnings-queue-with-others.
func TestWarningsDoNotQueueBehindOthers(t *testing.T) {
	arrived, release, warned := make(chan struct{}), make(chan struct{}), make(chan string, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var event corev1.Event
		err := json.NewDecoder(r.Body).Decode(&event)
		switch {
		case err != nil:
			t.Errorf("%s %s: %v", r.Method, r.URL.Path, err)
		case event.Type == corev1.EventTypeWarning:
			warned <- event.Reason
		default:
			close(arrived)
			<-release
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(event)
	}))
	r, stop, err := newRecorder(t.Context(), logr.Discard(), &rest.Config{Host: server.URL}, eventScheme(t), newMetrics())
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	defer server.Close() // waits for what is released
	defer close(release)
	host := &v1.HostSubnet{ObjectMeta: metav1.ObjectMeta{Name: "node1"}}
	r.Event(host, corev1.EventTypeNormal, eventAssigned, "An address is assigned.")
	<-arrived
	r.Event(host, corev1.EventTypeWarning, eventHostOffline, "The host is silent.")
	select {
	case reason := <-warned:
		if reason != eventHostOffline {
			t.Errorf("a warning %s", reason)
		}
	case <-time.After(testenv.Patience):
		t.Error("no warning is written while other events wait")
	}
}

func eventScheme(t *testing.T) *runtime.Scheme {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := v1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	return scheme
}

// writtenEvents is an API server that stores events, after before has had its way.
type writtenEvents struct {
	mu     sync.Mutex
	all    []corev1.Event
	before func(try int) error
	tries  int
}

func (w *writtenEvents) CreateWithEventNamespaceWithContext(_ context.Context, e *corev1.Event) (*corev1.Event, error) {
	w.mu.Lock()
	w.tries++
	try, before := w.tries, w.before
	w.mu.Unlock()
	if before != nil {
		if err := before(try); err != nil {
			return nil, err
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all = append(w.all, *e)
	return e, nil
}

func (w *writtenEvents) PatchWithEventNamespaceWithContext(_ context.Context, e *corev1.Event, patch []byte) (*corev1.Event, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	i := slices.IndexFunc(w.all, func(old corev1.Event) bool { return old.Name == e.Name })
	if i < 0 {
		return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "events"}, e.Name)
	}
	var counted corev1.Event
	if err := json.Unmarshal(patch, &counted); err != nil {
		return nil, err
	}
	w.all[i].Count = counted.Count
	return e, nil
}

func (w *writtenEvents) messages() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []string
	for _, e := range w.all {
		all = append(all, fmt.Sprintf("%s: %s", e.InvolvedObject.Name, e.Message))
	}
	return all
}

// queueing has events reported to a queue, and then runs the queue, in a bubble of synctest.
// check gets what the queue has logged so far.
func queueing(
	t *testing.T, w *writtenEvents, report func(t *testing.T, q *eventQueue), check func(t *testing.T, m *metrics, logged func() []string),
) {
	t.Helper()
	scheme := eventScheme(t)
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var log []string
		logger := funcr.New(func(_, args string) {
			mu.Lock()
			defer mu.Unlock()
			log = append(log, args)
		}, funcr.Options{})
		m := newMetrics()
		q := newEventQueue(logger, clock.RealClock{}, scheme, w, m)
		report(t, q)
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { q.run(ctx) })
		check(t, m, func() []string {
			mu.Lock()
			defer mu.Unlock()
			return slices.Clone(log)
		})
		cancel()
		running.Wait()
	})
}

// lostBy are the lost events by reason.
func lostBy(t *testing.T, m *metrics) map[string]float64 {
	t.Helper()
	registry := prometheus.NewRegistry()
	registry.MustRegister(m.eventsLost)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	lost := make(map[string]float64)
	for _, f := range families {
		for _, of := range f.GetMetric() {
			if n := of.GetCounter().GetValue(); n > 0 {
				lost[of.GetLabel()[0].GetValue()] = n
			}
		}
	}
	return lost
}

// TestNoEventIsLost: 2000 namespaces get two egress IPs each at once, on four hosts, from an
// API server that takes its time. Every event is written, in order, with the time at which it
// was reported.
//
// Mutant killed: events-are-dropped.
func TestNoEventIsLost(t *testing.T) {
	const each = 5 * time.Millisecond
	w := &writtenEvents{before: func(int) error { time.Sleep(each); return nil }}
	var began time.Time
	var want []string
	queueing(t, w, func(t *testing.T, q *eventQueue) {
		t.Helper()
		began = time.Now()
		for i := range 2000 {
			host := &v1.HostSubnet{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("node%d", i%4)}}
			n := &v1.NetNamespace{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("team%d", i)}}
			for a := range 2 {
				message := fmt.Sprintf("10.%d.%d.%d of namespace %s is assigned to host %s.", a+1, i/250, 1+i%250, n.Name, host.Name)
				q.Event(n, corev1.EventTypeNormal, eventAssigned, message)
				q.Event(host, corev1.EventTypeNormal, eventAssigned, message)
				want = append(want, n.Name+": "+message, host.Name+": "+message)
			}
		}
	}, func(t *testing.T, m *metrics, _ func() []string) {
		t.Helper()
		time.Sleep(time.Duration(len(want))*each + time.Second)
		if got := w.messages(); !slices.Equal(got, want) {
			t.Errorf("%d of %d events are written, or not in order", len(got), len(want))
		}
		if lost := lostBy(t, m); len(lost) > 0 {
			t.Errorf("lost: %v", lost)
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		if at := w.all[len(w.all)-1].LastTimestamp; !at.Time.Equal(began) {
			t.Errorf("the last one is of %s, want when it was reported, %s", at, began)
		}
	})
}

// TestLostEventsAreCounted: what cannot be written is counted by its reason, and logged once
// until all that wait are written. What can be tried again is.
//
// Mutant killed: events-are-lost-silently.
func TestLostEventsAreCounted(t *testing.T) {
	noAnswer := errors.New("connection refused")
	forbidden := apierrors.NewForbidden(schema.GroupResource{Resource: "events"}, "", errLate)
	for _, tc := range []struct {
		name   string
		room   int
		report int
		same   bool
		before func(try int) error
		// written and lost are how many in the end, after so long.
		written int
		lost    map[string]float64
		after   time.Duration
	}{
		{name: "the queue is full", room: 10, report: 15, written: 10, lost: map[string]float64{lostQueueFull: 5}},
		{name: "one object has too many", room: 3000, report: 2000, written: eventsOfObject, lost: map[string]float64{lostRateLimited: 2000 - eventsOfObject}},
		{name: "the same again", room: 10, report: 5, same: true, written: 1, lost: map[string]float64{}},
		{name: "refused", room: 10, report: 5, before: func(try int) error {
			if try < 4 {
				return forbidden
			}
			return nil
		}, written: 2, lost: map[string]float64{lostRefused: 3}},
		{name: "an outage", room: 10, report: 5, before: func(try int) error {
			if try < 4 {
				return noAnswer
			}
			return nil
		}, after: time.Minute, written: 5, lost: map[string]float64{}},
		{name: "an answer is lost", room: 10, report: 5, before: func(try int) error {
			switch try {
			case 1:
				return noAnswer
			case 2:
				return apierrors.NewAlreadyExists(schema.GroupResource{Resource: "events"}, "")
			}
			return nil
		}, after: time.Minute, written: 4, lost: map[string]float64{}},
		{name: "never an answer", room: 10, report: 2, before: func(try int) error {
			if try <= eventTries {
				return noAnswer
			}
			return nil
		}, after: time.Hour, written: 1, lost: map[string]float64{lostUnanswered: 1}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := &writtenEvents{before: tc.before}
			queueing(t, w, func(_ *testing.T, q *eventQueue) {
				q.room = tc.room
				host := &v1.HostSubnet{ObjectMeta: metav1.ObjectMeta{Name: "node1"}}
				for i := range tc.report {
					message := fmt.Sprintf("This is %d.", i)
					if tc.same {
						message = "This is it."
					}
					q.Event(host, corev1.EventTypeNormal, eventAssigned, message)
				}
			}, func(t *testing.T, m *metrics, logged func() []string) {
				t.Helper()
				time.Sleep(tc.after)
				synctest.Wait()
				if got := len(w.messages()); got != tc.written {
					t.Errorf("%d events are written, want %d", got, tc.written)
				}
				if lost := lostBy(t, m); !maps.Equal(lost, tc.lost) {
					t.Errorf("lost: %v, want %v", lost, tc.lost)
				}
				log := logged()
				if len(log) != len(tc.lost) {
					t.Errorf("logged: %q", log)
				}
				for why := range tc.lost {
					if !strings.Contains(strings.Join(log, "\n"), why) {
						t.Errorf("%s is not logged: %q", why, log)
					}
				}
			})
		})
	}
}
