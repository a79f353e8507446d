package controllers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

const (
	// cacheLag is how long a cache may take to show what was created.
	cacheLag = 5 * time.Second
	// catchUp is the pause before lagging caches are read again.
	catchUp = 100 * time.Millisecond
)

// netNamespaces keeps a NetNamespace for each Namespace. It works on all at once,
// because their netids must differ.
type netNamespaces struct {
	deps
	// verified: the cache has shown everything that the API had when this term as
	// leader began.
	verified bool
	// created are NetNamespaces that the cache may not show yet.
	created map[string]creation
}

// creation is a netid that was given to a namespace, and when.
type creation struct {
	netID uint32
	at    time.Time
}

func setupNetNamespaces(mgr manager.Manager, d deps) error {
	r := &netNamespaces{deps: d, created: make(map[string]creation)}
	const batch = 20 * time.Millisecond
	return builder.ControllerManagedBy(mgr).Named("netnamespaces").
		WithOptions(controllerOptions()).
		Watches(&corev1.Namespace{}, wholePass(batch), builder.WithPredicates(unless(sameNamespace))).
		Watches(&v1.NetNamespace{}, wholePass(batch), builder.WithPredicates(unless(sameIdentity))).
		Complete(r)
}

// Reconcile makes NetNamespaces match Namespaces.
func (r *netNamespaces) Reconcile(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
	var namespaceList corev1.NamespaceList
	var list v1.NetNamespaceList
	if err := errors.Join(r.cache.List(ctx, &namespaceList), r.cache.List(ctx, &list)); err != nil {
		return reconcile.Result{}, fmt.Errorf("read the caches: %w", err)
	}
	namespaces, netNamespaces := byName(namespaceList.Items), byName(list.Items)
	if !r.verified {
		// A netid that the former leader used a moment ago must not be used again.
		var live v1.NetNamespaceList
		if err := r.live.List(ctx, &live); err != nil {
			return reconcile.Result{}, fmt.Errorf("list NetNamespaces: %w", err)
		}
		missing := behind(pointers(live.Items), func(name string) (*v1.NetNamespace, bool) {
			n, ok := netNamespaces[name]
			return n, ok
		})
		if missing != "" {
			log.FromContext(ctx).V(1).Info("the cache lags behind the API; nothing is written yet", "object", missing)
			return reconcile.Result{RequeueAfter: catchUp}, nil
		}
		r.verified = true
	}

	var errs []error
	for i := range list.Items {
		errs = append(errs, r.keep(ctx, &list.Items[i], namespaces[list.Items[i].Name]))
	}
	wait, err := r.createMissing(ctx, namespaces, netNamespaces)
	errs = append(errs, err)
	return result(wait, errs...)
}

// keep binds a NetNamespace to its Namespace, which is nil if it does not exist. It
// never changes what users write.
func (r *netNamespaces) keep(ctx context.Context, n *v1.NetNamespace, owner *corev1.Namespace) error {
	if !n.DeletionTimestamp.IsZero() {
		return nil
	}
	mark, marked := n.Annotations[v1.AnnotationNamespaceUID]
	if marked && (owner == nil || mark != string(owner.UID)) {
		gone, err := r.deleteOrphan(ctx, n)
		if err != nil || gone {
			return err
		}
	}
	if owner == nil {
		return nil
	}
	change, renumber := n.Annotations[v1.AnnotationChangeNetwork]
	if mark == string(owner.UID) && !renumber {
		return nil
	}
	patched := n.DeepCopy()
	metav1.SetMetaDataAnnotation(&patched.ObjectMeta, v1.AnnotationNamespaceUID, string(owner.UID))
	delete(patched.Annotations, v1.AnnotationChangeNetwork)
	err := r.writer.Patch(ctx, patched, client.MergeFromWithOptions(n, client.MergeFromWithOptimisticLock{}))
	if err != nil {
		return unlessGone(fmt.Errorf("annotate NetNamespace %s: %w", n.Name, err))
	}
	if renumber {
		r.recorder.Eventf(n, corev1.EventTypeWarning, eventRenumberingRefused,
			"Annotation "+v1.AnnotationChangeNetwork+" with %q is refused: namespaces do not share netids. Set field netid of the NetNamespace to a free one instead.", change)
	}
	return nil
}

