package controllers

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	ovnv1 "github.com/egressip-operator/egressip-operator/api/ovn/v1"
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
	// leader began. Until then it is compared with listed, which the API had at
	// listedAt.
	verified bool
	listed   []*v1.NetNamespace
	listedAt time.Time
	// given are netids that the cache may not show yet, by namespace.
	given  map[string]grant
	told   *told
	writes *passWrites
}

// grant is a netid that was given to a namespace, and when that was written.
type grant struct {
	netID uint32
	at    time.Time
	// open: it may be stored or not, or will be. Nobody else gets it meanwhile.
	open bool
}

func setupNetNamespaces(mgr manager.Manager, d deps) error {
	const batch = 20 * time.Millisecond
	r := newNetNamespaces(d)
	if err := mgr.Add(r.writes); err != nil {
		return err
	}
	return builder.ControllerManagedBy(mgr).Named("netnamespaces").
		WithOptions(controllerOptions()).
		WatchesRawSource(source.Channel(r.writes.changed, wholePass(0))).
		Watches(&corev1.Namespace{}, wholePass(batch), builder.WithPredicates(unless(sameNamespace))).
		Watches(&v1.NetNamespace{}, wholePass(batch), builder.WithPredicates(unless(sameIdentity))).
		WatchesRawSource(source.Channel(d.egressIPs.changed(), wholePass(batch))).
		Complete(d.gate.guard(r))
}

func newNetNamespaces(d deps) *netNamespaces {
	return &netNamespaces{deps: d, given: make(map[string]grant), told: newTold(), writes: newPassWrites(d.clock)}
}

// Reconcile makes NetNamespaces match Namespaces. New ones come first: whatever must be
// done about the others does not delay them, nor does a write that gets no answer.
func (r *netNamespaces) Reconcile(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
	late := errors.Join(r.writes.settle()...)
	var namespaceList corev1.NamespaceList
	var list v1.NetNamespaceList
	if err := errors.Join(r.cache.List(ctx, &namespaceList), r.cache.List(ctx, &list)); err != nil {
		return reconcile.Result{}, fmt.Errorf("read the caches: %w", err)
	}
	namespaces, netNamespaces := byName(namespaceList.Items), byName(list.Items)
	egressIPList, err := r.egressIPs.list(ctx)
	if err != nil {
		return reconcile.Result{}, err
	}
	if !r.verified {
		missing, err := r.missing(ctx, netNamespaces)
		if err != nil {
			return reconcile.Result{}, err
		}
		if missing != "" {
			log.FromContext(ctx).V(1).Info("the cache lags behind the API; nothing is written yet", "object", missing)
			return reconcile.Result{RequeueAfter: catchUp}, nil
		}
		r.verified, r.listed = true, nil
	}
	numbered, wait, errNumbers := r.number(namespaces, netNamespaces, egressIPList)
	errCreated := r.create(ctx, namespaces, netNamespaces, numbered)
	errKept := r.keepAll(ctx, namespaces, list.Items, numbered)
	errEgressIPs := r.numberEgressIPs(ctx, egressIPList, numbered)
	return result(wait, late, errNumbers, errCreated, errKept, errEgressIPs)
}

// missing returns a NetNamespace that the API has and the cache does not show yet, ""
// for none: a netid that the former leader used a moment ago must not be used again.
// The API is listed once, and again if the cache does not catch up in time: something
// may have been deleted since.
func (r *netNamespaces) missing(ctx context.Context, cached map[string]*v1.NetNamespace) (string, error) {
	if r.listed == nil || r.clock.Since(r.listedAt) >= cacheLag {
		var live v1.NetNamespaceList
		if err := r.live.List(ctx, &live); err != nil {
			return "", fmt.Errorf("list NetNamespaces: %w", err)
		}
		r.listed, r.listedAt = pointers(live.Items), r.clock.Now()
	}
	return behind(r.listed, func(name string) (*v1.NetNamespace, bool) {
		n, ok := cached[name]
		return n, ok
	}), nil
}

