package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/sync/errgroup"
	"k8s.io/utils/clock"

	"github.com/egressip-operator/egressip-operator/pkg/egress"
	"github.com/egressip-operator/egressip-operator/pkg/probe"
)

// DefaultProbePort is the UDP port of the hosts' probes.
const DefaultProbePort uint16 = probe.Port

// DefaultProbeInterval is the time between two probes to one host.
func DefaultProbeInterval() time.Duration { return probe.DefaultConfig().Interval }

// probeNumbers are the numbers of the probes that go with an interval.
func probeNumbers(interval time.Duration) probe.Config {
	return probe.DefaultConfig().WithInterval(interval)
}

// peers answers the probes of other hosts, and probes those on which the way of
// this node's pods depends. It exists so that a fallback to the next egress IP
// takes part of a second and needs no API server.
type peers struct {
	log   logr.Logger
	clock clock.Clock
	node  string
	// port is the UDP port of all hosts' responders.
	port   uint16
	config probe.Config
	// ready tells other hosts whether this one's data plane works.
	ready func() bool
	// changed is raised when a host has gone offline or come back.
	changed signal
	// voted is raised then, too: others wait for this host's word.
	voted   signal
	metrics *metrics

	wake signal
	mu   sync.Mutex
	want acquaintance
	// prober is the one that runs, if any.
	prober *probe.Prober
	// told are the hosts that were last logged as offline.
	told []string
}

// acquaintance is whom a host knows.
type acquaintance struct {
	hostIP netip.Addr
	// hosts may ask; peers are asked.
	hosts []netip.Addr
	peers []egress.Peer
}

// know takes what the last decision rests on. It does not block.
func (p *peers) know(a acquaintance) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if a.hostIP == p.want.hostIP && slices.Equal(a.hosts, p.want.hosts) && slices.Equal(a.peers, p.want.peers) {
		return
	}
	p.want = a
	p.wake.raise()
}

// running is the prober that runs, if any.
func (p *peers) running() *probe.Prober {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.prober
}

// reach is whom this host reaches.
func (p *peers) reach() egress.Reach {
	prober := p.running()
	if prober == nil {
		return egress.Reach{}
	}
	view := prober.View()
	return egress.Reach{Silent: view.Offline, Held: view.Held}
}

// contact tells how many of the hosts that this one watches have ever answered,
// and how many are reached now. Those that are of no use at present count too, as in
// their hold-down: nobody is cut off from a host that answers.
func (p *peers) contact() (watched, answering int) {
	prober := p.running()
	if prober == nil {
		return 0, 0
	}
	for _, h := range prober.Hosts() {
		if h.LastAlive.IsZero() {
			continue
		}
		watched++
		if h.Reached() {
			answering++
		}
	}
	return watched, answering
}

// maxBallot bounds the names that are told of, silent hosts first.
const maxBallot = 256

// ballot is what this host tells of those that it watches: of all whose health it
// knows, and which of them are silent. A host that is cut off tells nobody; one whose
// word reaches the API server is one voice among others.
func (p *peers) ballot() (watches, silent []string) {
	prober := p.running()
	if prober == nil {
		return nil, nil
	}
	held := prober.View().Held
	var answering []string
	for name, h := range prober.Hosts() {
		switch {
		case held[name]:
			answering = append(answering, name)
		case h.State == probe.Offline:
			silent = append(silent, name)
		case h.State == probe.Online, h.State == probe.Suspect:
			answering = append(answering, name)
		}
	}
	slices.Sort(silent)
	slices.Sort(answering)
	silent = silent[:min(len(silent), maxBallot)]
	watches = slices.Concat(silent, answering[:min(len(answering), maxBallot-len(silent))])
	slices.Sort(watches)
	return watches, silent
}

// run works until ctx ends. What fails is logged and tried again: without
// probes, the hosts' conditions in the API still tell who is online.
func (p *peers) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-p.wake:
		}
		if err := p.serve(ctx); err != nil && ctx.Err() == nil {
			p.log.Error(err, "cannot probe other hosts or answer them; tried again", "again", askAgain.String())
			t := p.clock.NewTimer(askAgain)
			select {
			case <-ctx.Done():
			case <-t.C():
			}
			t.Stop()
		}
		p.wake.raise()
	}
}

// serve works at one address of this host, until it changes or ctx ends.
func (p *peers) serve(ctx context.Context) error {
	p.mu.Lock()
	at := p.want.hostIP
	p.mu.Unlock()
	responder, err := probe.NewResponder(probe.ResponderConfig{Host: p.node, Addr: at, Port: p.port, Ready: p.ready})
	if err != nil {
		return fmt.Errorf("set up the answers to probes: %w", err)
	}
	var prober *probe.Prober
	prober, err = probe.NewProber(probe.ProberConfig{
		Config: p.config, Source: at, Port: p.port,
		OnChange: func() { p.tell(prober) },
	})
	if err != nil {
		return fmt.Errorf("set up the probes: %w", err)
	}
	p.mu.Lock()
	p.prober = prober
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		p.prober = nil
		p.mu.Unlock()
	}()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return responder.Run(ctx) })
	g.Go(func() error { return prober.Run(ctx) })
	g.Go(func() error { return p.follow(ctx, at, responder, prober) })
	if err := g.Wait(); !errors.Is(err, errMoved) {
		return err
	}
	return nil
}

var errMoved = errors.New("the host's address has changed")

// follow keeps targets and sources as known, while the host stays where it is.
func (p *peers) follow(ctx context.Context, at netip.Addr, r *probe.Responder, q *probe.Prober) error {
	for {
		p.mu.Lock()
		want := p.want
		p.mu.Unlock()
		if want.hostIP != at {
			return errMoved
		}
		r.SetSources(want.hosts)
		targets := make([]probe.Target, 0, len(want.peers))
		for _, peer := range want.peers {
			targets = append(targets, probe.Target{Name: peer.Name, Addr: peer.IP})
		}
		if err := q.SetTargets(targets); err != nil {
			p.log.Error(err, "cannot probe a host")
		}
		select {
		case <-ctx.Done():
			return nil
		case <-p.wake:
		}
	}
}

func (p *peers) tell(q *probe.Prober) {
	offline := slices.Sorted(maps.Keys(q.Offline()))
	p.mu.Lock()
	news := !slices.Equal(offline, p.told)
	p.told = offline
	p.mu.Unlock()
	if news {
		p.log.Info("probes tell which hosts are offline", "offline", strings.Join(offline, ","))
	}
	p.metrics.silentHosts.Set(float64(len(offline)))
	p.voted.raise()
	p.changed.raise()
}
