package agent

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/utils/clock"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane"
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
	clock clock.WithTicker
	node  string
	// port is the UDP port of all hosts' responders.
	port  uint16
	probe probe.Config
	// ready reports to other hosts whether this one's data plane works.
	ready func() bool
	// answer sets what the kernel answers to probes that come over the overlay.
	answer func(dataplane.Answer) error
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

	runner   *probe.Runner
	instance uint64

	mu sync.Mutex
	// logged are the hosts that were last logged as offline.
	logged []string
	// witnessed are the hosts on whose health this one votes.
	witnessed []string
	// hostIP is the address of this host, answered what the kernel answers to probes as
	// of answeredAt; it does if that is not zero.
	hostIP     netip.Addr
	answered   dataplane.Answer
	answeredAt time.Time
}

func newPeers(c peersConfig) (*peers, error) {
	var instance [8]byte
	if _, err := rand.Read(instance[:]); err != nil {
		return nil, fmt.Errorf("read random numbers: %w", err)
	}
	p := &peers{peersConfig: c, instance: binary.NativeEndian.Uint64(instance[:])}
	var err error
	p.runner, err = probe.NewRunner(probe.RunnerConfig{
		Config: c.probe, Port: c.port, Device: probe.OverlayDevice, RetryInterval: retryInterval, Clock: c.clock,
		Responder: &probe.ResponderConfig{Host: c.node, Ready: c.ready},
		OnChange:  p.viewChanged, OnOutcome: c.metrics.probed,
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
	p.witnessed, p.hostIP = witnessed, hostIP
	p.mu.Unlock()
	targets := probe.Targets{Self: hostIP, Answer: hosts}
	for _, peer := range probed {
		targets.Probe = append(targets.Probe, probe.Target{Name: peer.Name, Addr: peer.IP, Overlay: peer.Overlay})
	}
	_ = p.renewAnswer() // before the next status; keepAnswering logs the error
	if err := p.runner.SetTargets(targets); err != nil {
		p.log.Error(err, "cannot probe a host")
	}
}

// reach is which hosts this one reaches.
func (p *peers) reach() egress.Reach {
	snapshot, _ := p.runner.Snapshot()
	return egress.Reach{Silent: snapshot.View.Offline, Held: snapshot.View.Held}
}

// unreachedAfter is for how long a host must be silent before it counts as not reached:
// by then the API says of a host that has died that it is not online.
const unreachedAfter = 10 * time.Second

// unreached names the hosts that have been silent for a while, in order.
func (p *peers) unreached() []string {
	snapshot, _ := p.runner.Snapshot()
	return silentForLong(snapshot, p.clock.Now())
}

func silentForLong(s probe.Snapshot, now time.Time) []string {
	var names []string
	for name, h := range s.Hosts {
		if h.State == probe.Offline && h.Cause == probe.Silent && !s.View.Held[name] && now.Sub(h.OfflineSince) >= unreachedAfter {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
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
	var group sync.WaitGroup
	group.Go(func() { p.keepAnswering(ctx) })
	p.runner.Run(ctx)
	group.Wait()
	return nil
}

// The pace at which the kernel is told what to answer.
const (
	// answerEvery is how soon a change of what this host can do is in the answers, and
	// renewEvery how often they are renewed without one.
	answerEvery = 50 * time.Millisecond
	renewEvery  = time.Second
	// answerValid is for how long the kernel answers for an agent that is silent. After
	// that it says so.
	answerValid = 5 * time.Second
)

// keepAnswering has the kernel answer the probes that come over the overlay, until ctx
// ends. What the agent said last holds for answerValid.
func (p *peers) keepAnswering(ctx context.Context) {
	ticker := p.clock.NewTicker(answerEvery)
	defer ticker.Stop()
	var last lastError
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C():
		}
		if err := p.renewAnswer(); last.isNews(err) {
			p.log.Error(err, "probes that come over the overlay are not answered: other hosts ask at the port of probes instead")
		}
	}
}

// renewAnswer sets what the kernel answers if that has changed, or is not valid for much
// longer.
func (p *peers) renewAnswer() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.hostIP.IsValid() {
		return nil // the first pass is not over
	}
	want := dataplane.Answer{
		HostIP: p.hostIP, Instance: p.instance, Host: probe.HostHash(p.node), Ready: p.ready(), Valid: answerValid,
	}
	now := p.clock.Now()
	if want == p.answered && !p.answeredAt.IsZero() && now.Sub(p.answeredAt) < renewEvery {
		return nil
	}
	did := !p.answeredAt.IsZero()
	err := p.answer(want)
	p.answered, p.answeredAt = want, now
	if err != nil {
		p.answeredAt = time.Time{}
	}
	if does := err == nil; does != did {
		p.voted.raise() // it must be in the status
	}
	return err
}

// answers reports whether the kernel answers the probes that come over the overlay.
func (p *peers) answers() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.answeredAt.IsZero()
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
