package controllers

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	ctrlmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/apiconn"
)

// FieldManager is the name under which the controller writes.
const FieldManager = "egressip-controller"

// The Lease. A leader that dies is replaced within leaseDuration, and sooner if probes
// find that its node died with it (leaderMonitor). One that cannot renew the Lease for
// renewDeadline stops before that.
const (
	leaseDuration = 6 * time.Second
	renewDeadline = 4 * time.Second
	retryPeriod   = 500 * time.Millisecond
)

// restartAfter is the pause before the controller starts again after it had to stop.
const restartAfter = time.Second

// Run serves the cluster until ctx ends, and returns an error if the options are
// invalid. If anything else stops it, such as a Lease that was lost because the API
// server was unavailable, it starts again: a process that exits each time would soon
// wait for minutes between its restarts. cfg.QPS and cfg.Burst limit the requests of
// each reconciler to each kind of object, but for status.
func Run(ctx context.Context, cfg *rest.Config, o Options) error {
	if err := o.Validate(); err != nil {
		return err
	}
	for {
		err := run(ctx, cfg, o, ctrlmetrics.Registry)
		if ctx.Err() != nil {
			return err
		}
		ctrl.LoggerFrom(ctx).WithName("controller").Error(err, "the controller had to stop; it starts again", "after", restartAfter.String())
		t := time.NewTimer(restartAfter)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil
		case <-t.C:
		}
	}
}

// run is Run with metrics in the given registry.
func run(ctx context.Context, cfg *rest.Config, o Options, registry prometheus.Registerer) error {
	log := ctrl.LoggerFrom(ctx).WithName("controller")
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1.AddToScheme(scheme)); err != nil {
		return fmt.Errorf("register the API's kinds: %w", err)
	}
	cfg = rest.AddUserAgent(rest.CopyConfig(cfg), FieldManager)
	apiconn.BoundDials(cfg)
	mgr, err := newManager(cfg, o, scheme, log)
	if err != nil {
		return fmt.Errorf("set up the controller: %w", err)
	}
	m := newMetrics()
	unregister, err := m.register(registry)
	defer unregister()
	if err != nil {
		return fmt.Errorf("register metrics: %w", err)
	}
	recorder, stopEvents, err := newRecorder(ctx, cfg, scheme)
	if err != nil {
		return err
	}
	defer stopEvents()
	s := setup{mgr: mgr, cfg: cfg, options: o, metrics: m, recorder: recorder}
	if err := s.all(log); err != nil {
		return err
	}
	log.Info("starting", "version", o.Version, "leaderElection", o.LeaderElection)
	if err := mgr.Start(ctx); err != nil {
		return fmt.Errorf("run the controller: %w", err)
	}
	log.Info("stopped")
	return nil
}

func newManager(cfg *rest.Config, o Options, scheme *runtime.Scheme, log logr.Logger) (manager.Manager, error) {
	return manager.New(cfg, manager.Options{
		Scheme:                 scheme,
		Logger:                 log,
		Cache:                  cacheOptions(),
		Metrics:                metricsserver.Options{BindAddress: orNone(o.MetricsAddress)},
		HealthProbeBindAddress: orNone(o.HealthAddress),
		LeaderElection:         o.LeaderElection,
		LeaderElectionID:       FieldManager,
		// The program ends with Run, so the next leader need not wait.
		LeaderElectionReleaseOnCancel: true,
		LeaseDuration:                 new(leaseDuration),
		RenewDeadline:                 new(renewDeadline),
		RetryPeriod:                   new(retryPeriod),
		LeaderElectionNamespace:       o.LeaderElectionNamespace,
		Controller: config.Controller{
			// A program may run the controller again after it has stopped.
			SkipNameValidation: new(true),
			// Caches of a standby are warm.
			EnableWarmup: new(true),
		},
	})
}

// setup adds to a manager what works under it.
type setup struct {
	mgr      manager.Manager
	cfg      *rest.Config
	options  Options
	metrics  *metrics
	recorder recorder
}

func (s setup) all(log logr.Logger) error {
	p, probed, err := s.probes(log)
	if err != nil {
		return fmt.Errorf("set up the probes: %w", err)
	}
	o := newObserver(s.mgr.GetCache(), probed, s.options.DefaultCapacity)
	status, err := s.publisher(log, o)
	if err != nil {
		return fmt.Errorf("set up the publisher of statuses: %w", err)
	}
	if err := errors.Join(
		s.reconciler("netnamespaces", setupNetNamespaces),
		s.reconciler("hostsubnets", setupHostSubnets),
		s.reconciler("cluster", func(mgr manager.Manager, d deps) error { return setupEgress(mgr, d, o, status, p) }),
	); err != nil {
		return err
	}
	if p != nil && s.options.LeaderElection {
		// Without probes nothing reports that a leader's host died.
		if err := s.leaderMonitor(o); err != nil {
			return fmt.Errorf("set up the leader monitor: %w", err)
		}
	}
	if err := errors.Join(s.mgr.AddHealthzCheck("ping", healthz.Ping), s.mgr.AddReadyzCheck("caches", cachesSynced(s.mgr.GetCache()))); err != nil {
		return fmt.Errorf("set up the health endpoints: %w", err)
	}
	return nil
}

