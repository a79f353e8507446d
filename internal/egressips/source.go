package egressips

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
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
	// lookAgainAfter is the pause until the definition is looked for again.
	lookAgainAfter = 30 * time.Second
	// optionalWait is how long the optional kinds are waited for before EgressIPs are served.
	optionalWait = 10 * time.Second
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
	// Optional are kinds whose definitions may be missing.
	Optional []client.Object
	// Handler gets the changes of all of these.
	Handler toolscache.ResourceEventHandler
	// Known is called when it becomes known whether EgressIPs are served.
	Known func()
}

// Source reads EgressIPs. A nil one has none.
type Source struct {
	config        Config
	known, served atomic.Bool
	// complete: the optional kinds are there, too.
	complete atomic.Bool
	// ready is closed when it is known.
	ready chan struct{}
	said  string
	// watched are the kinds that are watched, by type.
	watched map[string]toolscache.InformerSynced
	// missed is how often the definition was not there in a row.
	missed int
}

// New returns a Source that knows nothing before Start.
func New(c Config) *Source {
	return &Source{config: c, ready: make(chan struct{}), watched: make(map[string]toolscache.InformerSynced)}
}

// NeedLeaderElection is false: the caches of a standby are warm.
func (*Source) NeedLeaderElection() bool { return false }

// Ready is closed when it is known whether EgressIPs are served.
func (s *Source) Ready() <-chan struct{} { return s.ready }

// Known reports whether it is known which EgressIPs there are.
func (s *Source) Known() bool { return s == nil || s.known.Load() }

// Served reports whether EgressIPs are served.
func (s *Source) Served() bool { return s != nil && s.served.Load() }

// Complete reports whether the optional kinds are in the cache.
func (s *Source) Complete() bool { return s != nil && s.complete.Load() }

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

// Read reads a list of an optional kind from the cache, which must not be changed.
func (s *Source) Read(ctx context.Context, list client.ObjectList) error {
	if err := s.config.Cache.List(ctx, list); err != nil {
		return fmt.Errorf("read %T from the cache: %w", list, err)
	}
	return nil
}

// Start looks for the definitions, and serves EgressIPs as soon as theirs is there and is ours, until
// ctx ends. It returns an error if the definition is not ours any more: what is in the cache then must
// not be read, so that the program has to start again.
func (s *Source) Start(ctx context.Context) error {
	for ctx.Err() == nil {
		pause := lookAgainAfter
		found, err := s.look(ctx)
		switch {
		case err != nil:
			s.say("cannot find out whether EgressIPs are served; trying again", err)
			pause = retryAfter
		case !found && s.Served():
			return errors.New(s.said + "; they were served until now, so that this program has to start again")
		case !found:
			s.know(false)
		case !s.Served() || !s.Complete():
			pause, err = s.serve(ctx)
			if err != nil {
				s.say("cannot watch EgressIPs yet, or pools of them; trying again", err)
			}
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
		// An API server that starts may not know it yet.
		if s.missed++; s.Served() && s.missed < 2 {
			return true, nil
		}
		s.say("EgressIPs are not served: there is no CustomResourceDefinition "+ovnv1.CRDName, nil)
		return false, nil
	case err != nil:
		return false, fmt.Errorf("read CustomResourceDefinition %s: %w", ovnv1.CRDName, err)
	case crd.Annotations[ovnv1.AnnotationServedBy] != ovnv1.ServedBy:
		s.say("EgressIPs are not served: CustomResourceDefinition "+ovnv1.CRDName+" is another software's, as it has no annotation "+
			ovnv1.AnnotationServedBy+"="+ovnv1.ServedBy, nil)
		return false, nil
	}
	s.missed = 0
	return true, nil
}

// serve fills the caches, and returns when to try again.
func (s *Source) serve(ctx context.Context) (pause time.Duration, err error) {
	if !s.Served() {
		if err := s.watch(ctx, append([]client.Object{&ovnv1.EgressIP{}}, s.config.Also...)); err != nil {
			return retryAfter, err
		}
	}
	// Whatever is wrong with these must not hold up the others for long.
	wait, cancel := context.WithTimeout(ctx, optionalWait)
	defer cancel()
	err = s.watch(wait, s.config.Optional)
	s.complete.Store(err == nil)
	s.know(true)
	if err != nil && !meta.IsNoMatchError(err) {
		return retryAfter, err
	}
	s.say("EgressIPs are served", nil)
	return lookAgainAfter, nil
}

// watch fills the caches with some kinds.
func (s *Source) watch(ctx context.Context, objects []client.Object) error {
	synced := make([]toolscache.InformerSynced, 0, len(objects))
	for _, object := range objects {
		kind := fmt.Sprintf("%T", object)
		if has, watched := s.watched[kind]; watched {
			synced = append(synced, has)
			continue
		}
		informer, err := s.config.Cache.GetInformer(ctx, object, cache.BlockUntilSynced(false))
		if err != nil {
			return fmt.Errorf("watch %T: %w", object, err)
		}
		registration, err := informer.AddEventHandler(s.config.Handler)
		if err != nil {
			return fmt.Errorf("watch %T: %w", object, err)
		}
		s.watched[kind] = registration.HasSynced
		synced = append(synced, registration.HasSynced)
	}
	if !toolscache.WaitForCacheSync(ctx.Done(), synced...) {
		return errors.Join(ctx.Err(), fmt.Errorf("%d kinds from %T on were not read in time", len(objects), objects[0]))
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
