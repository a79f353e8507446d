package agent

import (
	"context"
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	ctrlmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/apiconn"
	"github.com/egressip-operator/egressip-operator/pkg/cri"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane"
)

// Run serves the node until ctx ends. It returns an error where it cannot
// begin; afterwards it works on through all trouble, and tells of it in logs,
// status, metrics and health.
func Run(ctx context.Context, cfg *rest.Config, o Options) (err error) {
	if err := o.Validate(); err != nil {
		return err
	}
	config := o.Kernel.config()
	config.ProbePort, config.ResetConnections = o.ProbePort, o.ResetConnections
	dp, err := dataplane.New(config)
	if err != nil {
		return fmt.Errorf("open the kernel's interfaces: %w", err)
	}
	defer func() { err = errors.Join(err, dp.Close()) }()
	if swept, err := dp.SweepAfterBoot(); err != nil {
		return fmt.Errorf("take off egress IPs of before the boot: %w", err)
	} else if swept > 0 {
		ctrl.LoggerFrom(ctx).Info("took egress IPs off that this machine came up with: others may bear them by now", "count", swept)
	}
	return serve(ctx, cfg, o, dp, ctrlmetrics.Registry)
}

// serve is Run on the given kernel, with metrics in the given registry.
func serve(ctx context.Context, cfg *rest.Config, o Options, k kernel, registry prometheus.Registerer) error {
	log := ctrl.LoggerFrom(ctx).WithName("agent").WithValues("node", o.NodeName)
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1.AddToScheme(scheme)); err != nil {
		return fmt.Errorf("know the API's kinds: %w", err)
	}
	cfg = rest.AddUserAgent(rest.CopyConfig(cfg), FieldManager)
	apiconn.BoundDials(cfg)
	mgr, err := manager.New(cfg, manager.Options{
		Scheme:                 scheme,
		Logger:                 log,
		MapperProvider:         newMapper,
		Cache:                  cacheOptions(o.NodeName, o.DaemonSet),
		Metrics:                metricsserver.Options{BindAddress: o.MetricsAddress},
		HealthProbeBindAddress: "0", // its answers keep the reason to themselves
	})
	if err != nil {
		return fmt.Errorf("set up the agent: %w", err)
	}
	writer, err := client.New(cfg, client.Options{Scheme: scheme, Mapper: mgr.GetRESTMapper(), HTTPClient: mgr.GetHTTPClient()})
	if err != nil {
		return fmt.Errorf("set up the client: %w", err)
	}

	m := newMetrics(o.Version)
	unregister, err := m.register(registry)
	defer unregister()
	if err != nil {
		return fmt.Errorf("register metrics: %w", err)
	}
	h := &health{clock: clock.RealClock{}, waiting: "the API server"}
	if o.HealthAddress != "" && o.HealthAddress != "0" {
		server, err := h.server(o.HealthAddress)
		if err != nil {
			return err
		}
		if err := mgr.Add(server); err != nil {
			return fmt.Errorf("set up the health endpoints: %w", err)
		}
	}

	objects := &caches{cache: mgr.GetCache(), log: log, options: o, changed: newSignal()}
	p := &publisher{
		log: log, clock: clock.RealClock{}, node: o.NodeName, version: o.Version, metrics: m, wake: newSignal(),
		cached: objects.ownHostSubnet,
		apply:  serverSideApply(writer),
	}
	l := &loop{
		log: log, clock: clock.RealClock{}, kernel: k, metrics: m, health: h, resync: o.ResyncPeriod,
		gather: objects.gather, publish: p.publish,
		objects: objects.changed, drift: newSignal(),
	}
	if o.ProbePort != 0 {
		l.peers, err = newPeers(peersConfig{
			log: log, clock: clock.RealClock{}, node: o.NodeName, port: o.ProbePort, probe: probeConfig(o.ProbeInterval), metrics: m,
			ready: h.serving, changed: objects.changed, voted: p.wake,
		})
		if err != nil {
			return err
		}
		p.ballot = l.peers.ballot
		ask, err := apiAsker(cfg, scheme, mgr.GetRESTMapper(), o.NodeName, objects.ownHostSubnet)
		if err != nil {
			return err
		}
		l.isolation = &isolation{
			log: log, clock: clock.RealClock{}, after: o.WithdrawAfter, metrics: m,
			contact: l.peers.contact, ask: ask, changed: objects.changed,
		}
	}
	var sandboxes *cri.Source
	if o.CRISocket != "" && o.CRISocket != cri.None {
		sandboxes = cri.New(cri.Config{
			Socket: o.CRISocket, Root: o.HostRun, Changed: objects.changed.raise,
			Log: log.WithName("runtime"), Clock: clock.RealClock{},
		})
		objects.sandboxes = sandboxes.Pods
	}
	var own *owner
	if o.DaemonSet.Name != "" {
		own = &owner{log: log, key: o.DaemonSet}
	}
	// The health endpoints answer while this waits for the API server.
	err = mgr.Add(everywhere(func(ctx context.Context) error {
		if err := objects.start(ctx, func(what string) {
			log.V(1).Info("waiting", "for", what)
			h.waitsFor(what)
		}); err != nil {
			return err
		}
		g, ctx := errgroup.WithContext(ctx)
		if own != nil {
			g.Go(func() error {
				if err := own.watch(ctx, mgr.GetCache()); err != nil {
					log.Error(err, "the end of this agent counts as an upgrade")
				}
				return nil
			})
		}
		if sandboxes != nil {
			g.Go(func() error { return sandboxes.Run(ctx) })
			h.waitsFor("the container runtime")
			// A first pass without it would take away what the former agent
			// knew of new pods.
			select {
			case <-sandboxes.Tried():
			case <-ctx.Done():
			}
		}
		g.Go(func() error { return l.run(ctx) })
		g.Go(func() error { return p.run(ctx) })
		if l.peers != nil {
			g.Go(func() error { return l.peers.run(ctx) })
			g.Go(func() error { return l.isolation.run(ctx) })
		}
		return g.Wait()
	}))
	if err != nil {
		return fmt.Errorf("set up the agent: %w", err)
	}
	log.Info("starting", "version", o.Version, "resync", o.ResyncPeriod.String(), "strict", o.Strict)
	if err := mgr.Start(ctx); err != nil {
		return fmt.Errorf("run the agent: %w", err)
	}
	if own.uninstalled() {
		return l.giveUp(context.WithoutCancel(ctx))
	}
	log.Info("stopped; the kernel stays as it is, so that traffic flows on")
	return nil
}

// everywhere is a runnable that needs no leader election.
type everywhere func(context.Context) error

func (f everywhere) Start(ctx context.Context) error { return f(ctx) }

func (everywhere) NeedLeaderElection() bool { return false }
