package controllers

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/go-logr/logr"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
)

const (
	// lookForOther is the pause between two looks at the Lease of another install.
	lookForOther = time.Second
	// otherGoneAfter is how long that Lease must stand still.
	otherGoneAfter = time.Minute
)

// installGate holds the reconcilers of a leader back while another install of the
// operator, in another namespace, works in the same cluster. That is the one which the
// latest mark names, for as long as its Lease is held and renewed. A Lease that no mark
// names is not looked at: anybody can create one in a namespace of his own.
//
// Of several installs, the latest mark names one: they never wait for each other.
type installGate struct {
	log      logr.Logger
	cache    client.Reader
	live     client.Reader
	recorder recorder
	clock    clock.Clock
	own      string // namespace of this install

	open chan struct{}
	// seen is the other's Lease as it was first seen, at since by this process's clock.
	seen  *coordinationv1.Lease
	since time.Time

	mu      sync.Mutex
	refusal error // what holds this install back, nil for nothing
}

func newInstallGate(log logr.Logger, d deps) *installGate {
	return &installGate{
		log: log.WithName("installs"), cache: d.cache, live: d.live, recorder: d.recorder, clock: d.clock,
		own: namespaceOf(d.claimsWriter), open: make(chan struct{}),
	}
}

// NeedLeaderElection is true: a standby writes nothing.
func (*installGate) NeedLeaderElection() bool { return true }

// Start looks at the other install until it does not work, or ctx ends. Once open, the
// gate stays open: of two leaders, marks decide.
func (g *installGate) Start(ctx context.Context) error {
	for !g.look(ctx) {
		timer := g.clock.NewTimer(lookForOther)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C():
		}
	}
	close(g.open)
	return nil
}

// look reports whether this install may work.
func (g *installGate) look(ctx context.Context) bool {
	var hosts v1.HostSubnetList
	if err := g.cache.List(ctx, &hosts); err != nil {
		g.refuse(fmt.Errorf("read HostSubnets from the cache: %w", err), nil)
		return false
	}
	marked := latestMark(pointers(hosts.Items))
	if marked == nil {
		return true
	}
	other := markOf(marked).namespace()
	if other == "" || other == g.own {
		g.refuse(nil, nil)
		return true
	}
	works, err := g.works(ctx, other)
	switch {
	case err != nil:
		g.refuse(err, nil)
	case works:
		g.refuse(fmt.Errorf("another install of the operator works in namespace %s: its controller has marked HostSubnet %s and renews Lease %s/%s: "+
			"uninstall one of them; this one does nothing until then", other, marked.Name, other, FieldManager), marked)
	default:
		g.log.Info("the other install does not work any more", "namespace", other)
		g.refuse(nil, nil)
	}
	return err == nil && !works
}

// works reports whether the controller of the install in that namespace holds its Lease,
// and has renewed it within otherGoneAfter: by changes of the Lease, not by the times in
// it, which are of another machine's clock. A Lease that is seen for the first time
// counts as renewed.
func (g *installGate) works(ctx context.Context, namespace string) (bool, error) {
	lease := &coordinationv1.Lease{}
	err := g.live.Get(ctx, client.ObjectKey{Namespace: namespace, Name: FieldManager}, lease)
	switch {
	case apierrors.IsNotFound(err):
		return false, nil
	case err != nil:
		// While the API server is away, no controller can renew its Lease.
		g.seen = nil
		return false, fmt.Errorf("read the Lease of the install in namespace %s: %w", namespace, err)
	case lease.Spec.HolderIdentity == nil || *lease.Spec.HolderIdentity == "":
		return false, nil
	}
	if g.seen == nil || g.seen.UID != lease.UID || g.seen.ResourceVersion != lease.ResourceVersion {
		g.seen, g.since = lease, g.clock.Now()
	}
	return g.clock.Since(g.since) < otherGoneAfter, nil
}

// refuse remembers why this install is held back, nil for nothing, and reports it once:
// in the log, and on the HostSubnet, if one is given.
func (g *installGate) refuse(why error, h *v1.HostSubnet) {
	g.mu.Lock()
	before := g.refusal
	g.refusal = why
	g.mu.Unlock()
	if why == nil || (before != nil && before.Error() == why.Error()) {
		return
	}
	g.log.Error(why, "this controller does not work")
	if h != nil {
		g.recorder.Event(h, corev1.EventTypeWarning, eventOtherInstall, "Namespace "+g.own+": "+why.Error())
	}
}

// ready fails with what holds this install back.
func (g *installGate) ready(*http.Request) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.refusal
}

// guard returns a reconciler that begins to work when the gate is open.
func (g *installGate) guard(r reconcile.Reconciler) reconcile.Reconciler {
	return reconcile.Func(func(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
		select {
		case <-g.open:
			return r.Reconcile(ctx, request)
		case <-ctx.Done():
			return reconcile.Result{}, nil
		}
	})
}
