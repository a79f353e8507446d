package controllers

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/uuid"
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

	"github.com/egressip-operator/egressip-operator/api/egressip/v1alpha1"
	ovnv1 "github.com/egressip-operator/egressip-operator/api/ovn/v1"
	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/apiconn"
	"github.com/egressip-operator/egressip-operator/internal/endpoint"
	"github.com/egressip-operator/egressip-operator/internal/page"
	"github.com/egressip-operator/egressip-operator/internal/record"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// FieldManager is the name under which the controller writes.
const FieldManager = "egressip-controller"

// restartAfter is the pause before the controller starts again after it had to stop
// before it led.
const restartAfter = time.Second

// requestTimeout limits each request, apart from watches, statuses and requests for the
// Lease. A pass must not wait for an answer that never comes.
const requestTimeout = 10 * time.Second

// stopWithin limits how long the controller waits for its parts when it stops. They
// only wait for requests, which end with their context.
const stopWithin = 5 * time.Second

// Run serves the cluster until ctx ends, which is no error. It returns an error if the
// options are invalid, or if the controller led and had to stop, because it lost the
// Lease or found that another controller writes claims: whatever such a process has in
// memory may be wrong, so end it. As long as it has not led, because for example the
// API server cannot be reached, it starts again by itself. cfg.QPS and cfg.Burst limit
// the requests of the controller, and those of each informer; a negative QPS is no
// limit.
func Run(ctx context.Context, cfg *rest.Config, o Options) error {
	return runUntilLed(ctx, cfg, o, ctrlmetrics.Registry)
}

