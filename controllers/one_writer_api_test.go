package controllers

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	coordinationv1client "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
)

// leases is the API of one Lease.
type leases struct {
	coordinationv1client.LeaseInterface // what is not used
	mu                                  sync.Mutex
	stored                              *coordinationv1.Lease
	version                             int
}

func leaseResource() schema.GroupResource {
	return schema.GroupResource{Group: "coordination.k8s.io", Resource: "leases"}
}

func (l *leases) Get(context.Context, string, metav1.GetOptions) (*coordinationv1.Lease, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stored == nil {
		return nil, apierrors.NewNotFound(leaseResource(), FieldManager)
	}
	return l.stored.DeepCopy(), nil
}

func (l *leases) Create(_ context.Context, lease *coordinationv1.Lease, _ metav1.CreateOptions) (*coordinationv1.Lease, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stored != nil {
		return nil, apierrors.NewAlreadyExists(leaseResource(), FieldManager)
	}
	return l.store(lease), nil
}

func (l *leases) Update(_ context.Context, lease *coordinationv1.Lease, _ metav1.UpdateOptions) (*coordinationv1.Lease, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.stored == nil:
		return nil, apierrors.NewNotFound(leaseResource(), FieldManager)
	case l.stored.ResourceVersion != lease.ResourceVersion:
		return nil, apierrors.NewConflict(leaseResource(), FieldManager, errors.New("it has changed"))
	}
	return l.store(lease), nil
}

func (l *leases) store(lease *coordinationv1.Lease) *coordinationv1.Lease {
	l.version++
	l.stored = lease.DeepCopy()
	l.stored.ResourceVersion = strconv.Itoa(l.version)
	return l.stored.DeepCopy()
}

func (l *leases) holder() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stored == nil || l.stored.Spec.HolderIdentity == nil {
		return ""
	}
	return *l.stored.Spec.HolderIdentity
}

func (l *leases) remove() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stored = nil
}

// link is a controller's way to the API.
type link struct {
	*model
	*plight
}

// standStill returns when the controller is not paused.
func (l link) standStill() {
	for {
		end, paused := l.within(l.paused)
		if !paused {
			return
		}
		time.Sleep(end - l.now())
	}
}

var errNoAnswer = errors.New("no answer")

