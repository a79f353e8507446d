package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/sync/errgroup"
	"k8s.io/utils/clock"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/overlay"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/warning"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// The pace of the loop.
const (
	// minRest and maxRest bound the pause after a pass, which is otherwise as
	// long as the pass itself: a stream of events then takes at most half of
	// one processor, and single events are served at once.
	minRest = 10 * time.Millisecond
	maxRest = 500 * time.Millisecond
	// firstRetry is the pause after a first failure; it doubles up to the
	// period of the resync.
	firstRetry = 100 * time.Millisecond
	// relogInterval is the time between two logs of an error that stays the same.
	relogInterval = time.Minute
)

// applier is the part of dataplane.Dataplane that the loop uses.
type applier interface {
	// Apply makes the kernel match the state and reports what it found.
	Apply(ctx context.Context, s dataplane.State) (dataplane.Report, error)
	// AnswerProbes sets what the kernel answers to probes that come over the overlay.
	AnswerProbes(a dataplane.Answer) error
	// StayPresent keeps up what Apply, of this agent or of one before it, does with
	// unknown pods.
	StayPresent() error
	// Cleanup takes everything off the node. Nothing is applied after it.
	Cleanup(ctx context.Context) error
	// OverlayTraffic returns what the overlay device has counted; false without one.
	OverlayTraffic() (overlay.Traffic, bool, error)
	// Run calls drift when something changed in the kernel, until ctx ends.
	Run(ctx context.Context, drift func()) error
}

// signal carries "something has happened"; any number of signals before the
// receiver looks count as one.
type signal chan struct{}

func newSignal() signal { return make(signal, 1) }

func (s signal) raise() {
	select {
	case s <- struct{}{}:
	default:
	}
}

// loop keeps the kernel in line with the objects.
type loop struct {
	log     logr.Logger
	clock   clock.Clock
	applier applier
	// gather reads the caches. It is called only when they have synced.
	gather func(context.Context) (input, error)
	// publish takes what the status must report; it must not block.
	publish func(observation)
	metrics *metrics
	health  *health
	// peers knows which hosts answer; nil without probes.
	peers *peers
	// unreached names the hosts that have not answered for a while, in order; nil without
	// probes.
	unreached func() []string
	// isolation knows whether this node is cut off; nil for never.
	isolation *isolation
	// resync is how often the kernel is compared with the state without an event.
	resync time.Duration

	// objects is raised when an object has changed, drift when the kernel has.
	objects signal
	drift   signal

	// What follows belongs to the goroutine of run.
	desired   *decision // nil before the first
	given     input     // that desired rests on
	memo      egress.Memo
	stale     bool             // objects have changed since, and could not be read
	applied   bool             // the last Apply succeeded, with desired.state
	matched   *dataplane.State // that of the last Apply, if it succeeded
	appliedAt time.Time
	report    dataplane.Report
	addresses sightings
	missing   missing
	hostIP    netip.Addr
	failures  int // passes in a row that failed
	lastErr   string
	loggedAt  time.Time
	warnings  []warning.Warning
	// kernel is the release of the kernel whose features were logged.
	kernel string
}

// observation is the outcome of a pass, for the status.
type observation struct {
	decision decision
	report   dataplane.Report
	// err is why the kernel is not as planned, or nil.
	err error
	// missing says which pod is in no network that all nodes know; empty for none.
	missing string
}

// run works until ctx ends. The caches must have synced.
func (l *loop) run(ctx context.Context) error {
	var g errgroup.Group
	g.Go(func() error {
		l.listen(ctx)
		return nil
	})
	why := cause{objects: true, kernel: true}
	for ctx.Err() == nil {
		began := l.clock.Now()
		l.health.passBegins()
		err := l.pass(ctx, why)
		if ctx.Err() != nil {
			break // cut short: the error, if any, says nothing
		}
		l.health.passEnds(l.desired != nil && l.desired.noHostSubnet, err)
		l.recordResult(err)
		why = l.wait(ctx, l.clock.Since(began))
	}
	return g.Wait()
}