// runUntilLed is Run with metrics in the given registry.
func runUntilLed(ctx context.Context, cfg *rest.Config, o Options, registry prometheus.Registerer) error {
	if err := o.Validate(); err != nil {
		return err
	}
	for {
		led, err := run(ctx, cfg, o, registry)
		if led || ctx.Err() != nil {
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

// run is Run once, with metrics in the given registry. It reports whether the
// controller has led.
func run(ctx context.Context, cfg *rest.Config, o Options, registry prometheus.Registerer) (led bool, err error) {
	log := ctrl.LoggerFrom(ctx).WithName("controller")
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1.AddToScheme(scheme), ovnv1.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return false, fmt.Errorf("register the API's kinds: %w", err)
	}
	cfg = rest.AddUserAgent(rest.CopyConfig(cfg), FieldManager)
	apiconn.BoundDials(cfg)
	s := setup{cfg: cfg, options: o, metrics: newMetrics(), term: newTerm()}
	if err := s.elect(); err != nil {
		return false, fmt.Errorf("set up the Lease: %w", err)
	}
	if s.mgr, err = s.newManager(scheme, log); err != nil {
		return false, fmt.Errorf("set up the controller: %w", err)
	}
	unregister, err := s.metrics.Register(registry)
	defer unregister()
	if err != nil {
		return false, fmt.Errorf("register metrics: %w", err)
	}
	s.metrics.info.WithLabelValues(o.Version).Set(1)
	recorder, stopEvents, err := newRecorder(ctx, log, cfg, scheme, s.metrics)
	if err != nil {
		return false, err
	}
	defer stopEvents()
	s.recorder = recorder
	if s.record, err = s.newRecord(log); err != nil {
		return false, err
	}
	if err := s.all(ctx, log); err != nil {
		return false, err
	}
	log.Info("starting", "version", o.Version, "leaderElection", o.LeaderElection)
	if err := s.mgr.Start(ctx); err != nil {
		return s.led(), fmt.Errorf("run the controller: %w", err)
	}
	log.Info("stopped")
	return s.led(), nil
}

// setup makes a manager and what works under it.
type setup struct {
	mgr      manager.Manager
	cfg      *rest.Config
	options  Options
	metrics  *metrics
	recorder recorder
	term     *term
	// claimsWriter is this controller's name in marks.
	claimsWriter string
	// lock is nil without leader election.
	lock *leaseLock
	// gate holds all reconcilers back while another install works.
	gate *installGate
	// egressIPs is nil if they are not served.
	egressIPs *egressIPs
	// record is the record of use.
	record *record.Recorder
	// client is for all requests but watches and those for the Lease.
	client client.Client
}

// elect sets up the Lease, if there is one, and the name of this controller in marks.
func (s *setup) elect() error {
	identity, err := leaderIdentity(s.options)
	if err != nil {
		return err
	}
	namespace := ""
	if s.options.LeaderElection {
		if namespace, err = ownNamespace(s.options); err != nil {
			return err
		}
		if s.lock, err = newLeaseLock(s.cfg, namespace, identity); err != nil {
			return err
		}
		// Without probes nothing reports that a leader's host died.
		s.lock.dead = func(context.Context, string) bool { return false }
		s.lock.lost = s.term.end
	}
	// The same pod may run several terms, and must not take them for one.
	s.claimsWriter = strings.Join([]string{namespace, identity, string(uuid.NewUUID())}, "/")
	return nil
}

// newManager caches with connections of their own, so that a watch never waits for a
// request, and no timeout ends it.
func (s setup) newManager(scheme *runtime.Scheme, log logr.Logger) (manager.Manager, error) {
	o := manager.Options{
		Scheme: scheme,
		Logger: log,
		Cache:  cacheOptions(),
		// The manager would end if a port is taken: see endpoints.
		Metrics:                metricsserver.Options{BindAddress: "0"},
		HealthProbeBindAddress: "0",
		// The program ends with Run, so the next leader need not wait.
		LeaderElectionReleaseOnCancel: true,
		LeaseDuration:                 new(leaseDuration),
		RenewDeadline:                 new(renewDeadline),
		RetryPeriod:                   new(retryPeriod),
		GracefulShutdownTimeout:       new(stopWithin),
		Controller: config.Controller{
			// A program may run the controller again after it has stopped.
			SkipNameValidation: new(true),
			// Caches of a standby are warm.
			EnableWarmup: new(true),
		},
	}
	if s.lock != nil {
		o.LeaderElection, o.LeaderElectionResourceLockInterface = true, s.lock
	}
	return manager.New(s.cfg, o)
}

// led reports whether this controller leads or has led.
func (s setup) led() bool {
	if s.lock != nil {
		return s.lock.held.Load()
	}
	select {
	case <-s.mgr.Elected():
		return true
	default:
		return false
	}
}

func (s setup) all(ctx context.Context, log logr.Logger) error {
	p, probed, err := s.probes(log)
	if err != nil {
		return fmt.Errorf("set up the probes: %w", err)
	}
	if s.client, err = s.newClient(requestTimeout); err != nil {
		return fmt.Errorf("set up the client: %w", err)
	}
	o := newObserver(s.mgr.GetCache(), clock.RealClock{}, probed, s.options.DefaultCapacity)
	if s.options.EgressIPs {
		s.egressIPs = newEgressIPs(log, s.client, s.mgr.GetCache())
		o.source = s.egressIPs
	}
	o.self, o.pods = s.options.ProbeSource, newPodLookup(log, clock.RealClock{}, s.client)
	if err := s.mgr.Add(o.pods); err != nil {
		return fmt.Errorf("set up the look-up of Pods: %w", err)
	}
	if o.networks, err = s.networkReader(log); err != nil {
		return fmt.Errorf("set up the reader of networks: %w", err)
	}
	o.hostRetention, o.claimRetention = s.options.HostRetention, s.options.ClaimRetention
	o.included = s.options.Included
	status, err := s.publisher(log, o)
	if err != nil {
		return fmt.Errorf("set up the publisher of statuses: %w", err)
	}
	s.gate = newInstallGate(log, s.deps(s.client))
	if err := s.mgr.Add(s.gate); err != nil {
		return fmt.Errorf("set up the look for other installs: %w", err)
	}
	if err := errors.Join(
		s.reconciler("netnamespaces", setupNetNamespaces),
		s.reconciler("hostsubnets", func(mgr manager.Manager, d deps) error { return setupHostSubnets(mgr, d, s.options.HostRetention) }),
		s.pools(),
		s.reconciler("cluster", func(mgr manager.Manager, d deps) error { return setupEgress(mgr, d, o, status, p) }),
	); err != nil {
		return err
	}
	if s.egressIPs != nil { // its listeners are all there now
		s.egressIPs.repair = func(stored client.Object) { status.repair(ctx, stored) }
		s.egressIPs.gone = func(was any) { status.gone(ctx, was) }
		if err := s.mgr.Add(s.egressIPs); err != nil {
			return fmt.Errorf("set up the reader of EgressIPs: %w", err)
		}
	}
	if p != nil && s.lock != nil {
		s.lock.dead = (&leaderMonitor{log: log.WithName("leader-monitor"), clock: clock.RealClock{}, observer: o}).dead
	}
	if err := s.mgr.Add(manager.RunnableFunc(s.metrics.lead)); err != nil {
		return fmt.Errorf("set up the metric of the lead: %w", err)
	}
	if err := s.mgr.Add(s.term); err != nil {
		return fmt.Errorf("set up the end of a term: %w", err)
	}
	if err := s.endpoints(log); err != nil {
		return fmt.Errorf("set up the endpoints: %w", err)
	}
	return nil
}

// endpoints adds those for metrics and health that the options ask for.
func (s setup) endpoints(log logr.Logger) error {
	if !endpoint.None(s.options.HealthAddress) {
		mux := http.NewServeMux()
		for path, checks := range map[string]map[string]healthz.Checker{
			"/healthz": {"ping": healthz.Ping},
			"/readyz":  {"caches": cachesSynced(s.mgr.GetCache()), "only-install": s.gate.ready},
		} {
			handler := http.StripPrefix(path, &healthz.Handler{Checks: checks})
			mux.Handle(path, handler)
			mux.Handle(path+"/", handler)
		}
		if err := s.mgr.Add(endpoint.Health(log, s.options.HealthAddress, mux)); err != nil {
			return err
		}
	}
	if endpoint.None(s.options.MetricsAddress) {
		return nil
	}
	guarded, err := s.guarded(log)
	if err != nil {
		return err
	}
	metrics, err := endpoint.Metrics(endpoint.Config{
		Log: log, Address: s.options.MetricsAddress, Secure: s.options.MetricsSecure, API: s.mgr.GetConfig(), Requests: s.mgr.GetHTTPClient(),
		Guarded: guarded,
	})
	if err != nil {
		return err
	}
	return s.mgr.Add(metrics)
}

// guarded is what is served besides metrics, on every replica, to clients that may get it.
func (s setup) guarded(log logr.Logger) (all []endpoint.Guarded, err error) {
	if s.options.Page {
		p, err := s.page(log)
		if err != nil {
			return nil, fmt.Errorf("set up the page: %w", err)
		}
		all = append(all, endpoint.Guarded{Path: page.Path, Handler: p})
	}
	if s.options.Profiling {
		all = append(all, endpoint.Profiles())
	}
	return append(all, endpoint.Guarded{Path: record.Path, Handler: record.Handler(s.record)}), nil
}

// newRecord returns the record of use, which records nothing yet.
func (s setup) newRecord(log logr.Logger) (*record.Recorder, error) {
	writer := s.options.NodeName
	if writer == "" {
		name, err := os.Hostname()
		if err != nil {
			return nil, fmt.Errorf("find a name for the record of use: %w", err)
		}
		writer = name
	}
	log = log.WithName("record")
	return record.New(record.Config{
		Dir: s.options.RecordDir, AtMost: int64(s.options.RecordMaxSize) << 20, Writer: writer, Term: string(uuid.NewUUID())[:8],
		Now: clock.RealClock{}.Now,
		Problem: func(err error) {
			if err == nil {
				s.metrics.recordProblem.Set(0)
				log.Info("the record of use is written to its volume again")
				return
			}
			s.metrics.recordProblem.Set(1)
			log.Error(err, "WARNING: the record of use cannot be written to its volume; everything else works, and it is tried again", "dir", s.options.RecordDir)
		},
	}), nil
}

// probes returns nil and noProbes if the options ask for no probes.
func (s setup) probes(log logr.Logger) (*probes, func() probeStates, error) {
	if s.options.ProbePort == 0 {
		return nil, noProbes, nil
	}
	p, err := newProbes(log, s.options, s.mgr.GetCache(), s.mgr.GetCache().WaitForCacheSync, s.metrics.probed)
	if err != nil {
		return nil, nil, err
	}
	return p, p.states, s.mgr.Add(p)
}

// networkReader adds the reader of networks. Its connection is that of watches.
func (s setup) networkReader(log logr.Logger) (*networkReader, error) {
	var sources []egress.NetworkSource
	if s.options.FindNetworks {
		sources = egress.NetworkSources()
	}
	r, err := newNetworkReader(log, clock.RealClock{}, s.cfg, sources, s.options.ServiceCIDRs)
	if err != nil {
		return nil, err
	}
	return r, s.mgr.Add(r)
}

// publisher adds the publisher of statuses. The number of its concurrent writes bounds
// their rate, not cfg.QPS: after a start, thousands of statuses are due at once.
func (s setup) publisher(log logr.Logger, o *observer) (*publisher, error) {
	unlimited := s
	unlimited.cfg = rest.CopyConfig(s.cfg)
	unlimited.cfg.QPS = -1
	w, err := unlimited.newClient(writeTimeout)
	if err != nil {
		return nil, err
	}
	p := newPublisher(log, s.deps(w), o, s.mgr.GetCache())
	p.uses = newUses(log, s.deps(s.client), s.egressIPs, s.record)
	p.uses.report, p.uses.reportDeleted = p.report, p.reportDeleted
	return p, errors.Join(s.mgr.Add(p), s.mgr.Add(p.uses))
}

// pools adds the reconciler of pools, where EgressIPs are served.
func (s setup) pools() error {
	if s.egressIPs == nil {
		return nil
	}
	return s.reconciler("pools", func(mgr manager.Manager, d deps) error { return setupPools(mgr, d, s.options.PoolRetention) })
}

func (s setup) reconciler(name string, add func(manager.Manager, deps) error) error {
	if err := add(s.mgr, s.deps(s.client)); err != nil {
		return fmt.Errorf("set up reconciler %s: %w", name, err)
	}
	return nil
}

// deps is what a reconciler that writes by w uses.
func (s setup) deps(w client.Client) deps {
	return deps{
		cache: s.mgr.GetCache(), live: s.client, writer: client.WithFieldOwner(w, FieldManager),
		recorder: s.recorder, metrics: s.metrics, clock: clock.RealClock{},
		claimsWriter: s.claimsWriter, deposed: s.term.end, gate: s.gate, egressIPs: s.egressIPs,
	}
}

// newClient returns a client that reads from the API server, not from caches. Each request
// fails if there is no answer within the timeout.
func (s setup) newClient(timeout time.Duration) (client.Client, error) {
	cfg := rest.CopyConfig(s.cfg)
	cfg.Timeout = timeout
	return client.New(cfg, client.Options{Scheme: s.mgr.GetScheme(), Mapper: s.mgr.GetRESTMapper()})
}

// deps is what each reconciler uses.
type deps struct {
	cache    client.Reader
	live     client.Reader // asks the API server
	writer   client.Client
	recorder recorder
	metrics  *metrics
	clock    clock.Clock
	// claimsWriter is this controller's name in marks, and never used again. deposed
	// is called when another controller writes claims.
	claimsWriter string
	deposed      func(error)
	gate         *installGate
	egressIPs    *egressIPs
}

// controllerOptions make failed passes be retried soon, for as long as they fail.
func controllerOptions() controller.Options {
	const first, last = 50 * time.Millisecond, 10 * time.Second
	return controller.Options{
		MaxConcurrentReconciles: 1,
		RateLimiter:             workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](first, last),
	}
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