// number chooses netids for the namespaces and EgressIPs that have none, by the names of their
// groups, and returns when to look again for those that the cache should show by then.
func (r *netNamespaces) number(
	namespaces map[string]*corev1.Namespace, existing map[string]*v1.NetNamespace, egressIPList []ovnv1.EgressIP,
) (numbered map[string]uint32, wait time.Duration, err error) {
	inUse := make(map[uint32]bool, len(existing))
	for name, n := range existing {
		if id, ok := n.ID(); ok {
			inUse[id] = true
			delete(r.given, name)
		}
	}
	unnumbered := r.unnumbered(egressIPList, inUse)
	repeated, wait := r.repeated(namespaces, unnumbered, inUse)
	var without []string
	for name, namespace := range namespaces {
		if n := existing[name]; namespace.DeletionTimestamp.IsZero() && (n == nil || n.NetID == nil) {
			without = append(without, name)
		}
	}
	without = slices.DeleteFunc(append(without, slices.Collect(maps.Keys(unnumbered))...), func(name string) bool {
		_, given := r.given[name]
		return given || r.writes.underWay(writesNetID, name)
	})
	numbered = egress.AllocateNetIDs(without, inUse)
	if len(numbered) < len(without) {
		slices.Sort(without)
		none := slices.DeleteFunc(without, func(name string) bool {
			_, ok := numbered[name]
			return ok
		})
		err = fmt.Errorf("no netid is free for %s: delete unused NetNamespaces", strings.Join(none, ", "))
	}
	maps.Copy(numbered, repeated)
	return numbered, wait, err
}

// repeated are netids that were given and that must be written again, and wait is how long to wait
// for those that the cache should show. It forgets those that it need not show any more. All others are in use.
func (r *netNamespaces) repeated(
	namespaces map[string]*corev1.Namespace, unnumbered map[string]bool, inUse map[uint32]bool,
) (repeated map[string]uint32, wait time.Duration) {
	repeated = make(map[string]uint32)
	now := r.clock.Now()
	for name, g := range r.given {
		_, ofEgressIP := egress.NameOfEgressIP(name)
		wanted := unnumbered[name]
		if !ofEgressIP {
			wanted = namespaces[name] != nil
		}
		switch {
		case r.writes.underWay(writesNetID, name):
		case !wanted, g.open && inUse[g.netID]:
			delete(r.given, name)
			continue
		case g.open:
			if ofEgressIP || namespaces[name].DeletionTimestamp.IsZero() {
				repeated[name] = g.netID
			}
		case now.Sub(g.at) < cacheLag:
			wait = cacheLag
		default:
			// The cache had time to show it: it was deleted at once.
			delete(r.given, name)
			continue
		}
		inUse[g.netID] = true
	}
	return repeated, wait
}

// create creates the missing NetNamespaces.
func (r *netNamespaces) create(
	ctx context.Context, namespaces map[string]*corev1.Namespace, existing map[string]*v1.NetNamespace, numbered map[string]uint32,
) error {
	var writes []passWrite
	for _, name := range slices.Sorted(maps.Keys(numbered)) {
		if existing[name] != nil || namespaces[name] == nil {
			continue
		}
		n := &v1.NetNamespace{
			ObjectMeta: metav1.ObjectMeta{
				Name: name, Annotations: map[string]string{v1.AnnotationNamespaceUID: string(namespaces[name].UID)},
			},
			NetName: name, NetID: new(numbered[name]),
		}
		r.given[name] = grant{netID: *n.NetID, open: true}
		writes = append(writes, passWrite{
			key:  writeKey{writesNetID, name},
			send: func() error { return r.createOne(ctx, n) },
			answered: func(err error) error {
				r.granted(name, n.UID != "", err)
				if apierrors.IsAlreadyExists(err) {
					return nil // the cache will show it
				}
				return err
			},
		})
	}
	return errors.Join(r.writes.do(objectWriters, writes)...)
}

// granted notes the answer to a write of a netid.
func (r *netNamespaces) granted(namespace string, stored bool, err error) {
	g, ok := r.given[namespace]
	switch {
	case !ok: // the cache has shown it
	case stored || err == nil:
		r.given[namespace] = grant{netID: g.netID, at: r.clock.Now()}
	case refused(err):
		delete(r.given, namespace)
	}
}

