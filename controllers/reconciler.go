package controllers

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

const (
	// maxRounds bounds the rounds of allocation in one pass. Two settle a cluster;
	// more are needed only while someone else writes at the same time.
	maxRounds = 6
	// passEvery repairs what no event reports.
	passEvery = 5 * time.Minute
)

// egressReconciler makes the decisions that concern the cluster as a whole: which
// hosts are online, and which host has which egress IP. Each pass writes the verdicts
// that changed, then claims; all other status it leaves to the publisher.
type egressReconciler struct {
	deps
	observer  *observer
	publisher *publisher
	fence     *fence
	writes    *passWrites
	// unanswered are the writes of claims that may be stored or not.
	unanswered unanswered
	// waitingSince is since when a claim waits for the address's former host.
	waitingSince map[netip.Addr]time.Time
	// loggedWaiting is the error that logWhileWaiting logged last.
	loggedWaiting string
	// displaced are the egress IPs that are about to move.
	displaced egress.Displaced
	// movingSince is since when an address that a status has assigned is on no list.
	movingSince map[string]time.Time
	// history is where claims come from.
	history claimHistory
	// inUse are the addresses already reported as in use elsewhere, as host and
	// address.
	inUse map[[2]string]bool
	// warned is the reason of the worst warning already reported, by host.
	warned map[string]string
	panels panels
	// memo remembers the decision before.
	memo egress.Memo
}

func setupEgress(mgr manager.Manager, d deps, o *observer, status *publisher, p *probes) error {
	const batch = 10 * time.Millisecond
	r := newEgressReconciler(d, o, status)
	if err := mgr.Add(r.writes); err != nil {
		return err
	}
	b := builder.ControllerManagedBy(mgr).Named("cluster")
	if p != nil {
		b = b.WatchesRawSource(source.Channel(p.changed, wholePass(0)))
	}
	return b.
		WithOptions(controllerOptions()).
		WatchesRawSource(source.Channel(r.writes.changed, wholePass(0))).
		WatchesRawSource(source.Channel(o.pods.changed, wholePass(0))).
		WatchesRawSource(source.Channel(o.networks.changed, wholePass(batch))).
		Watches(&v1.NetNamespace{}, wholePass(batch), builder.WithPredicates(unless(sameRequests))).
		Watches(&v1.HostSubnet{}, wholePass(batch), builder.WithPredicates(unless(sameClaims))).
		Watches(&corev1.Node{}, wholePass(batch), builder.WithPredicates(unless(sameNode))).
		WatchesRawSource(source.Channel(d.egressIPs.changed(), wholePass(batch))).
		Complete(d.gate.guard(r))
}

func newEgressReconciler(d deps, o *observer, p *publisher) *egressReconciler {
	writes := newPassWrites(d.clock)
	return &egressReconciler{
		deps: d, observer: o, publisher: p, fence: newFence(d, o, writes), writes: writes, history: claimHistory{retention: o.claimRetention},
		waitingSince: make(map[netip.Addr]time.Time),
		displaced:    make(egress.Displaced),
		movingSince:  make(map[string]time.Time),
		inUse:        make(map[[2]string]bool),
	}
}

// Reconcile is one pass: rounds of verdicts and claims until nothing is left to
// write, or until something must be awaited. Whatever ends it, the status of all
// objects is published.
func (r *egressReconciler) Reconcile(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
	began := r.clock.Now()
	defer func() { r.metrics.passSeconds.Observe(r.clock.Since(began).Seconds()) }()
	if r.fence.over {
		return reconcile.Result{}, nil // this controller is about to end
	}
	late := r.writes.settle()
	var last round
	for range maxRounds {
		if last = r.runRound(ctx); last.next != stepRepeat {
			break
		}
	}
	if last.err = errors.Join(append(late, last.err)...); last.err != nil {
		r.metrics.passErrors.Inc()
	}
	if last.decided {
		r.publish(last)
	}
	switch last.next {
	case stepSettled:
		next := r.history.next(r.clock.Now(), passEvery)
		if change := last.view.changesIn; change > 0 {
			next = min(next, change)
		}
		return result(next, last.err)
	case stepRetry:
		return result(0, last.err)
	case stepEnd:
		return reconcile.Result{}, nil
	case stepRepeat, stepWait:
		r.logWhileWaiting(ctx, last.err)
	}
	return reconcile.Result{RequeueAfter: catchUp}, nil
}

