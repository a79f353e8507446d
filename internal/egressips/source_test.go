package egressips_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	toolscache "k8s.io/client-go/tools/cache"
	testclock "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/cache/informertest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	ovnv1 "github.com/egressip-operator/egressip-operator/api/ovn/v1"
	"github.com/egressip-operator/egressip-operator/internal/egressips"
	"github.com/egressip-operator/egressip-operator/internal/testenv"
)

// definitions answers for the API server.
type definitions struct {
	client.Reader
	asked atomic.Int32
	get   atomic.Pointer[func(*metav1.PartialObjectMetadata) error]
}

func (d *definitions) Get(_ context.Context, _ client.ObjectKey, object client.Object, _ ...client.GetOption) error {
	d.asked.Add(1)
	crd, ok := object.(*metav1.PartialObjectMetadata)
	if !ok {
		return errors.New("asked for something else")
	}
	return (*d.get.Load())(crd)
}

func (d *definitions) answers(f func(*metav1.PartialObjectMetadata) error) { d.get.Store(&f) }

// As long as the API server does not answer, nothing is known. Without a definition, or with another
// software's, there are no EgressIPs, and it is looked for again; one that is ours is served from
// then on, until it is not any more: then the program has to start again.
//
// Mutants killed: unanswered-is-known, foreign-definition-is-ours, never-looked-at-again.
func TestSource(t *testing.T) {
	scheme := runtime.NewScheme()
	if err := ovnv1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	var live definitions
	clock := testclock.NewFakeClock(time.Unix(1e9, 0))
	var told atomic.Int32
	s := egressips.New(egressips.Config{
		Live: &live, Cache: &informertest.FakeInformers{Scheme: scheme}, Log: logr.Discard(), Clock: clock,
		Handler: toolscache.ResourceEventHandlerFuncs{}, Known: func() { told.Add(1) },
	})
	live.answers(func(*metav1.PartialObjectMetadata) error { return errors.New("no route to host") })
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Start(ctx) }()
	defer cancel()
	next := func(after time.Duration) {
		t.Helper()
		asked := live.asked.Load()
		testenv.Until(t, "a pause", clock.HasWaiters)
		clock.Step(after)
		testenv.Until(t, "another question", func() bool { return live.asked.Load() > asked && clock.HasWaiters() })
	}
	next(time.Second)
	if s.Known() || s.Served() {
		t.Error("something is known without an answer")
	}
	live.answers(func(*metav1.PartialObjectMetadata) error {
		return apierrors.NewNotFound(schema.GroupResource{Resource: "customresourcedefinitions"}, ovnv1.CRDName)
	})
	next(time.Second)
	<-s.Ready()
	if !s.Known() || s.Served() || told.Load() == 0 {
		t.Errorf("without a definition: known %t, served %t, told %d times", s.Known(), s.Served(), told.Load())
	}
	live.answers(func(*metav1.PartialObjectMetadata) error { return nil })
	next(time.Minute)
	if s.Served() {
		t.Error("another software's are served")
	}
	if list, err := s.List(t.Context()); err != nil || len(list) > 0 {
		t.Errorf("there are %v, %v", list, err)
	}
	live.answers(func(crd *metav1.PartialObjectMetadata) error {
		crd.Annotations = map[string]string{ovnv1.AnnotationServedBy: ovnv1.ServedBy}
		return nil
	})
	testenv.Until(t, "a pause", clock.HasWaiters)
	clock.Step(time.Minute)
	testenv.Until(t, "EgressIPs to be served", s.Served)
	next(time.Minute)
	live.answers(func(*metav1.PartialObjectMetadata) error {
		return apierrors.NewNotFound(schema.GroupResource{Resource: "customresourcedefinitions"}, ovnv1.CRDName)
	})
	next(time.Minute)
	if !s.Served() {
		t.Error("they are not served any more after one answer that there is no definition")
	}
	live.answers(func(*metav1.PartialObjectMetadata) error { return nil })
	testenv.Until(t, "a pause", clock.HasWaiters)
	clock.Step(time.Minute)
	select {
	case err := <-ended:
		if err == nil || !strings.Contains(err.Error(), "another software's") {
			t.Errorf("it ends with %v after the definition has become another's", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("it does not end although the definition has become another's")
	}
}

// Without a source there are no EgressIPs, and that is known.
func TestNoSource(t *testing.T) {
	var none *egressips.Source
	if !none.Known() || none.Served() {
		t.Error("a source that is not there says otherwise")
	}
	if list, err := none.List(t.Context()); err != nil || len(list) > 0 {
		t.Errorf("there are %v, %v", list, err)
	}
}
