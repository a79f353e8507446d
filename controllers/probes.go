package controllers

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
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
	// lookAgain is how often it is looked up which hosts are to be probed.
	lookAgain = time.Second
	// probeAgain is the pause before probes that could not begin are tried again.
	probeAgain = 5 * time.Second
)

// probes asks the egress hosts, all the time, whether they are there. Each
// controller does so, whether it leads or not: one that begins to lead because
// the leader's node died has seen other hosts alive that died with it.
type probes struct {
	log    logr.Logger
	clock  clock.WithTicker
	cache  client.Reader
	synced func(context.Context) bool
	config probe.Config
	port   uint16
	source netip.Addr
	// changed gets an event when a host fell silent or came back.
	changed chan event.GenericEvent

	mu     sync.Mutex
	prober *probe.Prober // nil while none runs
}

// newProbes returns nil where the options ask for none.
func newProbes(log logr.Logger, o Options, cache client.Reader, synced func(context.Context) bool) *probes {
	if o.ProbePort == 0 {
		return nil
	}
	return &probes{
		log: log.WithName("probes"), clock: clock.RealClock{}, cache: cache, synced: synced,
		config: probe.DefaultConfig().WithInterval(o.ProbeInterval), port: o.ProbePort, source: o.ProbeSource,
		changed: make(chan event.GenericEvent, 1),
	}
}

// NeedLeaderElection is false: see probes.
func (*probes) NeedLeaderElection() bool { return false }

// Start probes until ctx ends. What fails is logged and tried again: without
// probes, the Nodes tell who is online.
func (p *probes) Start(ctx context.Context) error {
	if !p.synced(ctx) {
		return nil
	}
	for failures := 0; ctx.Err() == nil; failures++ {
		err := p.probe(ctx)
		if err == nil || ctx.Err() != nil {
			continue
		}
		if failures == 0 {
			p.log.Error(err, "cannot probe hosts; it is tried again, and Nodes tell meanwhile who is online: "+
				"the controller must be in the host's network to probe")
		}
		t := p.clock.NewTimer(probeAgain)
		select {
		case <-ctx.Done():
		case <-t.C():
		}
		t.Stop()
	}
	return nil
}

func (p *probes) probe(ctx context.Context) error {
	prober, err := probe.NewProber(probe.ProberConfig{Config: p.config, Source: p.source, Port: p.port, OnChange: p.tell})
	if err != nil {
		return fmt.Errorf("set up the probes: %w", err)
	}
	if err := p.aim(ctx, prober); err != nil {
		return err
	}
	p.mu.Lock()
	p.prober = prober
	p.mu.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	group.Go(func() { p.follow(ctx, prober) })
	err = prober.Run(ctx)
	cancel()
	group.Wait()
	p.mu.Lock()
	p.prober = nil
	p.mu.Unlock()
	p.tell()
	return err
}

// follow keeps the targets as the objects say.
func (p *probes) follow(ctx context.Context, prober *probe.Prober) {
	ticker := p.clock.NewTicker(lookAgain)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C():
			if err := p.aim(ctx, prober); err != nil && ctx.Err() == nil {
				p.log.Error(err, "cannot tell which hosts are to be probed")
			}
		}
	}
}

// aim sets the targets.
func (p *probes) aim(ctx context.Context, prober *probe.Prober) error {
	var hosts v1.HostSubnetList
	var namespaces v1.NetNamespaceList
	if err := errors.Join(p.cache.List(ctx, &hosts), p.cache.List(ctx, &namespaces)); err != nil {
		return fmt.Errorf("read the caches: %w", err)
	}
	cluster, _ := egress.Snapshot(egress.Objects{HostSubnets: hosts.Items, NetNamespaces: namespaces.Items})
	var targets []probe.Target
	for _, peer := range egress.Bearers(cluster, egress.Resolve(cluster)) {
		targets = append(targets, probe.Target{Name: peer.Name, Addr: peer.IP})
	}
	if err := prober.SetTargets(targets); err != nil {
		return fmt.Errorf("set the hosts to be probed: %w", err)
	}
	return nil
}

// tell asks for a pass.
func (p *probes) tell() {
	select {
	case p.changed <- event.GenericEvent{Object: &v1.HostSubnet{}}:
	default:
	}
}

// words are what the probes say of each host that is probed.
func (p *probes) words() map[string]online.ProbeState {
	if p == nil {
		return nil
	}
	p.mu.Lock()
	prober := p.prober
	p.mu.Unlock()
	if prober == nil {
		return nil
	}
	view := prober.View()
	hosts := prober.Hosts()
	words := make(map[string]online.ProbeState, len(hosts))
	for name, h := range hosts {
		words[name] = wordOf(h, view.Held[name], view.Isolated)
	}
	return words
}

// wordOf puts a host's health into the words of the brain.
func wordOf(h probe.Health, held, isolated bool) online.ProbeState {
	switch h.State {
	case probe.Online, probe.Suspect:
		return online.ProbeAnswers
	case probe.Unknown:
		return online.ProbeUndecided
	case probe.Offline:
	}
	switch {
	case held:
		return online.ProbeHeldDown
	case h.Returning():
		return online.ProbeReturning
	case h.LastAlive.IsZero():
		// Where a firewall lets no probes through, nobody has died.
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