func (r *netNamespaces) createOne(ctx context.Context, n *v1.NetNamespace) error {
	if err := r.writer.Create(ctx, n); err != nil {
		return fmt.Errorf("create NetNamespace %s: %w", n.Name, err)
	}
	log.FromContext(ctx).V(1).Info("created a NetNamespace", "netNamespace", n.Name, "netid", *n.NetID)
	if err := bindCreated(ctx, r.writer, n, v1.AnnotationNamespaceUID, types.UID(n.Annotations[v1.AnnotationNamespaceUID])); err != nil {
		return fmt.Errorf("bind NetNamespace %s to its Namespace: %w", n.Name, err)
	}
	return nil
}

// keepAll binds NetNamespaces to their Namespaces, or deletes them with those.
func (r *netNamespaces) keepAll(
	ctx context.Context, namespaces map[string]*corev1.Namespace, list []v1.NetNamespace, numbered map[string]uint32,
) error {
	var writes []passWrite
	there := make(map[string]bool, len(list))
	for i := range list {
		n := &list[i]
		there[n.Name] = true
		owner := namespaces[n.Name]
		b := r.bondOf(n, owner)
		switch {
		case !n.DeletionTimestamp.IsZero(), r.writes.underWay(writesNetID, n.Name):
		case b.Binding() == egress.BindingLeave:
		case b.Binding() == egress.BindingDoubtful:
			r.told.warn(r.recorder, n, eventKept, doubtful(b, "a Namespace", contents(n)))
		case owner != nil && b.Binding() == egress.BindingSettled && !incomplete(n):
		default:
			writes = append(writes, r.keepWrite(ctx, n, owner, numbered))
		}
	}
	r.told.keep(func(name string) bool { return there[name] })
	return errors.Join(r.writes.do(objectWriters, writes)...)
}

// keepWrite is what keep writes.
func (r *netNamespaces) keepWrite(ctx context.Context, n *v1.NetNamespace, owner *corev1.Namespace, numbered map[string]uint32) passWrite {
	id, grants := numbered[n.Name]
	if grants = grants && owner != nil && n.NetID == nil; grants {
		r.given[n.Name] = grant{netID: id, open: true}
	}
	var bound *v1.NetNamespace
	return passWrite{
		key: writeKey{writesNetID, n.Name},
		send: func() (err error) {
			bound, err = r.keep(ctx, n, owner, numbered)
			return err
		},
		answered: func(err error) error {
			switch {
			case !grants:
			case bound == nil && err == nil: // nothing was written
				delete(r.given, n.Name)
			default:
				r.granted(n.Name, false, err)
			}
			if bound != nil && err == nil {
				r.report(n, owner)
			}
			return err
		},
	}
}

// incomplete reports whether the controller has something to fill in or to refuse.
func incomplete(n *v1.NetNamespace) bool {
	_, renumber := n.Annotations[v1.AnnotationChangeNetwork]
	return renumber || n.NetName == "" || n.NetID == nil
}

func (r *netNamespaces) bondOf(n *v1.NetNamespace, owner *corev1.Namespace) egress.Bond {
	if owner == nil {
		return bondOf(n, v1.AnnotationNamespaceUID, "")
	}
	return bondOf(n, v1.AnnotationNamespaceUID, owner.UID)
}

