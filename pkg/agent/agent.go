package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	ctrlmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	ovnv1 "github.com/egressip-operator/egressip-operator/api/ovn/v1"
	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/apiconn"
	"github.com/egressip-operator/egressip-operator/internal/egressips"
	"github.com/egressip-operator/egressip-operator/internal/endpoint"
	"github.com/egressip-operator/egressip-operator/pkg/cri"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane"
)

// Run serves the node until ctx ends. It returns an error where it cannot start;
// afterwards it keeps working whatever fails, and reports it in logs, status,
// metrics and health.
func Run(ctx context.Context, cfg *rest.Config, o Options) (err error) {
	if err := o.Validate(); err != nil {
		return err
	}
	config := o.Kernel.config()
	config.ProbePort, config.ResetConnections = o.ProbePort, o.ResetConnections
	config.ARPProbe, config.ARPIgnore, config.AnnounceEvery = dataplane.ARPProbe(o.ARPProbe), o.ARPIgnore, o.AnnounceInterval
	config.SNATPorts, config.AwayAfter = dataplane.SNATPorts(o.SNATPorts), o.AwayAfter
	config.Interfaces, config.GuardFilter = o.interfaces(), o.GuardFilter
	if o.AwayAfter == 0 {
		config.AwayAfter = -1 // never
	}
	dp, err := dataplane.New(config)
	if err != nil {
		return fmt.Errorf("open the kernel's interfaces: %w", err)
	}
	defer func() { err = errors.Join(err, dp.Close()) }()
	if swept, err := dp.SweepAfterBoot(); err != nil {
		return fmt.Errorf("remove egress IPs from before the boot: %w", err)
	} else if swept > 0 {
		ctrl.LoggerFrom(ctx).Info("removed egress IPs that this machine booted with: other hosts may have them by now", "count", swept)
	}
	return serve(ctx, cfg, o, dp, ctrlmetrics.Registry)
}

// agent is what serve wires together.
type agent struct {
	log     logr.Logger
	options Options
	metrics *metrics

	cache     cache.Cache
	health    *health
	objects   *caches
	publisher *publisher
	loop      *loop
	kernel    applier
	// sandboxes and owner are nil where the options ask for none.
	sandboxes *cri.Source
	owner     *owner
}

// serve is Run on the given kernel, with metrics in the given registry.
func serve(ctx context.Context, cfg *rest.Config, o Options, k applier, registry prometheus.Registerer) error {
	log := ctrl.LoggerFrom(ctx).WithName("agent").WithValues("node", o.NodeName)
	cfg = rest.AddUserAgent(rest.CopyConfig(cfg), FieldManager)
	apiconn.BoundDials(cfg)
	mgr, err := newManager(cfg, o, log)
	if err != nil {
		return err
	}
	m := newMetrics(o.Version)
	m.addTraffic(log, k.OverlayTraffic)
	unregister, err := m.Register(registry)
	defer unregister()
	if err != nil {
		return fmt.Errorf("register metrics: %w", err)
	}
	a := &agent{log: log, options: o, metrics: m, kernel: k}
	if err := a.wire(cfg, mgr, k); err != nil {
		return err
	}
	if err := a.serveEndpoints(mgr); err != nil {
		return err
	}
	// The health endpoints answer while this waits for the API server.
	if err := mgr.Add(everywhere(a.run)); err != nil {
		return fmt.Errorf("set up the agent: %w", err)
	}
	log.Info("starting", "version", o.Version, "resync", o.ResyncPeriod.String(), "strict", o.Strict)
	if err := mgr.Start(ctx); err != nil {
		return fmt.Errorf("run the agent: %w", err)
	}
	if a.owner.uninstalled() {
		return a.loop.giveUp(context.WithoutCancel(ctx))
	}
	log.Info("stopped; the kernel stays as it is, so that traffic flows on")
	return nil
}