// logWhileWaiting logs why a pass failed that is repeated soon because a claim waits. Its
// error is not returned: the pause after errors grows, and the claim would wait for a host
// that has nothing to do with it. An error that lasts is logged once.
func (r *egressReconciler) logWhileWaiting(ctx context.Context, err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != "" && text != r.loggedWaiting {
		log.FromContext(ctx).Error(err, "cannot write verdicts or claims, and a claim waits for the former host of its address")
	}
	r.loggedWaiting = text
}

// step is what follows a round.
type step int

const (
	// stepSettled: there was nothing to write, or nothing could be written.
	stepSettled step = iota
	// stepRepeat: verdicts or claims were written. What was released in this round
	// is claimed in the next one, which sees it through the assume cache.
	stepRepeat
	// stepWait: the caches lag, or a claim waits for the address's former host.
	stepWait
	// stepRetry: the round failed, or someone else wrote at the same time.
	stepRetry
	// stepEnd: another controller writes claims, and this one ends.
	stepEnd
)

// round is the outcome of one round.
type round struct {
	next step
	// decided is false if there are no view and decision.
	decided  bool
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
	allowed, errFence := r.fence.review(ctx, v)
	switch {
	case errors.Is(errFence, errDeposed):
		return round{next: stepEnd} // the end of the term reports it
	case errFence == nil && allowed == lookAgain:
		return round{next: stepRepeat}
	case errFence == nil && allowed == waitForCaches:
		return round{next: stepWait}
	}
	for _, w := range r.unanswered.settle(v) {
		r.history.wrote(w.before.UID, w.wanted.claims) // perhaps
	}
	began := r.clock.Now()
	v.awaited = r.history.awaited(v, began)
	d := v.decide(&r.memo)
	r.metrics.allocationSeconds.Observe(r.clock.Since(began).Seconds())
	judged, left, errVerdicts := r.writeVerdicts(ctx, v, d)
	var wrote, leftClaims, waiting bool
	var errClaims error
	if allowed == claimsAllowed {
		wrote, leftClaims, waiting, errClaims = r.writeClaims(ctx, v, d.allocation, judged)
	}
	failed := errors.Join(errFence, errVerdicts, errClaims)
	done := round{decided: true, view: v, decision: d, err: failed}
	switch {
	case left || leftClaims:
		// What failed is tried again meanwhile. The pause after errors grows.
		done.next = stepRepeat
	case apierrors.IsConflict(failed) || (failed != nil && (len(judged) > 0 || wrote)):
		done.next = stepRetry
	case len(judged) > 0 || wrote:
		done.next = stepRepeat
	case waiting:
		done.next = stepWait
	}
	return done
}

// verdictsAtOnce bounds the verdicts of one round: the first claims that follow from many
// do not wait for all of them.
const verdictsAtOnce = 16