// keep deletes a NetNamespace whose Namespace is gone, or binds it to its Namespace
// and fills in what it lacks; it returns what it bound. It never changes what users
// write.
func (r *netNamespaces) keep(
	ctx context.Context, n *v1.NetNamespace, owner *corev1.Namespace, numbered map[string]uint32,
) (*v1.NetNamespace, error) {
	switch b := r.bondOf(n, owner); b.Binding() {
	case egress.BindingOrphaned, egress.BindingReplaced:
		return nil, r.deleteOrphan(ctx, n)
	case egress.BindingAdopt, egress.BindingBind:
		if b.MarkedUID == b.OwnerUID {
			break
		}
		// What is bound is deleted with its Namespace one day, so the cache does not
		// suffice: it may show a Namespace that is gone.
		var live corev1.Namespace
		if err := r.live.Get(ctx, client.ObjectKeyFromObject(n), &live); err != nil {
			return nil, unlessGone(fmt.Errorf("read Namespace %s: %w", n.Name, err))
		}
		if live.UID != owner.UID {
			return nil, nil // the cache lags: it will show the other one
		}
	case egress.BindingSettled, egress.BindingLeave, egress.BindingDoubtful:
	}
	patched := n.DeepCopy()
	bind(&patched.ObjectMeta, v1.AnnotationNamespaceUID, owner.UID)
	delete(patched.Annotations, v1.AnnotationChangeNetwork)
	patched.NetName = n.Name
	if id, ok := numbered[n.Name]; ok && n.NetID == nil {
		patched.NetID = &id
	}
	if equality.Semantic.DeepEqual(patched, n) {
		return nil, nil // there is no netid for it
	}
	return patched, r.patch(ctx, n, patched)
}

// patch writes what differs, if the object has not changed since it was read.
func (r *netNamespaces) patch(ctx context.Context, n, patched *v1.NetNamespace) error {
	if err := r.writer.Patch(ctx, patched, client.MergeFromWithOptions(n, client.MergeFromWithOptimisticLock{})); err != nil {
		return unlessGone(fmt.Errorf("bind NetNamespace %s: %w", n.Name, err))
	}
	return nil
}

// report writes events about a NetNamespace that was bound.
func (r *netNamespaces) report(before *v1.NetNamespace, owner *corev1.Namespace) {
	if b := r.bondOf(before, owner); b.Binding() == egress.BindingAdopt {
		r.told.warn(r.recorder, before, eventKept, adopted(b, "a Namespace", contents(before)))
	}
	if change, renumber := before.Annotations[v1.AnnotationChangeNetwork]; renumber {
		r.recorder.Eventf(before, corev1.EventTypeWarning, eventRenumberingRefused,
			"Annotation "+v1.AnnotationChangeNetwork+" with %q is refused: namespaces do not share netids. Set field netid of the NetNamespace to a free one instead.", change)
	}
}

// deleteOrphan deletes a NetNamespace whose Namespace is gone, with what it requested:
// another Namespace of that name may have another owner.
func (r *netNamespaces) deleteOrphan(ctx context.Context, n *v1.NetNamespace) error {
	// Deletion cannot be undone, so it depends on the API itself.
	var live v1.NetNamespace
	if err := r.live.Get(ctx, client.ObjectKeyFromObject(n), &live); err != nil {
		return unlessGone(fmt.Errorf("read NetNamespace %s: %w", n.Name, err))
	}
	owner := &corev1.Namespace{}
	err := r.live.Get(ctx, client.ObjectKeyFromObject(n), owner)
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("read Namespace %s: %w", n.Name, err)
	}
	if err != nil {
		owner = nil
	}
	why := "is gone"
	switch r.bondOf(&live, owner).Binding() {
	case egress.BindingOrphaned:
	case egress.BindingReplaced:
		why = "is gone, and another one has its name"
	default:
		return nil // the cache lags: it will show it
	}
	if err := r.writer.Delete(ctx, &live, identity(live.UID, live.ResourceVersion)); err != nil {
		return unlessGone(fmt.Errorf("delete NetNamespace %s: %w", n.Name, err))
	}
	log.FromContext(ctx).Info("deleted the NetNamespace of a Namespace that is gone", "netNamespace", n.Name, "contents", contents(&live))
	r.recorder.Eventf(&live, corev1.EventTypeNormal, eventDeleted, "Namespace %s %s: its NetNamespace is deleted. It had %s.", n.Name, why, contents(&live))
	return nil
}

// contents is what a NetNamespace has, for messages.
func contents(n *v1.NetNamespace) string {
	netID := "no netid"
	if id, ok := n.ID(); ok {
		netID = fmt.Sprintf("netid %d", id)
	}
	return fmt.Sprintf("%s, egressIPs %q", netID, n.EgressIPs)
}