// probes returns nil and noProbes if the options ask for no probes.
func (s setup) probes(log logr.Logger) (*probes, func() probeStates, error) {
	if s.options.ProbePort == 0 {
		return nil, noProbes, nil
	}
	p, err := newProbes(log, s.options, s.mgr.GetCache(), s.mgr.GetCache().WaitForCacheSync)
	if err != nil {
		return nil, nil, err
	}
	return p, p.states, s.mgr.Add(p)
}

// publisher adds the publisher of statuses. The number of its concurrent writes bounds
// their rate, not cfg.QPS: after a start, thousands of statuses are due at once.
func (s setup) publisher(log logr.Logger, o *observer) (*publisher, error) {
	unlimited := s
	unlimited.cfg = rest.CopyConfig(s.cfg)
	unlimited.cfg.QPS = -1
	w, err := unlimited.client()
	if err != nil {
		return nil, err
	}
	p := newPublisher(log, s.deps(w), o, s.mgr.GetCache())
	return p, s.mgr.Add(p)
}

func (s setup) reconciler(name string, add func(manager.Manager, deps) error) error {
	w, err := s.client()
	if err == nil {
		err = add(s.mgr, s.deps(w))
	}
	if err != nil {
		return fmt.Errorf("set up reconciler %s: %w", name, err)
	}
	return nil
}

// deps is what a reconciler that writes by w uses.
func (s setup) deps(w client.Client) deps {
	return deps{
		cache: s.mgr.GetCache(), live: s.mgr.GetAPIReader(), writer: client.WithFieldOwner(w, FieldManager),
		recorder: s.recorder, metrics: s.metrics, clock: clock.RealClock{},
	}
}

func (s setup) leaderMonitor(o *observer) error {
	namespace, err := ownNamespace(s.options)
	if err != nil {
		return err
	}
	w, err := s.client()
	if err != nil {
		return err
	}
	return s.mgr.Add(&leaderMonitor{
		log: s.mgr.GetLogger().WithName("leader-monitor"), clock: clock.RealClock{},
		leading: s.mgr.Elected(), synced: s.mgr.GetCache().WaitForCacheSync,
		observer: o, live: s.mgr.GetAPIReader(), writer: w,
		lease: client.ObjectKey{Namespace: namespace, Name: FieldManager},
	})
}

// client returns a client for one reconciler alone, so that none waits for the
// requests of another.
func (s setup) client() (client.Client, error) {
	return client.New(s.cfg, client.Options{Scheme: s.mgr.GetScheme(), Mapper: s.mgr.GetRESTMapper(), HTTPClient: s.mgr.GetHTTPClient()})
}

// deps is what each reconciler uses.
type deps struct {
	cache    client.Reader
	live     client.Reader // asks the API server
	writer   client.Client
	recorder recorder
	metrics  *metrics
	clock    clock.Clock
}

// controllerOptions make failed passes be retried soon, for as long as they fail.
func controllerOptions() controller.Options {
	const first, last = 50 * time.Millisecond, 10 * time.Second
	return controller.Options{
		MaxConcurrentReconciles: 1,
		RateLimiter:             workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](first, last),
	}
}

func orNone(address string) string {
	if address == "" {
		return "0"
	}
	return address
}

// cachesSynced is ready as soon as the caches are: a standby is then as ready to take
// over as the leader is to work.
func cachesSynced(c cache.Cache) healthz.Checker {
	return func(req *http.Request) error {
		ctx, cancel := context.WithTimeout(req.Context(), time.Second)
		defer cancel()
		if !c.WaitForCacheSync(ctx) {
			return errors.New("the caches have not synced yet")
		}
		return nil
	}
}

// cacheOptions keep of each object what the reconcilers read. At 5,000 nodes that is a
// few megabytes instead of hundreds.
func cacheOptions() cache.Options {
	return cache.Options{
		NewInformer:                  apiconn.NewInformer,
		DefaultTransform:             cache.TransformStripManagedFields(),
		DefaultUnsafeDisableDeepCopy: new(true), // objects from the caches are never changed
		ByObject: map[client.Object]cache.ByObject{
			&corev1.Node{}:      {Transform: transformNode},
			&corev1.Namespace{}: {Transform: transformNamespace},
		},
	}
}
