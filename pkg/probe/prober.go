package probe

import (
	"context"
	crand "crypto/rand"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"
)

// ProberConfig says how a Prober works.
type ProberConfig struct {
	Config Config
	// Source is the own host's address: responders answer only hosts. Targets must be of its
	// family. The zero value leaves the choice to the kernel.
	Source netip.Addr
	// Port is the responders' UDP port; 0 is Port.
	Port uint16
	// Device is the name of the overlay device, for targets that are asked over it. They
	// are asked directly where there is no such device, or no Source.
	Device string
	// OnChange is called after the View has changed; changes during a call are one
	// more call. It may block, and may call the Prober.
	OnChange func()
	// OnOutcome is called with each outcome, and the time that the answer took; 0 without
	// one. It must neither block nor call the Prober. A late answer comes after its probe was
	// reported as missed.
	OnOutcome func(o Outcome, roundTrip time.Duration)
	// Now is the clock; nil is the system's.
	Now func() time.Time
}

// Stats count what a Prober has seen since it was made.
type Stats struct {
	Sent, SendErrors uint64
	// Outcomes of probes. A late one counts as missed, too.
	Ready, Unready, Refused, Missed, Late uint64
	// Stray are datagrams that do not answer an open question: malformed, forged,
	// duplicated, from the wrong address or host, or very late.
	Stray uint64
	// WentOffline and CameBack count hosts' changes.
	WentOffline, CameBack uint64
}

// Prober continuously health-checks a set of hosts. All methods are safe for
// concurrent use. Make one with NewProber.
type Prober struct {
	config  ProberConfig
	targets chan struct{} // capacity 1: there are other targets
	changed chan struct{} // capacity 1: the view has changed

	mu       sync.Mutex
	schedule *schedule
	tracker  *Tracker
	view     View
	stats    Stats
}

// NewProber makes a prober without targets. It opens nothing.
func NewProber(c ProberConfig) (*Prober, error) {
	if c.Port == 0 {
		c.Port = Port
	}
	if c.OnChange == nil {
		c.OnChange = func() {}
	}
	if c.OnOutcome == nil {
		c.OnOutcome = func(Outcome, time.Duration) {}
	}
	if c.Now == nil {
		c.Now = time.Now //nolint:forbidigo // the default of an injected clock
	}
	if c.Source.Is4In6() {
		return nil, fmt.Errorf("source %v of probes: not an address of IPv4 or IPv6", c.Source)
	}
	tracker, err := NewTracker(c.Config)
	if err != nil {
		return nil, err
	}
	random, err := newRandom()
	if err != nil {
		return nil, err
	}
	return &Prober{
		config:   c,
		targets:  make(chan struct{}, 1),
		changed:  make(chan struct{}, 1),
		schedule: newSchedule(c.Config, random.Uint64(), random.Uint64),
		tracker:  tracker,
		view:     tracker.View(time.Time{}),
	}, nil
}

// newRandom returns a cryptographic generator, so that the next token cannot be
// predicted from earlier ones.
func newRandom() (*rand.ChaCha8, error) {
	var seed [32]byte
	if _, err := crand.Read(seed[:]); err != nil {
		return nil, fmt.Errorf("read random numbers: %w", err)
	}
	return rand.NewChaCha8(seed), nil
}

// SetTargets replaces the probed hosts, at any time. A host that stays keeps its
// health and its place in the interval. The error names the targets that have no name
// or no address of the source's family, and those with a duplicate name; all others are taken.
func (p *Prober) SetTargets(targets []Target) error {
	good, err := usableTargets(targets, p.config.Source)
	names := make([]string, 0, len(good))
	for _, t := range good {
		names = append(names, t.Name)
	}
	p.mu.Lock()
	now := p.config.Now()
	p.schedule.set(good, now)
	p.tracker.SetHosts(names, now)
	p.publish(now)
	p.mu.Unlock()
	raise(p.targets)
	return err
}

// Offline returns the names of the hosts that are offline, in a map that belongs to
// the caller.
func (p *Prober) Offline() map[string]bool { return p.View().Offline }

// View returns the judgement of all hosts, in values that belong to the caller.
func (p *Prober) View() View {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.copyView()
}

// Snapshot returns the view and the health of each host as of one moment.
func (p *Prober) Snapshot() Snapshot {
	p.mu.Lock()
	defer p.mu.Unlock()
	return Snapshot{View: p.copyView(), Hosts: maps.Clone(p.tracker.hosts)}
}

// copyView copies the view. The caller holds the lock.
func (p *Prober) copyView() View {
	v := p.view
	v.Offline, v.Held = maps.Clone(v.Offline), maps.Clone(v.Held)
	return v
}

// Hosts returns the health of each host.
func (p *Prober) Hosts() map[string]Health {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.tracker.hosts)
}

// Stats returns the counters.
func (p *Prober) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stats
}

// Run probes until ctx ends, and then returns nil. It returns an error when it
// cannot open its socket (the source address does not exist yet) or cannot read
// from it; it may be called again then. While it does not run, the View does not
// change.
func (p *Prober) Run(ctx context.Context) error {
	conn, err := p.open()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var group sync.WaitGroup
	group.Go(func() {
		defer cancel()
		err = p.receive(ctx, conn)
	})
	group.Go(func() { p.notify(ctx) })
	p.ask(ctx, conn)
	// Ends the receiver's read; a UDP socket has nothing to flush.
	_ = conn.Close()
	group.Wait()
	return err
}

// observe passes outcomes to the tracker. The caller holds the lock.
func (p *Prober) observe(now time.Time, reports ...report) {
	dirty := false
	for _, r := range reports {
		switch r.Outcome {
		case Ready:
			p.stats.Ready++
		case Unready:
			p.stats.Unready++
		case Refused:
			p.stats.Refused++
		case Missed:
			p.stats.Missed++
		case Late:
			p.stats.Late++
		}
		p.config.OnOutcome(r.Outcome, r.RTT)
		before, after := p.tracker.Observe(r.host, r.Observation, now)
		dirty = dirty || before.State != after.State || before.silent != after.silent || p.config.Config.Held(before) != p.config.Config.Held(after)
		switch {
		case before.State != Offline && after.State == Offline:
			p.stats.WentOffline++
		case before.State == Offline && after.State != Offline:
			p.stats.CameBack++
		}
	}
	if dirty {
		p.publish(now)
	}
}

// publish replaces the view where it has changed. The caller holds the lock.
func (p *Prober) publish(now time.Time) {
	v := p.tracker.View(now)
	if v.Isolated == p.view.Isolated && v.Settled == p.view.Settled && v.Heard == p.view.Heard &&
		maps.Equal(v.Offline, p.view.Offline) && maps.Equal(v.Held, p.view.Held) {
		return
	}
	p.view = v
	raise(p.changed)
}

// notify calls OnChange, from a goroutine of its own and without a lock: a callback
// that is slow or calls the Prober does not delay probes.
func (p *Prober) notify(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.changed:
			p.config.OnChange()
		}
	}
}

// raise fills a channel of capacity one: any number of signals before it is read
// count as one.
func raise(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