// deleteOrphan deletes a NetNamespace whose Namespace is gone, with what it requested:
// another Namespace of that name may have another owner. A NetNamespace that was
// applied from elsewhere, with its annotations, is not an orphan.
func (r *netNamespaces) deleteOrphan(ctx context.Context, n *v1.NetNamespace) (deleted bool, err error) {
	// Deletion cannot be undone, so it depends on the API itself.
	var live v1.NetNamespace
	if err := r.live.Get(ctx, client.ObjectKeyFromObject(n), &live); err != nil {
		return apierrors.IsNotFound(err), unlessGone(fmt.Errorf("read NetNamespace %s: %w", n.Name, err))
	}
	var owner corev1.Namespace
	err = r.live.Get(ctx, client.ObjectKeyFromObject(n), &owner)
	if client.IgnoreNotFound(err) != nil {
		return false, fmt.Errorf("read Namespace %s: %w", n.Name, err)
	}
	mark := live.Annotations[v1.AnnotationNamespaceUID]
	if err == nil && mark == string(owner.UID) {
		return true, nil // the cache lags, nothing to do
	}
	ours, err := ourAnnotation(&live, v1.AnnotationNamespaceUID)
	if err != nil || !ours {
		return false, err
	}
	if err := r.writer.Delete(ctx, &live, identity(live.UID, live.ResourceVersion)); err != nil {
		return false, unlessGone(fmt.Errorf("delete NetNamespace %s: %w", n.Name, err))
	}
	log.FromContext(ctx).Info("deleted the NetNamespace of a Namespace that is gone", "netNamespace", n.Name, "netid", n.NetID,
		"egressIPs", n.EgressIPs)
	delete(r.created, n.Name)
	return true, nil
}

// createMissing creates missing NetNamespaces, and returns when to look again for
// those that the cache should show by then.
func (r *netNamespaces) createMissing(
	ctx context.Context, namespaces map[string]*corev1.Namespace, existing map[string]*v1.NetNamespace,
) (time.Duration, error) {
	inUse := make(map[uint32]bool, len(existing))
	for name, n := range existing {
		inUse[n.NetID] = true
		delete(r.created, name)
	}
	now := r.clock.Now()
	var wait time.Duration
	for name, c := range r.created {
		if namespaces[name] == nil {
			delete(r.created, name)
			continue
		}
		if now.Sub(c.at) < cacheLag {
			inUse[c.netID] = true
			wait = cacheLag
			continue
		}
		// The cache had time to show it: it was deleted at once.
		delete(r.created, name)
	}
	var missing []string
	for name, namespace := range namespaces {
		_, created := r.created[name]
		if existing[name] == nil && !created && namespace.DeletionTimestamp.IsZero() {
			missing = append(missing, name)
		}
	}
	slices.Sort(missing)
	chosen := egress.AllocateNetIDs(missing, inUse)
	var errs []error
	var none []string
	for _, name := range missing {
		netID, ok := chosen[name]
		if !ok {
			none = append(none, name)
			continue
		}
		errs = append(errs, r.create(ctx, namespaces[name], netID))
	}
	if len(none) > 0 {
		errs = append(errs, fmt.Errorf("no netid is free for namespaces %s: delete unused NetNamespaces", strings.Join(none, ", ")))
	}
	return wait, errors.Join(errs...)
}

func (r *netNamespaces) create(ctx context.Context, owner *corev1.Namespace, netID uint32) error {
	n := &v1.NetNamespace{
		ObjectMeta: metav1.ObjectMeta{
			Name:        owner.Name,
			Annotations: map[string]string{v1.AnnotationNamespaceUID: string(owner.UID)},
		},
		NetName: owner.Name,
		NetID:   netID,
	}
	err := r.writer.Create(ctx, n)
	if apierrors.IsAlreadyExists(err) {
		return nil // the cache will show it
	}
	if err != nil {
		return fmt.Errorf("create NetNamespace %s: %w", owner.Name, err)
	}
	r.created[owner.Name] = creation{netID: netID, at: r.clock.Now()}
	log.FromContext(ctx).V(1).Info("created a NetNamespace", "netNamespace", n.Name, "netid", netID)
	return nil
}
