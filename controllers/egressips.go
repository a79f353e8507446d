package controllers

import (
	"context"
	"errors"
	"reflect"

	"github.com/go-logr/logr"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"github.com/egressip-operator/egressip-operator/api/egressip/v1alpha1"
	ovnv1 "github.com/egressip-operator/egressip-operator/api/ovn/v1"
	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/egressips"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// errEgressIPsUnknown: nothing can be decided, for what EgressIPs request would be released.
var errEgressIPsUnknown = errors.New("it is not known yet whether there are EgressIPs")

// egressIPs are the EgressIPs of the cluster, if they are ours to serve. A nil one has none.
type egressIPs struct {
	*egressips.Source
	// repair gets each new version of one, and gone those that were deleted, if they are there.
	repair func(client.Object)
	// seen is called when one may have changed in any way, if it is there.
	seen func()
	gone func(any)
	// listeners get an event when one has changed, or when it becomes known which there are.
	listeners []chan event.GenericEvent
}

func newEgressIPs(log logr.Logger, live client.Reader, c cache.Cache) *egressIPs {
	e := &egressIPs{}
	e.Source = egressips.New(egressips.Config{
		Optional: []client.Object{&v1alpha1.EgressIPPool{}, &v1alpha1.EgressIPRequest{}},
		Live:     live, Cache: c, Log: log.WithName("egressips"), Clock: clock.RealClock{}, Handler: e.handler(), Known: e.tell,
	})
	return e
}

// changed returns a channel for one listener. All must be there before the source starts.
func (e *egressIPs) changed() chan event.GenericEvent {
	c := make(chan event.GenericEvent, 1)
	if e != nil {
		e.listeners = append(e.listeners, c)
	}
	return c
}

// tell tells the listeners. One that was told and has not looked since need not be told again.
func (e *egressIPs) tell() {
	if e.seen != nil {
		e.seen()
	}
	for _, c := range e.listeners {
		select {
		case c <- event.GenericEvent{}:
		default:
		}
	}
}

// handler tells of everything that matters to the reconcilers, which write statuses themselves.
func (e *egressIPs) handler() toolscache.ResourceEventHandler {
	return toolscache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { e.tell() },
		DeleteFunc: func(was any) {
			e.tell()
			if e.gone != nil {
				e.gone(was)
			}
		},
		UpdateFunc: func(before, after any) {
			if !sameForEgressIPs(before, after) {
				e.tell()
			} else if e.seen != nil {
				e.seen()
			}
			if a, ok := after.(*ovnv1.EgressIP); ok && e.repair != nil {
				e.repair(a)
			}
		},
	}
}

// sameForEgressIPs reports whether two versions of an object differ only in what the controller
// writes itself.
func sameForEgressIPs(before, after any) bool {
	b, ok := before.(client.Object)
	a, alsoOK := after.(client.Object)
	if !ok || !alsoOK {
		return false
	}
	if b, ok := before.(*ovnv1.EgressIP); ok {
		a, ok := after.(*ovnv1.EgressIP)
		return ok && sameEgressIP(b, a)
	}
	return b.GetUID() == a.GetUID() && b.GetGeneration() == a.GetGeneration() && egress.SamePassedOn(b, a)
}

// sameEgressIP reports whether nothing changed for the reconcilers.
func sameEgressIP(before, after *ovnv1.EgressIP) bool {
	for _, key := range []string{
		v1.AnnotationMode, v1.AnnotationFailBack, v1.AnnotationOtherFamily, v1.AnnotationExcludeCIDRs,
		v1.AnnotationIncludeCIDRs, v1alpha1.AnnotationRequest, v1alpha1.AnnotationPool,
		v1alpha1.AnnotationAddresses, v1alpha1.AnnotationReleasedAt, v1.AnnotationGateways,
	} {
		if before.Annotations[key] != after.Annotations[key] {
			return false
		}
	}
	return before.UID == after.UID && before.Generation == after.Generation && reflect.DeepEqual(before.Status.NetID, after.Status.NetID) &&
		before.DeletionTimestamp.IsZero() == after.DeletionTimestamp.IsZero()
}

// served reports whether EgressIPs are ours to serve.
func (e *egressIPs) served() bool { return e != nil && e.Served() }

// list returns the EgressIPs of the cache, which must not be changed.
func (e *egressIPs) list(ctx context.Context) ([]ovnv1.EgressIP, error) {
	switch {
	case e == nil:
		return nil, nil
	case !e.Known():
		return nil, errEgressIPsUnknown
	}
	return e.List(ctx)
}
