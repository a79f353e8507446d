package controllers

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/event"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/apiconn"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

const (
	// readAgainAfter is the pause before what could not be read is tried again. It doubles
	// up to readAgainAtMost: a permission that is missing may be missing for good.
	readAgainAfter  = time.Second
	readAgainAtMost = 5 * time.Minute
	// readWithin bounds the first reading of all objects of a kind. It may be taken away
	// meanwhile, or the right to read it, and the others wait.
	readWithin = time.Minute
)

// networkReader watches the objects of others that name networks of pods and services. It
// begins with a kind when its CustomResourceDefinition appears, and ends with it. What may
// not be read is none of its errors: it is logged once, and published as a problem.
//
// It runs on standbys, too: a new leader must not publish less than the last one.
type networkReader struct {
	log     logr.Logger
	clock   clock.Clock
	objects dynamic.Interface
	meta    metadata.Interface
	sources []egress.NetworkSource
	// services are those of the flag.
	services []netip.Prefix
	// changed receives an event when the networks have changed.
	changed chan event.GenericEvent
	wake    chan struct{}

	mu sync.Mutex
	// ready: all that can be read has been read.
	ready    bool
	readings map[string]*reading
	// found is what the objects name; nil if that must be collected again.
	found []egress.NamedNetwork
}

// reading is what has become of one kind.
type reading struct {
	// informer is nil if the kind is not read, and problem says why, or is "" if the API
	// server does not have it.
	informer toolscache.SharedIndexInformer
	stop     context.CancelFunc
	problem  string
}

// definitions is the key of the reading of CustomResourceDefinitions.
const definitions = "CustomResourceDefinitions"

// newNetworkReader returns one that reads nothing if there are no sources.
func newNetworkReader(
	log logr.Logger, clock clock.Clock, cfg *rest.Config, sources []egress.NetworkSource, services []netip.Prefix,
) (*networkReader, error) {
	objects, err := dynamic.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("set up a client: %w", err)
	}
	meta, err := metadata.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("set up a client of metadata: %w", err)
	}
	return &networkReader{
		log: log.WithName("networks"), clock: clock, objects: objects, meta: meta, sources: sources, services: services, ready: len(sources) == 0,
		changed: make(chan event.GenericEvent, 1), wake: make(chan struct{}, 1), readings: make(map[string]*reading),
	}, nil
}

// NeedLeaderElection makes the manager run it on each controller.
func (r *networkReader) NeedLeaderElection() bool { return false }

