package controllers

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
	"github.com/egressip-operator/egressip-operator/pkg/online"
	"github.com/egressip-operator/egressip-operator/pkg/probe"
)

const (
	// refreshTargetsEvery is how often the probe targets are refreshed.
	refreshTargetsEvery = time.Second
	// retryProbesAfter is the pause after probes that failed.
	retryProbesAfter = 5 * time.Second
)

// probes continuously health-checks egress hosts and their witnesses. Each controller does so, whether it
// leads or not: one that takes over because the leader's node died has seen the hosts
// alive that died with it.
type probes struct {
	log    logr.Logger
	clock  clock.WithTicker
	cache  client.Reader
	synced func(context.Context) bool
	source netip.Addr
	runner *probe.Runner
	// changed receives an event when a host fell silent or came back.
	changed chan event.GenericEvent
	// memo belongs to refreshTargets.
	memo egress.Memo
}

func newProbes(log logr.Logger, o Options, cache client.Reader, synced func(context.Context) bool, outcome func(probe.Outcome, time.Duration)) (*probes, error) {
	p := &probes{
		log: log.WithName("probes"), clock: clock.RealClock{}, cache: cache, synced: synced, source: o.ProbeSource,
		changed: make(chan event.GenericEvent, 1),
	}
	var logFirst sync.Once
	runner, err := probe.NewRunner(probe.RunnerConfig{
		Config: probe.DefaultConfig().WithInterval(o.ProbeInterval), Port: o.ProbePort, Device: probe.OverlayDevice,
		RetryInterval: retryProbesAfter, Clock: p.clock,
		OnChange: p.requestPass, OnOutcome: outcome,
		OnError: func(err error) {
			logFirst.Do(func() {
				p.log.Error(err, "cannot probe hosts; retrying, and meanwhile only Nodes say which hosts are online: "+
					"the controller needs hostNetwork to probe")
			})
		},
	})
	if err != nil {
		return nil, err
	}
	p.runner = runner
	return p, nil
}

// NeedLeaderElection is false: see probes.
func (*probes) NeedLeaderElection() bool { return false }

// Start probes until ctx ends. Failures are logged and retried: without probes, the
// Nodes alone say which hosts are online.
func (p *probes) Start(ctx context.Context) error {
	if !p.synced(ctx) {
		return nil
	}
	var group sync.WaitGroup
	group.Go(func() { p.runner.Run(ctx) })
	p.refreshTargets(ctx)
	group.Wait()
	return nil
}

// refreshTargets keeps the targets up to date until ctx ends.
func (p *probes) refreshTargets(ctx context.Context) {
	ticker := p.clock.NewTicker(refreshTargetsEvery)
	defer ticker.Stop()
	for {
		if err := p.setTargets(ctx); err != nil && ctx.Err() == nil {
			p.log.Error(err, "cannot refresh the probe targets")
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C():
		}
	}
}

// setTargets sets the targets to the egress hosts and their witnesses, whose votes are
// void while they do not answer.
func (p *probes) setTargets(ctx context.Context) error {
	var hosts v1.HostSubnetList
	var namespaces v1.NetNamespaceList
	if err := errors.Join(p.cache.List(ctx, &hosts), p.cache.List(ctx, &namespaces)); err != nil {
		return fmt.Errorf("read the caches: %w", err)
	}
	cluster, _ := p.memo.Snapshot(egress.Objects{HostSubnets: hosts.Items, NetNamespaces: namespaces.Items})
	targets := probe.Targets{Self: sourceOf(hosts.Items, p.source)}
	for _, peer := range egress.ProbedHosts(cluster, p.memo.Resolve(cluster), targets.Self) {
		targets.Probe = append(targets.Probe, probe.Target{Name: peer.Name, Addr: peer.IP, Overlay: peer.Overlay})
	}
	if err := p.runner.SetTargets(targets); err != nil {
		return fmt.Errorf("set the probe targets: %w", err)
	}
	return nil
}

// sourceOf is the address by which hosts know the node with an address: its hostIP, which is
// one of IPv4 where the node's first address is one of IPv6 and it has both.
func sourceOf(hosts []v1.HostSubnet, given netip.Addr) netip.Addr {
	written := given.String()
	for i := range hosts {
		h := &hosts[i]
		if !hasAddress(h, written) {
			continue
		}
		if ip, err := netip.ParseAddr(h.HostIP); err == nil {
			return ip
		}
	}
	return given
}

// hasAddress reports whether a host has an address, as it is written: as its hostIP, or as the
// other one that its Node lists.
func hasAddress(h *v1.HostSubnet, written string) bool {
	return h.HostIP == written || slices.Contains(h.Status.HostIPs, written)
}

// requestPass requests a pass.
func (p *probes) requestPass() {
	select {
	case p.changed <- event.GenericEvent{Object: &v1.HostSubnet{}}:
	default:
	}
}

// states are the results for each host that is probed.
func (p *probes) states() probeStates {
	snapshot, running := p.runner.Snapshot()
	if !running {
		return nil
	}
	states := make(probeStates, len(snapshot.Hosts))
	for name, h := range snapshot.Hosts {
		states[name] = online.Probed{State: probeState(h, snapshot.View.Held[name], snapshot.View.Isolated), Missed: !h.Reached()}
	}
	return states
}

// probeState is a host's health as evidence.
func probeState(h probe.Health, heldDown, isolated bool) online.ProbeState {
	switch h.State {
	case probe.Online, probe.Suspect:
		return online.ProbeAnswers
	case probe.Unknown:
		return online.ProbeUndecided
	case probe.Offline:
	}
	switch {
	case heldDown:
		return online.ProbeHeldDown
	case h.Returning():
		return online.ProbeReturning
	case h.LastAlive.IsZero():
		// If a firewall drops probes, no host has died.
		return online.ProbeNeverAnswered
	case h.Cause == probe.NoAgent:
		return online.ProbeNoAgent
	case h.Cause == probe.NotReady:
		return online.ProbeNotServing
	case isolated:
		return online.ProbeCutOff
	default:
		return online.ProbeSilent
	}
}
