package controllers

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/egressip-operator/egressip-operator/api/egressip/v1alpha1"
	ovnv1 "github.com/egressip-operator/egressip-operator/api/ovn/v1"
	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// poolReconciler gives EgressIPRequests addresses of EgressIPPools: it makes an EgressIP for each,
// which is all that the other reconcilers and the agents see of it. It works on all at once, because
// no address may be given twice.
type poolReconciler struct {
	deps
	// retention is how long an address is kept for a request that is gone.
	retention time.Duration
	// verified: the cache has shown all EgressIPs and requests that the API had when this term
	// began. Until then it is compared with those that were listed.
	verified bool
	listed   []*ovnv1.EgressIP
	requests []*v1alpha1.EgressIPRequest
	listedAt time.Time
	// wrote are EgressIPs that the cache may not show yet.
	wrote map[string]written
}

// written is an object as the API server answered, and when.
type written struct {
	object *ovnv1.EgressIP
	at     time.Time
}

func setupPools(mgr manager.Manager, d deps, retention time.Duration) error {
	const batch = 20 * time.Millisecond
	r := &poolReconciler{deps: d, retention: retention, wrote: make(map[string]written)}
	return builder.ControllerManagedBy(mgr).Named("pools").
		WithOptions(controllerOptions()).
		Watches(&corev1.Namespace{}, wholePass(batch), builder.WithPredicates(unless(sameLabels))).
		Watches(&v1.NetNamespace{}, wholePass(batch), builder.WithPredicates(unless(sameRequests))).
		Watches(&v1.HostSubnet{}, wholePass(batch), builder.WithPredicates(unless(sameClaims))).
		WatchesRawSource(source.Channel(d.egressIPs.changed(), wholePass(batch))).
		Complete(d.gate.guard(r))
}

// sameLabels reports whether a Namespace neither came nor went, nor has other labels.
func sameLabels(before, after *corev1.Namespace) bool {
	return sameNamespace(before, after) && maps.Equal(before.Labels, after.Labels)
}

// poolView is what pools are drawn from.
type poolView struct {
	pools      []v1alpha1.EgressIPPool
	requests   []v1alpha1.EgressIPRequest
	egressIPs  map[string]*ovnv1.EgressIP
	namespaces map[string]labels.Set
	// ending are namespaces that are being deleted.
	ending  map[string]bool
	cluster egress.Cluster
}

// Reconcile draws for all requests, and writes what differs.
func (r *poolReconciler) Reconcile(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
	if !r.egressIPs.Known() || !r.egressIPs.Complete() {
		return reconcile.Result{}, nil // it is told when they are
	}
	v, behind, err := r.read(ctx)
	if err != nil {
		return reconcile.Result{}, err
	}
	if behind {
		return reconcile.Result{RequeueAfter: catchUp}, nil
	}
	in := egress.Drawing{Foreign: make(map[string]bool), Ending: v.ending, Cluster: v.cluster, Now: r.clock.Now().UTC().Truncate(time.Second), Retention: r.retention}
	for i := range v.pools {
		in.Pools = append(in.Pools, egress.ReadPool(&v.pools[i], v.namespaces))
	}
	byName := make(map[string]*v1alpha1.EgressIPRequest, len(v.requests))
	for i := range v.requests {
		q := &v.requests[i]
		byName[q.Namespace+"/"+q.Name] = q
		in.Requests = append(in.Requests, egress.ReadPoolRequest(q))
	}
	for name, e := range v.egressIPs {
		if g, ours := egress.ReadGiven(e); ours {
			in.Given = append(in.Given, g)
		} else {
			in.Foreign[name] = true
		}
	}
	d := egress.Draw(in)
	r.metrics.observePools(in.Pools, d.Pools)
	failed, errs := r.writeEgressIPs(ctx, v, d, byName)
	errs = append(errs, concurrently(statusWriters, len(in.Requests), func(i int) error {
		key := in.Requests[i].Namespace + "/" + in.Requests[i].Name
		if failed[key] { // it does not have what was not written
			return nil
		}
		return r.writeRequest(ctx, byName[key], d.Requests[i])
	})...)
	errs = append(errs, concurrently(statusWriters, len(v.pools), func(i int) error {
		return r.writePool(ctx, &v.pools[i], in.Pools[i], d.Pools[i])
	})...)
	next := d.Next
	if len(r.wrote) > 0 && (next == 0 || next > cacheLag) {
		next = cacheLag + catchUp // what the cache does not show by then is gone
	}
	return result(next, errs...)
}