// newManager makes what holds the caches and serves the metrics.
func newManager(cfg *rest.Config, o Options, log logr.Logger) (manager.Manager, error) {
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1.AddToScheme(scheme), ovnv1.AddToScheme(scheme)); err != nil {
		return nil, fmt.Errorf("register the API's kinds: %w", err)
	}
	mgr, err := manager.New(cfg, manager.Options{
		Scheme:                 scheme,
		Logger:                 log,
		MapperProvider:         newMapper,
		Cache:                  cacheOptions(o.NodeName, o.DaemonSet),
		Metrics:                metricsserver.Options{BindAddress: "0"},
		HealthProbeBindAddress: "0", // its answers leave the reason out
	})
	if err != nil {
		return nil, fmt.Errorf("set up the agent: %w", err)
	}
	return mgr, nil
}

// wire makes the parts of the agent and connects them. It starts nothing.
func (a *agent) wire(cfg *rest.Config, mgr manager.Manager, k applier) error {
	writer, err := client.New(cfg, client.Options{Scheme: mgr.GetScheme(), Mapper: mgr.GetRESTMapper(), HTTPClient: mgr.GetHTTPClient()})
	if err != nil {
		return fmt.Errorf("set up the client: %w", err)
	}
	a.cache = mgr.GetCache()
	a.health = &health{clock: clock.RealClock{}, waiting: "the API server"}
	a.objects = &caches{cache: a.cache, log: a.log, options: a.options, changed: newSignal()}
	if a.options.EgressIPs {
		a.objects.egressIPs = egressips.New(egressips.Config{
			Live: writer, Cache: a.cache, Log: a.log.WithName("egressips"), Clock: clock.RealClock{},
			Also: []client.Object{&corev1.Namespace{}}, Handler: a.objects.handler(), Known: a.objects.changed.raise,
		})
	}
	a.publisher = &publisher{
		log: a.log, clock: clock.RealClock{}, node: a.options.NodeName, version: a.options.Version, metrics: a.metrics, wake: newSignal(),
		cached: a.objects.ownHostSubnet,
		apply:  serverSideApply(writer, a.log),
	}
	a.loop = &loop{
		log: a.log, clock: clock.RealClock{}, applier: k, metrics: a.metrics, health: a.health, resync: a.options.ResyncPeriod,
		gather: a.objects.gather, publish: a.publisher.publish,
		objects: a.objects.changed, drift: newSignal(),
	}
	if a.options.ProbePort != 0 {
		if err := a.wireProbes(cfg, mgr, k); err != nil {
			return err
		}
	}
	if socket := a.options.CRISocket; socket != "" && socket != cri.None {
		a.sandboxes = cri.New(cri.Config{
			Socket: socket, Root: a.options.HostRun, Changed: a.objects.changed.raise,
			Log: a.log.WithName("runtime"), Clock: clock.RealClock{},
		})
		a.objects.sandboxes = a.sandboxes.Pods
	}
	if a.options.DaemonSet.Name != "" {
		a.owner = &owner{log: a.log, key: a.options.DaemonSet}
	}
	return nil
}

// wireProbes makes what probes other hosts, and what finds out whether this one is
// cut off.
func (a *agent) wireProbes(cfg *rest.Config, mgr manager.Manager, k applier) error {
	peers, err := newPeers(peersConfig{
		log: a.log, clock: clock.RealClock{}, node: a.options.NodeName, port: a.options.ProbePort,
		probe: probeConfig(a.options.ProbeInterval), metrics: a.metrics,
		ready: a.health.serving, answer: k.AnswerProbes, changed: a.objects.changed, voted: a.publisher.wake,
	})
	if err != nil {
		return err
	}
	ask, err := apiAsker(cfg, mgr.GetScheme(), mgr.GetRESTMapper(), a.objects)
	if err != nil {
		return err
	}
	a.publisher.ballot, a.publisher.answers = peers.ballot, peers.answers
	a.loop.peers, a.loop.unreached = peers, peers.unreached
	a.loop.isolation = &isolation{
		log: a.log, clock: clock.RealClock{}, after: a.options.WithdrawAfter, metrics: a.metrics,
		contact: peers.contact, ask: ask, changed: a.objects.changed,
	}
	return nil
}