// call carries a request to the API and the answer back. A request may arrive long after
// its sender has given up or ended.
func (l link) call(ctx context.Context, timeout time.Duration, request func() error) error {
	l.standStill()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	answer := make(chan error, 1)
	lost, unheard := l.troubled() && l.chance(l.loss), l.troubled() && l.chance(l.loss)
	go func() {
		time.Sleep(l.upTo(20 * time.Millisecond))
		if end, cut := l.within(l.cut); cut {
			lost = lost || l.chance(30)
			time.Sleep(end - l.now())
		}
		if lost {
			return
		}
		err := request()
		time.Sleep(l.upTo(20 * time.Millisecond))
		if !unheard {
			answer <- err
		}
	}()
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	defer l.standStill()
	select {
	case err := <-answer:
		return err
	case <-timer.C:
		return errNoAnswer
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (m *model) troubled() bool { return m.now() < troubled }

// remote is the API as a controller reaches it.
type remote struct {
	client.Client
	link
	writer string
}

func (r remote) Patch(ctx context.Context, object client.Object, patch client.Patch, _ ...client.PatchOption) error {
	sent := object.DeepCopyObject().(*v1.HostSubnet)
	_, refused := r.within(r.refused)
	refused = refused && sent.Name == r.unwritten
	err := r.call(ctx, requestTimeout, func() error {
		if refused {
			return apierrors.NewForbidden(schema.GroupResource{Group: v1.GroupName, Resource: "hostsubnets"}, sent.Name, errors.New("by a webhook"))
		}
		r.store.mu.Lock()
		claims := !slices.Equal(r.store.hosts[sent.Name].EgressIPs, sent.EgressIPs)
		r.store.mu.Unlock()
		if err := r.store.Patch(ctx, sent, patch); err != nil {
			return err
		}
		if claims {
			r.wroteClaims(markOf(sent), r.writer)
		}
		return nil
	})
	if err == nil {
		sent.DeepCopyInto(object.(*v1.HostSubnet))
	}
	return err
}

func (r remote) List(ctx context.Context, list client.ObjectList, o ...client.ListOption) error {
	answer := list.DeepCopyObject().(client.ObjectList)
	err := r.call(ctx, requestTimeout, func() error { return r.store.List(ctx, answer, o...) })
	if err == nil {
		switch l := list.(type) {
		case *v1.HostSubnetList:
			*l = *answer.(*v1.HostSubnetList)
		case *v1.NetNamespaceList:
			*l = *answer.(*v1.NetNamespaceList)
		}
	}
	return err
}

func (r remote) Status() client.SubResourceWriter { return remoteStatus{remote: r} }

type remoteStatus struct {
	client.SubResourceWriter
	remote remote
}

func (r remoteStatus) Apply(ctx context.Context, applied runtime.ApplyConfiguration, o ...client.SubResourceApplyOption) error {
	return r.remote.call(ctx, requestTimeout, func() error { return r.remote.store.Status().Apply(ctx, applied, o...) })
}

// remoteLeases is the API of Leases as a controller reaches it.
type remoteLeases struct {
	coordinationv1client.LeaseInterface
	link
}

func (r remoteLeases) Leases(string) coordinationv1client.LeaseInterface { return r }

func (r remoteLeases) Get(ctx context.Context, name string, o metav1.GetOptions) (lease *coordinationv1.Lease, err error) {
	return r.do(ctx, func() (*coordinationv1.Lease, error) { return r.leases.Get(ctx, name, o) })
}

func (r remoteLeases) Create(ctx context.Context, lease *coordinationv1.Lease, o metav1.CreateOptions) (*coordinationv1.Lease, error) {
	sent := lease.DeepCopy()
	return r.do(ctx, func() (*coordinationv1.Lease, error) { return r.leases.Create(ctx, sent, o) })
}

func (r remoteLeases) Update(ctx context.Context, lease *coordinationv1.Lease, o metav1.UpdateOptions) (*coordinationv1.Lease, error) {
	sent := lease.DeepCopy()
	return r.do(ctx, func() (*coordinationv1.Lease, error) { return r.leases.Update(ctx, sent, o) })
}

func (r remoteLeases) do(ctx context.Context, request func() (*coordinationv1.Lease, error)) (*coordinationv1.Lease, error) {
	got := make(chan *coordinationv1.Lease, 1)
	err := r.call(ctx, leaseTimeout, func() error {
		lease, err := request()
		got <- lease
		return err
	})
	if err != nil {
		return nil, err
	}
	return <-got, nil
}

// delayed is a cache that shows what was stored some time ago, and never anything older
// than before.
type delayed struct {
	client.Reader
	link
	mu    sync.Mutex
	shown int
}

func (d *delayed) List(_ context.Context, list client.ObjectList, _ ...client.ListOption) error {
	d.standStill()
	lag := d.lag
	if !d.troubled() {
		lag = 5 * time.Millisecond
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.store.mu.Lock()
	defer d.store.mu.Unlock()
	_, cut := d.within(d.cut)
	for !cut && d.shown+1 < len(d.past) && time.Since(d.past[d.shown+1].at) >= lag {
		d.shown++
	}
	return d.store.past[d.shown].list(list)
}

// Get reads one object of the moment that was listed last.
func (d *delayed) Get(_ context.Context, key client.ObjectKey, object client.Object, _ ...client.GetOption) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.store.mu.Lock()
	defer d.store.mu.Unlock()
	return (&lagging{store: d.store, namespaces: d.shown, hosts: d.shown, node: d.shown}).get(key, object)
}