// read reads the caches, and what was written since. behind reports that they lag.
func (r *poolReconciler) read(ctx context.Context) (v poolView, behindAPI bool, err error) {
	var (
		pools         v1alpha1.EgressIPPoolList
		requests      v1alpha1.EgressIPRequestList
		namespaces    corev1.NamespaceList
		netNamespaces v1.NetNamespaceList
		hosts         v1.HostSubnetList
	)
	cached, errList := r.egressIPs.list(ctx)
	if err := errors.Join(errList, r.cache.List(ctx, &pools), r.cache.List(ctx, &requests), r.cache.List(ctx, &namespaces),
		r.cache.List(ctx, &netNamespaces), r.cache.List(ctx, &hosts)); err != nil {
		return v, false, fmt.Errorf("read the caches: %w", err)
	}
	v = poolView{pools: pools.Items, requests: requests.Items, namespaces: make(map[string]labels.Set), ending: make(map[string]bool), egressIPs: make(map[string]*ovnv1.EgressIP)}
	for i := range namespaces.Items {
		v.namespaces[namespaces.Items[i].Name] = namespaces.Items[i].Labels
		v.ending[namespaces.Items[i].Name] = !namespaces.Items[i].DeletionTimestamp.IsZero()
	}
	for i := range cached {
		v.egressIPs[cached[i].Name] = &cached[i]
	}
	if !r.verified {
		if behindAPI, err = r.lags(ctx, v); err != nil || behindAPI {
			return v, behindAPI, err
		}
		r.verified, r.listed, r.requests = true, nil, nil
	}
	now := r.clock.Now()
	for name, w := range r.wrote {
		c := v.egressIPs[name]
		switch {
		case now.Sub(w.at) > cacheLag, c != nil && (c.UID != w.object.UID || !older(c, w.object)):
			delete(r.wrote, name)
		default:
			v.egressIPs[name] = w.object
		}
	}
	if len(v.pools)+len(v.requests) == 0 && !slices.ContainsFunc(cached, func(e ovnv1.EgressIP) bool { return e.Annotations[v1alpha1.AnnotationRequest] != "" }) {
		return v, false, nil // most clusters have no pools
	}
	all := make([]ovnv1.EgressIP, 0, len(v.egressIPs))
	for _, e := range v.egressIPs {
		all = append(all, *e)
	}
	v.cluster, _ = egress.Snapshot(egress.Objects{NetNamespaces: netNamespaces.Items, EgressIPs: all, HostSubnets: hosts.Items})
	return v, false, nil
}

// lags reports whether the caches do not show yet what the API has: an address that the former leader
// gave a moment ago must not be given again, nor taken away as if its request were gone.
func (r *poolReconciler) lags(ctx context.Context, v poolView) (bool, error) {
	if r.listed == nil || r.clock.Since(r.listedAt) >= cacheLag {
		var live ovnv1.EgressIPList
		var requests v1alpha1.EgressIPRequestList
		if err := errors.Join(r.live.List(ctx, &live), r.live.List(ctx, &requests)); err != nil {
			return false, fmt.Errorf("list EgressIPs and EgressIPRequests: %w", err)
		}
		r.listed, r.requests, r.listedAt = pointers(live.Items), pointers(requests.Items), r.clock.Now()
	}
	if behind(r.listed, func(name string) (*ovnv1.EgressIP, bool) {
		e, ok := v.egressIPs[name]
		return e, ok
	}) != "" {
		return true, nil
	}
	shown := make(map[types.UID]bool, len(v.requests))
	for i := range v.requests {
		shown[v.requests[i].UID] = true
	}
	return slices.ContainsFunc(r.requests, func(q *v1alpha1.EgressIPRequest) bool { return !shown[q.UID] }), nil
}

