package apiconn

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
)

// server is an API server that can be away, with one object whose version counts up.
type server struct {
	mu      sync.Mutex
	version int
	oldest  int // versions before that are forgotten
	away    bool
	watches map[*watch.FakeWatcher]bool
	lists   int
	// refusals are requests while it was away.
	refusals int
}

var errAway = errors.New("connection refused")

func (s *server) object() *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop", ResourceVersion: strconv.Itoa(s.version)}}
}

func (s *server) ListWithContext(context.Context, metav1.ListOptions) (runtime.Object, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.away {
		s.refusals++
		return nil, errAway
	}
	s.lists++
	return &corev1.NamespaceList{ListMeta: metav1.ListMeta{ResourceVersion: strconv.Itoa(s.version)}, Items: []corev1.Namespace{*s.object()}}, nil
}

func (s *server) WatchWithContext(_ context.Context, o metav1.ListOptions) (watch.Interface, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.away {
		s.refusals++
		return nil, errAway
	}
	from, err := strconv.Atoi(o.ResourceVersion)
	if err != nil {
		return nil, err
	}
	if from < s.oldest {
		return nil, apierrors.NewResourceExpired("too old")
	}
	w := watch.NewFakeWithChanSize(100, false)
	if from < s.version {
		w.Modify(s.object())
	}
	s.watches[w] = true
	return w, nil
}

func (s *server) List(o metav1.ListOptions) (runtime.Object, error) {
	return s.ListWithContext(context.Background(), o)
}

func (s *server) Watch(o metav1.ListOptions) (watch.Interface, error) {
	return s.WatchWithContext(context.Background(), o)
}

func (s *server) do(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

// goes away, or comes back; its watches break as a lost connection breaks them.
func (s *server) goes(away bool) {
	s.do(func() {
		s.away = away
		for w := range s.watches {
			w.Error(&apierrors.NewInternalError(errAway).ErrStatus)
			w.Stop()
		}
		clear(s.watches)
	})
}

// refused waits until somebody has asked in vain.
func refused(t *testing.T, s *server) {
	t.Helper()
	var before, now int
	s.do(func() { before = s.refusals })
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); now <= before; <-tick.C {
		s.do(func() { now = s.refusals })
		if time.Now().After(deadline) {
			t.Fatal("nobody asks")
		}
	}
}

// given: an API server that goes away and comes back, again and again; when something
// changed meanwhile, then it is heard of seconds after the return, each time, and
// without a list as long as the server knows the version.
//
// Mutants killed: NewInformer as client-go has it, whose pause is beyond bound by the
// fifth time; a refused version asked for again and again.
func TestChangesAreHeardOfSoonAfterTheReturn(t *testing.T) {
	const bound = 2*retryMost + 2*time.Second
	s := &server{version: 1, watches: map[*watch.FakeWatcher]bool{}}
	informer := NewInformer(s, &corev1.Namespace{}, 0, cache.Indexers{})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		informer.RunWithContext(ctx)
	}()
	defer func() { cancel(); <-done }()
	heard := func(what string) {
		t.Helper()
		var want string
		s.do(func() { want = strconv.Itoa(s.version) })
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for deadline := time.Now().Add(bound); ; <-tick.C {
			item, known, err := informer.GetStore().GetByKey("shop")
			if err != nil {
				t.Fatal(err)
			}
			if known && item.(*corev1.Namespace).ResourceVersion == want {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: version %s is not heard of within %s", what, want, bound)
			}
		}
	}
	heard("at first")
	for range 5 {
		s.goes(true)
		s.do(func() { s.version++ })
		refused(t, s)
		s.goes(false)
		heard("after a return")
	}
	s.do(func() {
		if s.lists != 1 {
			t.Errorf("%d lists, want one", s.lists)
		}
	})
	s.goes(true)
	s.do(func() { s.version += 10; s.oldest = s.version })
	s.goes(false)
	heard("after the version was forgotten")
}