// writeVerdicts writes the statuses of hosts whose verdict changed, as many as one round
// may, and returns all these hosts, and whether some are left to the next round. The agents
// wait for them: they decide where traffic goes. It waits neither for nor with those that are
// still under way.
func (r *egressReconciler) writeVerdicts(ctx context.Context, v view, d decision) (judged map[string]bool, left bool, err error) {
	judged = make(map[string]bool)
	var changed []wantedStatus
	for i, w := range wantedHosts(v, d, v.witnesses()) {
		h := v.hosts[i]
		if !verdictChanged(h.Status.Conditions, w.host.Conditions) || r.writes.underWay(writesVerdict, h.Name) {
			continue
		}
		changed = append(changed, w)
	}
	// Bad news first.
	slices.SortStableFunc(changed, func(a, b wantedStatus) int { return cmp.Compare(serves(a), serves(b)) })
	var wrote bool
	var errs []error
	for some := range slices.Chunk(changed, verdictsAtOnce) {
		if wrote {
			left = true
			break
		}
		for _, w := range some {
			logVerdict(ctx, v, w)
		}
		errs = append(errs, r.writes.do(statusWriters, r.verdictWrites(ctx, some, &wrote))...)
	}
	if !wrote {
		return nil, false, errors.Join(errs...)
	}
	for _, w := range changed {
		judged[w.key.name] = true
	}
	return judged, left, errors.Join(errs...)
}

// verdictWrites are the writes of verdicts. wrote is set if one of them changes an object.
func (r *egressReconciler) verdictWrites(ctx context.Context, wanted []wantedStatus, wrote *bool) []passWrite {
	writes := make([]passWrite, 0, len(wanted))
	for _, w := range wanted {
		var changed bool
		writes = append(writes, passWrite{
			key: writeKey{writesVerdict, w.key.name},
			send: func() (err error) {
				changed, err = r.publisher.writeNow(ctx, w)
				return err
			},
			answered: func(err error) error {
				*wrote = *wrote || changed
				return err
			},
		})
	}
	return writes
}

// logVerdict logs a verdict that is about to be written, if the host was online before and
// is not now, or the other way round.
func logVerdict(ctx context.Context, v view, w wantedStatus) {
	h, now := v.host(w.key.name), conditionStatus(w.host.Conditions, v1.ConditionOnline, metav1.ConditionTrue)
	if conditionStatus(h.Status.Conditions, v1.ConditionOnline, metav1.ConditionTrue) != now {
		log.FromContext(ctx).Info("a host went offline or came back", "hostSubnet", h.Name, "online", now,
			"reason", v.verdicts[h.Name].Reason, "watchers", v.votes[h.Name].Watchers, "silentFor", v.votes[h.Name].Silent)
	}
}

// serves is 1 if the host is online by the status, and 0 otherwise.
func serves(w wantedStatus) int {
	if conditionStatus(w.host.Conditions, v1.ConditionOnline, metav1.ConditionTrue) == metav1.ConditionTrue {
		return 1
	}
	return 0
}

// publish reports what is known at the end of a pass.
func (r *egressReconciler) publish(last round) {
	moving := r.moving(last.view, last.decision)
	r.metrics.observe(last.view, last.decision.resolution, moving)
	r.reportInUse(last.view)
	r.reportWarnings(last.view)
	witnesses := r.panels.pick(last.view, last.decision.serving, r.clock.Now())
	r.publisher.publish(last.view, wantedStatuses(last.view, last.decision, witnesses, moving))
}

// moving returns the groups that keep their status because one of their addresses
// is between two hosts: it was released, and the claim of the next host follows within
// awaitReleaseFor. Reporting that would report a false outage. An address that takes
// longer has no host, and is reported so.
func (r *egressReconciler) moving(v view, d decision) map[string]bool {
	between := d.between()
	groups := make(map[string]bool)
	if len(between) == 0 {
		clear(r.movingSince)
		return groups
	}
	now := r.clock.Now()
	still := make(map[string]bool)
	for _, n := range v.requesters() {
		for _, request := range n.status {
			if !assigned(request.State) || !between[request.IP] {
				continue
			}
			still[request.IP] = true
			since, ok := r.movingSince[request.IP]
			if !ok {
				since = now
				r.movingSince[request.IP] = now
			}
			if now.Sub(since) < awaitReleaseFor {
				groups[n.group] = true
			}
		}
	}
	maps.DeleteFunc(r.movingSince, func(ip string, _ time.Time) bool { return !still[ip] })
	return groups
}