// writeEgressIPs makes the EgressIPs of requests as they were drawn. failed are the requests whose
// EgressIP could not be written, as NAMESPACE/NAME.
func (r *poolReconciler) writeEgressIPs(
	ctx context.Context, v poolView, d egress.Drawn, requests map[string]*v1alpha1.EgressIPRequest,
) (failed map[string]bool, errs []error) {
	var writes []func() error
	var wrote []*ovnv1.EgressIP
	for _, g := range d.Given {
		request := requests[g.Request]
		if !g.ReleasedAt.IsZero() {
			request = nil
		} else if request == nil {
			continue // it stays as it is until its namespace is gone
		}
		before := v.egressIPs[g.Name]
		wanted := &ovnv1.EgressIP{}
		if before != nil {
			wanted = before.DeepCopy()
		}
		g.Write(wanted, request)
		if pool := v.pool(g.Pool); pool != nil {
			egress.WriteGateways(wanted, pool)
		}
		if before == nil || !equality.Semantic.DeepEqual(before.Spec, wanted.Spec) || !maps.Equal(before.Annotations, wanted.Annotations) {
			wrote = append(wrote, wanted)
			writes = append(writes, func() error { return r.writeEgressIP(ctx, before, wanted) })
		}
	}
	for _, name := range d.Forgotten {
		writes = append(writes, func() error { return r.forget(ctx, v.egressIPs[name]) })
	}
	errs = concurrently(objectWriters, len(writes), func(i int) error { return writes[i]() })
	failed = make(map[string]bool)
	for i, w := range wrote {
		switch {
		case errs[i] != nil:
			failed[w.Annotations[v1alpha1.AnnotationRequest]] = true
		case w.ResourceVersion != "":
			r.wrote[w.Name] = written{object: w, at: r.clock.Now()}
		}
	}
	return failed, errs
}

// pool returns the pool with a name; nil if there is none.
func (v poolView) pool(name string) *v1alpha1.EgressIPPool {
	if i := slices.IndexFunc(v.pools, func(p v1alpha1.EgressIPPool) bool { return p.Name == name }); i >= 0 {
		return &v.pools[i]
	}
	return nil
}

// writeEgressIP creates or changes one.
func (r *poolReconciler) writeEgressIP(ctx context.Context, before, wanted *ovnv1.EgressIP) error {
	if before == nil {
		if err := r.writer.Create(ctx, wanted); err != nil {
			return fmt.Errorf("create EgressIP %s: %w", wanted.Name, err)
		}
		log.FromContext(ctx).Info("gave addresses of a pool", "request", wanted.Annotations[v1alpha1.AnnotationRequest],
			"pool", wanted.Annotations[v1alpha1.AnnotationPool], "egressIPs", wanted.Spec.EgressIPs)
		return nil
	}
	if err := r.writer.Patch(ctx, wanted, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})); err != nil {
		return fmt.Errorf("write EgressIP %s: %w", wanted.Name, err) // one that is gone is made again
	}
	return nil
}

// forget deletes the EgressIP of a request that is gone for long.
func (r *poolReconciler) forget(ctx context.Context, e *ovnv1.EgressIP) error {
	if err := r.writer.Delete(ctx, e, identity(e.UID, e.ResourceVersion)); err != nil {
		return unlessGone(fmt.Errorf("delete EgressIP %s: %w", e.Name, err))
	}
	return nil
}