// networks returns what the objects name. It is not ready before all that can be read has
// been read; what was published before is right until then. Without a receiver it never is.
func (r *networkReader) networks() (found []egress.NamedNetwork, ready bool) {
	if r == nil {
		return nil, false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.found == nil {
		r.found = r.collect()
	}
	return r.found, r.ready
}

// reads reports whether anything must be read.
func (r *networkReader) reads() bool { return len(r.sources) > 0 }

// collect reads the informers.
func (r *networkReader) collect() []egress.NamedNetwork {
	all := make([]egress.NamedNetwork, 0, len(r.services))
	for _, p := range r.services {
		all = append(all, egress.NamedNetwork{FoundNetwork: v1.FoundNetwork{CIDR: p.String(), Source: egress.SourceServiceFlag, Use: v1.UseServices}})
	}
	if read := r.readings[definitions]; read != nil && read.problem != "" {
		all = append(all, problemOf(definitions, read.problem))
	}
	for _, source := range r.sources {
		read := r.readings[source.String()]
		switch {
		case read == nil:
		case read.informer == nil && read.problem != "":
			all = append(all, problemOf(source.String(), read.problem))
		case read.informer != nil:
			for _, object := range read.informer.GetStore().List() {
				if names, ok := object.(*namesNetworks); ok {
					all = append(all, names.networks...)
				}
			}
		}
	}
	return all
}

func problemOf(source, problem string) egress.NamedNetwork {
	return egress.NamedNetwork{FoundNetwork: v1.FoundNetwork{Source: source, Use: v1.UsePods, Problem: problem}}
}

// Start works until ctx ends.
func (r *networkReader) Start(ctx context.Context) error {
	var informers sync.WaitGroup
	defer informers.Wait()
	if len(r.sources) == 0 {
		return nil
	}
	pause := readAgainAfter
	for ctx.Err() == nil {
		if r.await(ctx, r.readAll(ctx, &informers), pause) {
			pause = readAgainAfter
		} else {
			pause = min(2*pause, readAgainAtMost)
		}
	}
	return nil
}

// await returns when a CustomResourceDefinition has changed, and reports that; or after a
// pause, if something is to be read that could not be.
func (r *networkReader) await(ctx context.Context, complete bool, pause time.Duration) (changed bool) {
	var again <-chan time.Time
	if !complete {
		timer := r.clock.NewTimer(pause)
		defer timer.Stop()
		again = timer.C()
	}
	select {
	case <-ctx.Done():
		return false
	case <-r.wake:
		return true
	case <-again:
		return false
	}
}

// readAll begins to read each kind that the API server has, and ends with those that it has
// no more. It returns false if something must be tried again.
func (r *networkReader) readAll(ctx context.Context, informers *sync.WaitGroup) (complete bool) {
	crds, known := r.readDefinitions(ctx, informers)
	complete = known
	undecided := false
	for _, source := range r.sources {
		if name := source.CRD(); name != "" && known && !crds[name] {
			r.end(source.String())
			continue
		}
		err := r.readSource(ctx, informers, source)
		refused := apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err)
		switch {
		case ctx.Err() != nil:
			return false
		case err == nil:
		case apierrors.IsNotFound(err), refused && !known && source.CRD() != "":
			// A kind that is about to be served, or that there may not be at all.
			complete = false
			r.end(source.String())
		default:
			complete = false
			undecided = undecided || !refused
			r.failed(source.String(), err)
		}
	}
	r.mu.Lock()
	news := !undecided && !r.ready
	r.ready = r.ready || news
	r.mu.Unlock()
	if news {
		r.notify()
	}
	return complete
}

// readDefinitions returns the names of the CustomResourceDefinitions; known is false if they
// may not be read, so that each kind must be asked for.
func (r *networkReader) readDefinitions(ctx context.Context, informers *sync.WaitGroup) (names map[string]bool, known bool) {
	resource := r.meta.Resource(schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"})
	if r.informer(definitions) == nil {
		if err := try(ctx, func(ctx context.Context) error {
			_, err := resource.List(ctx, metav1.ListOptions{Limit: 1})
			return err
		}); err != nil {
			r.failed(definitions, err)
			return nil, false
		}
		if err := r.begin(ctx, informers, definitions, &toolscache.ListWatch{
			ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
				return resource.List(ctx, o)
			},
			WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
				return resource.Watch(ctx, o)
			},
		}, &metav1.PartialObjectMetadata{}, stripMeta); err != nil {
			r.failed(definitions, err)
			return nil, false
		}
	}
	informer := r.informer(definitions)
	names = make(map[string]bool)
	if informer == nil {
		return names, false
	}
	for _, name := range informer.GetStore().ListKeys() {
		names[name] = true
	}
	return names, true
}

// readSource begins to read a kind, unless it is read already.
func (r *networkReader) readSource(ctx context.Context, informers *sync.WaitGroup, source egress.NetworkSource) error {
	if r.informer(source.String()) != nil {
		return nil
	}
	resource := r.objects.Resource(schema.GroupVersionResource{
		Group: source.Group, Version: source.Version, Resource: source.Resource,
	}).Namespace(source.Namespace)
	limited := func(o metav1.ListOptions) metav1.ListOptions {
		if source.Name != "" {
			o.FieldSelector = fields.OneTermEqualSelector("metadata.name", source.Name).String()
		}
		return o
	}
	if err := try(ctx, func(ctx context.Context) error {
		_, err := resource.List(ctx, limited(metav1.ListOptions{Limit: 1}))
		return err
	}); err != nil {
		return err
	}
	return r.begin(ctx, informers, source.String(), &toolscache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			return resource.List(ctx, limited(o))
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return resource.Watch(ctx, limited(o))
		},
	}, &unstructured.Unstructured{}, readTransform(source))
}

