package agent

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/utils/clock"

	"github.com/egressip-operator/egressip-operator/pkg/egress"
	"github.com/egressip-operator/egressip-operator/pkg/online"
	"github.com/egressip-operator/egressip-operator/pkg/probe"
)

// DefaultProbePort is the UDP port of the hosts' probes.
const DefaultProbePort uint16 = probe.Port

// DefaultProbeInterval is the time between two probes to one host.
func DefaultProbeInterval() time.Duration { return probe.DefaultConfig().Interval }

// probeConfig returns the numbers of the probes that go with an interval.
func probeConfig(interval time.Duration) probe.Config {
	return probe.DefaultConfig().WithInterval(interval)
}

// peersConfig says how peers work.
type peersConfig struct {
	log   logr.Logger
	clock clock.Clock
	node  string
	// port is the UDP port of all hosts' responders.
	port  uint16
	probe probe.Config
	// ready reports to other hosts whether this one's data plane works.
	ready func() bool
	// changed is raised when a host has gone offline or come back.
	changed signal
	// voted is raised then, too: others wait for this host's ballot.
	voted   signal
	metrics *metrics
}

// peers answers the probes of other hosts, and probes the hosts on which the egress
// traffic of this node's pods depends. It exists so that a fallback to the next
// egress IP takes a fraction of a second and does not need the API server.
type peers struct {
	peersConfig

	runner *probe.Runner

	mu sync.Mutex
	// logged are the hosts that were last logged as offline.
	logged []string
	// witnessed are the hosts on whose health this one votes.
	witnessed []string
}

func newPeers(c peersConfig) (*peers, error) {
	p := &peers{peersConfig: c}
	var err error
	p.runner, err = probe.NewRunner(probe.RunnerConfig{
		Config: c.probe, Port: c.port, RetryInterval: retryInterval, Clock: c.clock,
		Responder: &probe.ResponderConfig{Host: c.node, Ready: c.ready},
		OnChange:  p.viewChanged,
		// Without probes, the hosts' conditions in the API still say who is online.
		OnError: func(err error) {
			c.log.Error(err, "cannot probe other hosts or answer their probes; trying again", "retryInterval", retryInterval.String())
		},
	})
	return p, err
}

// setTargets takes what the last decision rests on: the address of this host,
// the hosts that may probe it, those that it probes, and those of them on whose health
// it votes. It does not block.
func (p *peers) setTargets(hostIP netip.Addr, hosts []netip.Addr, probed []egress.Peer, witnessed []string) {
	p.mu.Lock()
	p.witnessed = witnessed
	p.mu.Unlock()
	targets := probe.Targets{Self: hostIP, Answer: hosts}
	for _, peer := range probed {
		targets.Probe = append(targets.Probe, probe.Target{Name: peer.Name, Addr: peer.IP})
	}
	if err := p.runner.SetTargets(targets); err != nil {
		p.log.Error(err, "cannot probe a host")
	}
}

// reach is which hosts this one reaches.
func (p *peers) reach() egress.Reach {
	snapshot, _ := p.runner.Snapshot()
	return egress.Reach{Silent: snapshot.View.Offline, Held: snapshot.View.Held}
}

// contact returns how many of the hosts that this one watches have ever answered,
// and how many of those are reached now.
func (p *peers) contact() (watched, answering int) {
	snapshot, _ := p.runner.Snapshot()
	return online.CountReached(peerHealths(snapshot))
}

// ballot names the silent hosts, of those whose witness this host is.
func (p *peers) ballot() []string {
	snapshot, _ := p.runner.Snapshot()
	p.mu.Lock()
	defer p.mu.Unlock()
	return online.BallotOf(p.witnessed, peerHealths(snapshot))
}

// peerHealths converts what the probes found.
func peerHealths(s probe.Snapshot) []online.PeerHealth {
	healths := make([]online.PeerHealth, 0, len(s.Hosts))
	for name, h := range s.Hosts {
		healths = append(healths, online.PeerHealth{
			Name: name, State: peerState(h, s.View.Held[name]), Heard: !h.LastAlive.IsZero(), Reached: h.Reached(),
		})
	}
	return healths
}

func peerState(h probe.Health, held bool) online.PeerState {
	switch {
	case held, h.State == probe.Online, h.State == probe.Suspect:
		return online.PeerAnswers
	case h.State == probe.Offline:
		return online.PeerSilent
	default:
		return online.PeerUnknown
	}
}

// run works until ctx ends.
func (p *peers) run(ctx context.Context) error {
	p.runner.Run(ctx)
	return nil
}

// viewChanged reports which hosts are offline now.
func (p *peers) viewChanged() {
	snapshot, _ := p.runner.Snapshot()
	offline := slices.Sorted(maps.Keys(snapshot.View.Offline))
	p.mu.Lock()
	news := !slices.Equal(offline, p.logged)
	p.logged = offline
	p.mu.Unlock()
	if news {
		p.log.Info("the hosts that probes consider offline have changed", "offline", strings.Join(offline, ","))
	}
	p.metrics.silentHosts.Set(float64(len(offline)))
	p.voted.raise()
	p.changed.raise()
}