// serveEndpoints adds those for health and metrics that the options ask for.
func (a *agent) serveEndpoints(mgr manager.Manager) error {
	if !endpoint.None(a.options.HealthAddress) {
		if err := mgr.Add(endpoint.Health(a.log, a.options.HealthAddress, a.health.handler())); err != nil {
			return fmt.Errorf("set up the health endpoints: %w", err)
		}
	}
	if endpoint.None(a.options.MetricsAddress) {
		return nil
	}
	server, err := endpoint.Metrics(endpoint.Config{
		Log: a.log, Address: a.options.MetricsAddress, Secure: a.options.MetricsSecure, API: mgr.GetConfig(), Requests: mgr.GetHTTPClient(),
		Guarded: a.guarded(),
	})
	if err != nil {
		return err
	}
	if err := mgr.Add(server); err != nil {
		return fmt.Errorf("set up the metrics endpoint: %w", err)
	}
	return nil
}

// guarded is what is served besides metrics to clients that may get it.
func (a *agent) guarded() (list []endpoint.Guarded) {
	if a.options.Profiling {
		list = append(list, endpoint.Profiles())
	}
	if kernel, ok := a.kernel.(looker); ok {
		list = append(list, endpoint.Guarded{Path: LivePath, Handler: newLooks(a.log, clock.RealClock{}, a.options.NodeName, kernel)})
	}
	return list
}

// run fills the caches, and then works until ctx ends.
func (a *agent) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		a.stayPresent(ctx)
		return nil
	})
	if a.objects.egressIPs != nil {
		g.Go(func() error { return a.objects.egressIPs.Start(ctx) })
	}
	g.Go(func() error { return a.work(ctx) })
	return g.Wait()
}

// work fills the caches, and serves the node.
func (a *agent) work(ctx context.Context) error {
	if err := a.objects.start(ctx, func(what string) {
		a.log.V(1).Info("waiting", "for", what)
		a.health.waitsFor(what)
	}); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	if a.owner != nil {
		g.Go(func() error {
			if err := a.owner.watch(ctx, a.cache); err != nil {
				a.log.Error(err, "the end of this agent counts as an upgrade")
			}
			return nil
		})
	}
	if a.sandboxes != nil {
		g.Go(func() error { return a.sandboxes.Run(ctx) })
		a.health.waitsFor("the container runtime")
		// A first pass without it would remove what the former agent knew of
		// new pods.
		select {
		case <-a.sandboxes.Tried():
		case <-ctx.Done():
		}
	}
	g.Go(func() error { return a.loop.run(ctx) })
	g.Go(func() error { return a.publisher.run(ctx) })
	if a.loop.peers != nil {
		g.Go(func() error { return a.loop.peers.run(ctx) })
		g.Go(func() error { return a.loop.isolation.run(ctx) })
	}
	return g.Wait()
}

// stayPresent keeps unknown pods back for as long as there is an agent, also one that
// waits and does not know any pod: what an agent before this one began does not end
// meanwhile.
func (a *agent) stayPresent(ctx context.Context) {
	var last lastError
	for ctx.Err() == nil {
		if err := a.kernel.StayPresent(); last.isNews(err) {
			a.log.Error(err, "cannot keep unknown pods back; trying again", "retryInterval", stayInterval.String())
		}
		t := time.NewTimer(stayInterval)
		select {
		case <-ctx.Done():
		case <-t.C:
		}
		t.Stop()
	}
}

// lastError is the text of the last error of something that is tried again and again; ""
// if it succeeded.
type lastError string

// isNews takes the next outcome, and reports whether it must be logged: an error that is
// not the same as before.
func (l *lastError) isNews(err error) bool {
	before := *l
	*l = ""
	if err != nil {
		*l = lastError(err.Error())
	}
	return err != nil && *l != before
}

// stayInterval is how often the agent's presence is looked after: often enough for the
// least Options.AwayAfter.
const stayInterval = minAwayAfter / 4

// everywhere is a runnable that needs no leader election.
type everywhere func(context.Context) error

func (f everywhere) Start(ctx context.Context) error { return f(ctx) }

func (everywhere) NeedLeaderElection() bool { return false }