// cause is why a pass is due.
type cause struct {
	objects bool // they have changed
	kernel  bool // it has changed, or was not compared for long
}

// wait returns when a pass is due.
func (l *loop) wait(ctx context.Context, worked time.Duration) (why cause) {
	rest := min(max(worked, minRest), maxRest)
	until := max(l.resync-rest, 0)
	drift := l.drift
	if l.failures > 0 {
		// What fails may itself change the kernel each time: then the kernel's
		// events must not set the pace.
		drift = nil
		until = min(firstRetry<<min(l.failures-1, 16), l.resync)
	}
	pause := l.clock.NewTimer(rest)
	defer pause.Stop()
	select {
	case <-ctx.Done():
		return why
	case <-pause.C():
	}
	next := l.clock.NewTimer(until)
	defer next.Stop()
	select {
	case <-ctx.Done():
	case <-l.objects:
		why.objects = true
	case <-drift:
		why.kernel = true
	case <-next.C():
		why.kernel = true
	}
	return why
}

// pass decides again where objects have changed, and makes the kernel match.
func (l *loop) pass(ctx context.Context, why cause) error {
	settled, undecided := l.refresh(ctx, why)
	if l.desired == nil {
		return undecided
	}
	var err error
	if !settled {
		err = l.apply(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	if l.peers != nil && !l.appliedAt.IsZero() {
		// Not before: a host that has just started would answer "not ready". But
		// also where the pass failed in part: what works is offered.
		l.peers.setTargets(l.desired.state.HostIP, l.desired.state.Hosts, l.desired.peers, l.desired.witnessed)
	}
	err = errors.Join(undecided, err)
	l.publish(observation{decision: *l.desired, report: l.report, err: err, missing: l.missing.lasting(l.desired, l.clock.Now())})
	return err
}

// refresh decides again where objects have changed. settled reports that the kernel
// need not be compared with the decision in this pass. After an error, the last
// decision still holds.
func (l *loop) refresh(ctx context.Context, why cause) (settled bool, err error) {
	if !why.objects && !l.stale {
		return false, nil
	}
	next, err := l.decide(ctx)
	l.stale = err != nil
	if err != nil {
		return false, err
	}
	// Most changes of objects are of no concern here, such as the status that the
	// agents of other nodes write. They must not keep the kernel from being
	// compared, either.
	settled = !why.kernel && l.applied && l.clock.Since(l.appliedAt) < l.resync &&
		reflect.DeepEqual(l.desired.state, next.state)
	if next.noHostSubnet && (l.desired == nil || !l.desired.noHostSubnet) {
		l.log.Info("this node has no HostSubnet: it hosts no egress IPs, and its pods are kept from leaving with its address")
	}
	l.desired = &next
	return settled, nil
}

// errNoHost says that the node cannot be served at all yet.
func errNoHost(node string) error {
	return fmt.Errorf("HostSubnet %s does not exist or has no usable hostIP, and no pod on the node reports its address: "+
		"check that the controller runs, and that Node %s has an InternalIP", node, node)
}

func (l *loop) decide(ctx context.Context) (decision, error) {
	in, err := l.gather(ctx)
	if err != nil {
		return decision{}, err
	}
	in.uplink, in.hostIP, in.memo = l.report.UplinkCIDR, l.hostIP, &l.memo
	in.networks, in.networksKnown = l.report.Networks, l.report.NetworksKnown
	in.addresses, in.podRoutes = l.addresses.list(), l.report.PodRoutes
	if l.peers != nil {
		in.reach = l.peers.reach()
	}
	in.reach.Withdrawn = l.isolation.withdrawn()
	next, ok := decide(in)
	if !ok {
		return decision{}, errNoHost(in.node)
	}
	l.hostIP, l.given = next.state.HostIP, in
	return next, nil
}

func (l *loop) apply(ctx context.Context) error {
	began := l.clock.Now()
	report, err := l.applier.Apply(ctx, l.desired.state)
	ended := l.clock.Now()
	if ctx.Err() != nil {
		l.applied = false
		return ctx.Err()
	}
	if report.UplinkCIDR != l.report.UplinkCIDR || report.NetworksKnown != l.report.NetworksKnown || !slices.Equal(report.Networks, l.report.Networks) {
		l.objects.raise() // the brain refuses claims outside these networks
	}
	if l.addresses.see(report.Addresses, ended) {
		l.objects.raise() // it decides which of them are published
	}
	if !slices.Equal(report.PodRoutes, l.report.PodRoutes) {
		l.objects.raise() // it decides which networks these are
	}
	report.Warnings = warning.Tidy(slices.Concat(report.Warnings, l.desired.warnings, l.peerWarnings(report)))
	again := report.Changes > 0 && l.matched != nil && reflect.DeepEqual(*l.matched, l.desired.state)
	l.report, l.applied, l.appliedAt, l.matched = report, err == nil, ended, nil
	if err == nil {
		l.matched = &l.desired.state
	}
	l.health.setService(serviceOf(report, l.desired.withdrawn))
	l.metrics.observe(l.desired.state, report, began, ended, again, err)
	if report.Changes > 0 {
		l.log.Info("kernel updated", "changes", report.Changes, "seconds", ended.Sub(began).Seconds(),
			"hosted", len(l.desired.state.Hosted), "pods", len(l.desired.state.Pods))
	}
	if report.Kernel != "" && l.kernel != report.Kernel {
		l.kernel = report.Kernel
		l.log.Info("looked at the kernel", "kernel", report.Kernel, "lacks", len(report.Missing))
		for _, f := range report.Missing {
			l.log.Info("the kernel lacks a feature; the agent does without", "feature", string(f.Name), "since", f.Since.String(), "lost", f.Without)
		}
	}
	for _, w := range report.Warnings {
		if !slices.Contains(l.warnings, w) {
			l.log.Info("warning", "warning", w.String())
		}
	}
	l.warnings = report.Warnings
	return err
}

// peerWarnings are those about other hosts.
func (l *loop) peerWarnings(report dataplane.Report) []warning.Warning {
	warnings := warning.MTUs(report.Uplink, report.UplinkMTU, l.desired.mtus)
	if l.unreached == nil {
		return warnings
	}
	// What is silent to all is no matter of this host.
	unreached := slices.DeleteFunc(l.unreached(), func(name string) bool {
		_, serves := slices.BinarySearch(l.desired.servingPeers, name)
		return !serves
	})
	return append(warnings, warning.Unreached(unreached)...)
}

// recordResult counts failures, and logs them without repeating itself.
func (l *loop) recordResult(err error) {
	if err == nil {
		if l.failures > 0 {
			l.log.Info("the kernel is as planned again", "failures", l.failures)
		}
		l.failures, l.lastErr = 0, ""
		return
	}
	l.failures++
	if text := err.Error(); text != l.lastErr || l.clock.Since(l.loggedAt) >= relogInterval {
		l.lastErr, l.loggedAt = text, l.clock.Now()
		l.log.Error(err, "the kernel is not as planned; trying again", "failures", l.failures)
	}
}

// listen subscribes to the kernel's changes until ctx ends.
func (l *loop) listen(ctx context.Context) {
	for ctx.Err() == nil {
		err := l.applier.Run(ctx, l.drift.raise)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			l.log.Error(err, "cannot listen to the kernel; until that is tried again, only the resync finds drift",
				"resync", l.resync.String(), "retryInterval", retryInterval.String())
		}
		t := l.clock.NewTimer(retryInterval)
		select {
		case <-ctx.Done():
		case <-t.C():
		}
		t.Stop()
		l.drift.raise() // events may have been missed
	}
}
