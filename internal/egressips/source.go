package egressips

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	ovnv1 "github.com/egressip-operator/egressip-operator/api/ovn/v1"
)

const (
	// retryAfter is the pause after a request that failed.
	retryAfter = time.Second
	// lookAgainAfter is the pause until a definition is looked for again that is not there, or is
	// another's.
	lookAgainAfter = 30 * time.Second
)

// Config of a Source.
type Config struct {
	// Live asks the API server; it needs to get the CustomResourceDefinition alone.
	Live client.Reader
	// Cache holds the EgressIPs.
	Cache cache.Cache
	Log   logr.Logger
	Clock clock.Clock
	// Also are kinds that are needed where there are EgressIPs, such as Namespaces.
	Also []client.Object
	// Handler gets the changes of all of these.
	Handler toolscache.ResourceEventHandler
	// Known is called when it becomes known whether EgressIPs are served.
	Known func()
}

// Source reads EgressIPs. A nil one has none.
type Source struct {
	config        Config
	known, served atomic.Bool
	// ready is closed when it is known.
	ready chan struct{}
	said  string
}

// New returns a Source that knows nothing before Start.
func New(c Config) *Source { return &Source{config: c, ready: make(chan struct{})} }

// NeedLeaderElection is false: the caches of a standby are warm.
func (*Source) NeedLeaderElection() bool { return false }

// Ready is closed when it is known whether EgressIPs are served.
func (s *Source) Ready() <-chan struct{} { return s.ready }

// Known reports whether it is known which EgressIPs there are.
func (s *Source) Known() bool { return s == nil || s.known.Load() }

// Served reports whether EgressIPs are served.
func (s *Source) Served() bool { return s != nil && s.served.Load() }

// List returns the EgressIPs of the cache, which must not be changed; none if they are not served.
func (s *Source) List(ctx context.Context) ([]ovnv1.EgressIP, error) {
	if !s.Served() {
		return nil, nil
	}
	var list ovnv1.EgressIPList
	if err := s.config.Cache.List(ctx, &list); err != nil {
		return nil, fmt.Errorf("read EgressIPs from the cache: %w", err)
	}
	return list.Items, nil
}

// Start looks for the definition until it is ours and the cache has what there is, or ctx ends.
func (s *Source) Start(ctx context.Context) error {
	for ctx.Err() == nil {
		pause := lookAgainAfter
		found, err := s.look(ctx)
		switch {
		case err != nil:
			s.say("cannot find out whether EgressIPs are served; trying again", err)
			pause = retryAfter
		case !found:
			s.know(false)
		default:
			err := s.watch(ctx)
			if err == nil {
				s.say("EgressIPs are served", nil)
				s.know(true)
				return nil
			}
			s.say("cannot watch EgressIPs yet; trying again", err)
			pause = retryAfter
		}
		t := s.config.Clock.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-t.C():
		}
		t.Stop()
	}
	return nil
}

// look reports whether there is a definition that is ours.
func (s *Source) look(ctx context.Context) (bool, error) {
	crd := &metav1.PartialObjectMetadata{}
	crd.SetGroupVersionKind(schema.GroupVersionKind{Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition"})
	err := s.config.Live.Get(ctx, client.ObjectKey{Name: ovnv1.CRDName}, crd)
	switch {
	case apierrors.IsNotFound(err):
		s.say("EgressIPs are not served: there is no CustomResourceDefinition "+ovnv1.CRDName, nil)
		return false, nil
	case err != nil:
		return false, fmt.Errorf("read CustomResourceDefinition %s: %w", ovnv1.CRDName, err)
	case crd.Annotations[ovnv1.AnnotationServedBy] != ovnv1.ServedBy:
		s.say("EgressIPs are not served: CustomResourceDefinition "+ovnv1.CRDName+" is another software's, as it has no annotation "+
			ovnv1.AnnotationServedBy+"="+ovnv1.ServedBy, nil)
		return false, nil
	}
	return true, nil
}

// watch fills the caches.
func (s *Source) watch(ctx context.Context) error {
	synced := make([]toolscache.InformerSynced, 0, 1+len(s.config.Also))
	for _, object := range append([]client.Object{&ovnv1.EgressIP{}}, s.config.Also...) {
		informer, err := s.config.Cache.GetInformer(ctx, object, cache.BlockUntilSynced(false))
		if err != nil {
			return fmt.Errorf("watch %T: %w", object, err)
		}
		registration, err := informer.AddEventHandler(s.config.Handler)
		if err != nil {
			return fmt.Errorf("watch %T: %w", object, err)
		}
		synced = append(synced, registration.HasSynced)
	}
	if !toolscache.WaitForCacheSync(ctx.Done(), synced...) {
		return errors.Join(ctx.Err(), errors.New("the caches have not synced"))
	}
	return nil
}

// know notes whether EgressIPs are served.
func (s *Source) know(served bool) {
	s.served.Store(served)
	if !s.known.Swap(true) {
		close(s.ready)
	}
	if s.config.Known != nil {
		s.config.Known()
	}
}

// say logs what was not said last.
func (s *Source) say(message string, err error) {
	text := message
	if err != nil {
		text += ": " + err.Error()
	}
	if text == s.said {
		return
	}
	s.said = text
	if err != nil {
		s.config.Log.Error(err, message)
		return
	}
	s.config.Log.Info(message)
}
