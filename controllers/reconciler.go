package controllers

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
)

const (
	// maxRounds bounds the rounds of allocation in one pass. Two settle a cluster;
	// more are needed only while someone else writes at the same time.
	maxRounds = 6
	// passEvery repairs what no event reports, such as a status edited by hand.
	passEvery = 5 * time.Minute
)

// egressReconciler makes the decisions that concern the cluster as a whole: which
// hosts are online, and which host has which egress IP. Each pass writes, most urgent
// first, the verdicts that changed, then claims, then all other status.
type egressReconciler struct {
	deps
	observer *observer
	// verified: the caches have shown everything that the API had when this term
	// as leader began.
	verified bool
	// waitingSince is since when a claim waits for the address's former host.
	waitingSince map[netip.Addr]time.Time
	// inUse are the addresses already reported as in use elsewhere, as host and
	// address.
	inUse  map[[2]string]bool
	panels panels
}

func setupEgress(mgr manager.Manager, d deps, o *observer, p *probes) error {
	const batch = 10 * time.Millisecond
	b := builder.ControllerManagedBy(mgr).Named("cluster")
	if p != nil {
		b = b.WatchesRawSource(source.Channel(p.changed, wholePass(0)))
	}
	return b.
		WithOptions(controllerOptions()).
		Watches(&v1.NetNamespace{}, wholePass(batch), builder.WithPredicates(unless(sameRequests))).
		Watches(&v1.HostSubnet{}, wholePass(batch), builder.WithPredicates(unless(sameClaims))).
		Watches(&corev1.Node{}, wholePass(batch), builder.WithPredicates(unless(sameNode))).
		Complete(newEgressReconciler(d, o))
}

func newEgressReconciler(d deps, o *observer) *egressReconciler {
	return &egressReconciler{
		deps: d, observer: o,
		waitingSince: make(map[netip.Addr]time.Time),
		inUse:        make(map[[2]string]bool),
	}
}

// Reconcile is one pass: rounds of verdicts and claims until nothing is left to
// write, then the status of all objects.
func (r *egressReconciler) Reconcile(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
	began := r.clock.Now()
	defer func() { r.metrics.passSeconds.Observe(r.clock.Since(began).Seconds()) }()
	current, err := r.cachesCurrent(ctx)
	if err != nil {
		return result(0, err)
	}
	if !current {
		return reconcile.Result{RequeueAfter: catchUp}, nil
	}
	for range maxRounds {
		round := r.runRound(ctx)
		switch round.next {
		case stepRepeat:
		case stepRetry:
			return result(0, round.err)
		case stepAwaitRelease:
			return reconcile.Result{RequeueAfter: catchUp}, nil
		case stepPublish:
			return r.finish(ctx, round)
		}
	}
	return reconcile.Result{RequeueAfter: catchUp}, nil
}

// step is what follows a round.
type step int

const (
	// stepPublish: there was nothing to write, or nothing could be written. The
	// pass ends with the status of all objects.
	stepPublish step = iota
	// stepRepeat: verdicts or claims were written. What was released in this round
	// is claimed in the next one, which sees it through the assume cache.
	stepRepeat
	// stepAwaitRelease: a claim waits for the address's former host. The status must
	// wait as well: reporting mid-move would report a false outage.
	stepAwaitRelease
	// stepRetry: the round failed, or someone else wrote at the same time.
	stepRetry
)

// round is the outcome of one round.
type round struct {
	next     step
	view     view
	decision decision
	err      error
}

// runRound observes and decides, then writes verdicts and claims.
func (r *egressReconciler) runRound(ctx context.Context) round {
	v, err := r.observer.observe(ctx)
	if err != nil {
		return round{next: stepRetry, err: err}
	}
	began := r.clock.Now()
	d := v.decide()
	r.metrics.allocationSeconds.Observe(r.clock.Since(began).Seconds())
	judged, errVerdicts := r.publishVerdicts(ctx, v)
	wrote, waiting, errClaims := r.writeClaims(ctx, v, d.allocation)
	failed := errors.Join(errVerdicts, errClaims)
	done := round{view: v, decision: d, err: failed}
	switch {
	case apierrors.IsConflict(failed) || (failed != nil && (judged || wrote)):
		done.next = stepRetry
	case judged || wrote:
		done.next = stepRepeat
	case waiting:
		done.next = stepAwaitRelease
	}
	return done
}

// finish ends a pass with all that is only reported.
func (r *egressReconciler) finish(ctx context.Context, last round) (reconcile.Result, error) {
	r.metrics.observe(last.view, last.decision.resolution)
	r.reportInUse(last.view)
	more, err := r.publishStatus(ctx, last.view, last.decision)
	if more {
		return result(time.Millisecond, last.err, err)
	}
	return result(passEvery, last.err, err)
}

// cachesCurrent reports whether the caches have shown, in this term as leader, all
// that the API had when it began. A claim that the former leader wrote a moment ago
// must not be overlooked.
func (r *egressReconciler) cachesCurrent(ctx context.Context) (bool, error) {
	if r.verified {
		return true, nil
	}
	missing, err := r.missingFromCaches(ctx)
	if err != nil {
		return false, err
	}
	r.verified = missing == ""
	if !r.verified {
		log.FromContext(ctx).V(1).Info("the caches lag behind the API; nothing is written yet", "object", missing)
	}
	return r.verified, nil
}

// missingFromCaches returns an object that the caches do not show yet, "" for none.
func (r *egressReconciler) missingFromCaches(ctx context.Context) (string, error) {
	var liveHosts, cachedHosts v1.HostSubnetList
	var liveNamespaces, cachedNamespaces v1.NetNamespaceList
	// The API is asked first, so that the caches have the time until then.
	if err := errors.Join(r.live.List(ctx, &liveHosts), r.live.List(ctx, &liveNamespaces)); err != nil {
		return "", fmt.Errorf("list HostSubnets and NetNamespaces: %w", err)
	}
	if err := errors.Join(r.cache.List(ctx, &cachedHosts), r.cache.List(ctx, &cachedNamespaces)); err != nil {
		return "", fmt.Errorf("read the caches: %w", err)
	}
	hosts, namespaces := byName(cachedHosts.Items), byName(cachedNamespaces.Items)
	missing := behind(pointers(liveHosts.Items), func(name string) (*v1.HostSubnet, bool) {
		h, ok := hosts[name]
		return h, ok
	})
	if missing != "" {
		return missing, nil
	}
	return behind(pointers(liveNamespaces.Items), func(name string) (*v1.NetNamespace, bool) {
		n, ok := namespaces[name]
		return n, ok
	}), nil
}