// try bounds a request that shows whether a kind may be read.
func try(ctx context.Context, request func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	return request(ctx)
}

// begin runs an informer until ctx ends, or end is called, and returns when it has synced.
// The error is of one that has not within readWithin, which has ended then.
func (r *networkReader) begin(
	ctx context.Context, informers *sync.WaitGroup, key string, lw toolscache.ListerWatcher, example runtime.Object, transform toolscache.TransformFunc,
) error {
	informer := apiconn.NewInformer(lw, example, 0, toolscache.Indexers{})
	// Both fail only for an informer that runs or has ended.
	if err := informer.SetTransform(transform); err != nil {
		return err
	}
	if _, err := informer.AddEventHandler(r.handler()); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	informers.Go(func() { informer.RunWithContext(ctx) })
	within, cancel := context.WithTimeout(ctx, readWithin)
	defer cancel()
	if !toolscache.WaitForCacheSync(within.Done(), informer.HasSynced) {
		stop()
		return fmt.Errorf("read all %s: %w", key, within.Err())
	}
	r.mu.Lock()
	r.readings[key], r.found = &reading{informer: informer, stop: stop}, nil
	r.mu.Unlock()
	r.log.Info("reading networks", "of", key)
	r.notify()
	return nil
}

// end ends the reading of a kind.
func (r *networkReader) end(key string) {
	r.mu.Lock()
	read := r.readings[key]
	delete(r.readings, key)
	r.found = nil
	r.mu.Unlock()
	if read == nil {
		return
	}
	if read.stop != nil {
		read.stop()
	}
	r.notify()
}

// failed remembers why a kind is not read, and logs it once.
func (r *networkReader) failed(key string, err error) {
	problem := "the controller cannot list them: " + err.Error()
	r.mu.Lock()
	before := r.readings[key]
	r.readings[key], r.found = &reading{problem: problem}, nil
	r.mu.Unlock()
	if before != nil && before.problem == problem {
		return
	}
	r.log.Info("cannot read networks; going on without", "of", key, "why", err.Error())
	r.notify()
}

func (r *networkReader) informer(key string) toolscache.SharedIndexInformer {
	r.mu.Lock()
	defer r.mu.Unlock()
	if read := r.readings[key]; read != nil {
		return read.informer
	}
	return nil
}

// handler raises what an event asks for: another look at the kinds, or another decision.
func (r *networkReader) handler() toolscache.ResourceEventHandler {
	changed := func(object any) {
		if gone, ok := object.(toolscache.DeletedFinalStateUnknown); ok {
			object = gone.Obj
		}
		if _, ok := object.(*namesNetworks); !ok {
			raise(r.wake, struct{}{})
			return
		}
		r.mu.Lock()
		r.found = nil
		r.mu.Unlock()
		r.notify()
	}
	return toolscache.ResourceEventHandlerFuncs{
		AddFunc: changed, DeleteFunc: changed,
		UpdateFunc: func(before, after any) {
			b, wasNames := before.(*namesNetworks)
			a, names := after.(*namesNetworks)
			if wasNames && names && slices.Equal(b.networks, a.networks) {
				return
			}
			changed(after)
		},
	}
}

func (r *networkReader) notify() { raise(r.changed, event.GenericEvent{Object: &v1.HostSubnet{}}) }

// raise sends what is not to be sent twice.
func raise[T any](to chan<- T, what T) {
	select {
	case to <- what:
	default:
	}
}