// writeRequest writes the status of a request, if it differs.
func (r *poolReconciler) writeRequest(ctx context.Context, q *v1alpha1.EgressIPRequest, drawn egress.DrawnRequest) error {
	wanted := q.DeepCopy()
	wanted.Status.EgressIPs = []string{}
	for _, ip := range drawn.Addresses {
		wanted.Status.EgressIPs = append(wanted.Status.EgressIPs, ip.String())
	}
	given := metav1.ConditionFalse
	if len(drawn.Addresses) > 0 {
		given = metav1.ConditionTrue
	}
	wanted.Status.Conditions = r.condition(q.Status.Conditions, v1alpha1.ConditionGiven, given, drawn.Reason, drawn.Message, q.Generation)
	if slices.Equal(q.Status.EgressIPs, wanted.Status.EgressIPs) && equality.Semantic.DeepEqual(q.Status.Conditions, wanted.Status.Conditions) {
		return nil
	}
	// On a cache that lags the API server refuses it: nothing is told twice.
	if err := r.writer.Status().Patch(ctx, wanted, client.MergeFromWithOptions(q, client.MergeFromWithOptimisticLock{})); err != nil {
		return unlessGone(fmt.Errorf("write the status of EgressIPRequest %s/%s: %w", q.Namespace, q.Name, err))
	}
	if given == metav1.ConditionFalse {
		r.recorder.Event(q, corev1.EventTypeWarning, eventNotGiven, drawn.Message)
	}
	if drawn.Mistakes != "" {
		r.recorder.Event(q, corev1.EventTypeWarning, eventBadAnnotation, drawn.Mistakes)
	}
	return nil
}

// writePool writes the status of a pool, if it differs.
func (r *poolReconciler) writePool(ctx context.Context, p *v1alpha1.EgressIPPool, read egress.Pool, drawn egress.DrawnPool) error {
	wanted := p.DeepCopy()
	wanted.Status.Given, wanted.Status.Kept, wanted.Status.Refused = int32(drawn.Given), int32(drawn.Kept), int32(drawn.Refused) //nolint:gosec // there are not so many objects
	status, reason, message := metav1.ConditionTrue, egress.ReasonGiven, "The pool gives its addresses to requests."
	if read.Broken != "" {
		status, reason, message = metav1.ConditionFalse, egress.ReasonBadPool, read.Broken
	}
	wanted.Status.Conditions = r.condition(p.Status.Conditions, v1alpha1.ConditionReady, status, reason, message, p.Generation)
	if equality.Semantic.DeepEqual(p.Status, wanted.Status) {
		return nil
	}
	if err := r.writer.Status().Patch(ctx, wanted, client.MergeFromWithOptions(p, client.MergeFromWithOptimisticLock{})); err != nil {
		return unlessGone(fmt.Errorf("write the status of EgressIPPool %s: %w", p.Name, err))
	}
	if before := meta.FindStatusCondition(p.Status.Conditions, v1alpha1.ConditionReady); read.Broken != "" && (before == nil || before.Message != read.Broken) {
		r.recorder.Event(p, corev1.EventTypeWarning, eventBadPool, read.Broken)
	}
	return nil
}

// condition returns the conditions with one of them as it should be.
func (r *poolReconciler) condition(
	before []metav1.Condition, kind string, status metav1.ConditionStatus, reason egress.Reason, message string, generation int64,
) []metav1.Condition {
	wanted := publishable([]metav1.Condition{{Type: kind, Status: status, Reason: string(reason), Message: message}}, generation)
	return timed(before, wanted, metav1.NewTime(r.clock.Now()).Rfc3339Copy())
}

// pools returns the pools of the cache, which must not be changed.
func (e *egressIPs) pools(ctx context.Context) ([]v1alpha1.EgressIPPool, error) {
	if e == nil || !e.Complete() {
		return nil, nil
	}
	var list v1alpha1.EgressIPPoolList
	if err := e.Read(ctx, &list); err != nil {
		return nil, err
	}
	return list.Items, nil
}

// restrictions are, by EgressIP and by pool, the hosts that its pool selects. last are those by pool
// of the last time: what did not change is the same set, which makes comparing cheap.
func restrictions(
	egressIPList []*ovnv1.EgressIP, pools []v1alpha1.EgressIPPool, nodes []corev1.Node, last map[string]*egress.HostSet,
) (onlyOn, byPool map[string]*egress.HostSet) {
	byPool = make(map[string]*egress.HostSet)
	of := make(map[string]labels.Set, len(nodes))
	for i := range nodes {
		of[nodes[i].Name] = nodes[i].Labels
	}
	for i := range pools {
		if hosts := egress.HostsOf(&pools[i], of); hosts != nil {
			if before := last[pools[i].Name]; before.Equal(hosts) {
				hosts = before
			}
			byPool[pools[i].Name] = hosts
		}
	}
	return egress.OnlyOn(egressIPList, byPool), byPool
}
