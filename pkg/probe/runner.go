package probe

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// Clock is the time that a Runner goes by.
type Clock interface {
	Now() time.Time
	After(d time.Duration) <-chan time.Time
}

// RunnerConfig says how a Runner works.
type RunnerConfig struct {
	// Config holds the numbers of the Prober.
	Config Config
	// Port is the UDP port of all responders, the own one included; 0 is Port.
	Port uint16
	// Device is the name of the overlay device; see ProberConfig.
	Device string
	// Responder runs beside the Prober where it is not nil. The Runner sets its
	// Addr and its Port.
	Responder *ResponderConfig
	// RetryInterval is the pause after a failure.
	RetryInterval time.Duration
	// OnChange is called after the View of the running Prober has changed, and
	// when a Prober has ended. It may block and may call the Runner; one call
	// ends before the next begins.
	OnChange func()
	// OnOutcome is called with the outcome of each probe; see ProberConfig.
	OnOutcome func(o Outcome, roundTrip time.Duration)
	// OnError is called with each failure after which the Runner starts again.
	OnError func(error)
	// Clock is the time of the pauses and of all probes.
	Clock Clock
}

// Targets are what a Runner works on.
type Targets struct {
	// Self is the own host's address: probes leave from it, and the Responder
	// listens on it alone. The zero value leaves the choice to the kernel; a
	// Responder needs an address.
	Self netip.Addr
	// Probe are the hosts to be probed.
	Probe []Target
	// Answer are the addresses of the hosts whose probes are answered.
	Answer []netip.Addr
}

func (t Targets) equal(u Targets) bool {
	return t.Self == u.Self && slices.Equal(t.Probe, u.Probe) && slices.Equal(t.Answer, u.Answer)
}

// Snapshot is what a Prober knows at one moment.
type Snapshot struct {
	View View
	// Hosts holds the health of each target.
	Hosts map[string]Health
}

// Runner keeps a Prober running, and a Responder beside it where it is
// configured with one: it starts both when the first targets are set, again at
// another address when that of the own host changes, and again after a pause
// when they fail. Each Prober starts without any knowledge of its hosts. All
// methods are safe for concurrent use. Make one with NewRunner.
type Runner struct {
	config RunnerConfig
	wake   chan struct{} // capacity 1: there are other targets

	mu      sync.Mutex
	targets Targets
	prober  *Prober // nil while none runs
}

// NewRunner makes a runner without targets. It opens nothing.
func NewRunner(c RunnerConfig) (*Runner, error) {
	if err := c.Config.Validate(); err != nil {
		return nil, err
	}
	if c.RetryInterval <= 0 || c.Clock == nil {
		return nil, errors.New("runner of probes: needs a clock and a retry interval of more than 0")
	}
	if c.OnChange == nil {
		c.OnChange = func() {}
	}
	if c.OnError == nil {
		c.OnError = func(error) {}
	}
	return &Runner{config: c, wake: make(chan struct{}, 1)}, nil
}

// SetTargets replaces what the Runner works on, at any time, and does not block.
// The error names the targets that cannot be probed; all others are probed. Setting the
// same targets again does nothing and returns no error.
func (r *Runner) SetTargets(t Targets) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if t.equal(r.targets) {
		return nil
	}
	r.targets = Targets{Self: t.Self, Probe: slices.Clone(t.Probe), Answer: slices.Clone(t.Answer)}
	raise(r.wake)
	_, err := usableTargets(t.Probe, t.Self)
	return err
}

// Snapshot returns what the running Prober knows; false while none runs.
func (r *Runner) Snapshot() (Snapshot, bool) {
	r.mu.Lock()
	prober := r.prober
	r.mu.Unlock()
	if prober == nil {
		return Snapshot{}, false
	}
	return prober.Snapshot(), true
}

// Run works from the first SetTargets until ctx ends.
func (r *Runner) Run(ctx context.Context) {
	select {
	case <-ctx.Done():
		return
	case <-r.wake:
	}
	for ctx.Err() == nil {
		err := r.serve(ctx)
		if ctx.Err() != nil {
			return
		}
		r.config.OnChange()
		if err == nil {
			continue // at the new address
		}
		r.config.OnError(err)
		select {
		case <-ctx.Done():
		case <-r.config.Clock.After(r.config.RetryInterval):
		}
	}
}

// errMoved ends what runs at a former address of the own host.
var errMoved = errors.New("the host's address has changed")

// serve works at one address of the own host, until that changes or ctx ends.
func (r *Runner) serve(ctx context.Context) error {
	self := r.current().Self
	prober, err := NewProber(ProberConfig{
		Config: r.config.Config, Source: self, Port: r.config.Port, Device: r.config.Device,
		OnChange: r.config.OnChange, OnOutcome: r.config.OnOutcome, Now: r.config.Clock.Now,
	})
	if err != nil {
		return fmt.Errorf("set up the probes: %w", err)
	}
	responder, err := r.responder(self)
	if err != nil {
		return fmt.Errorf("set up the answers to probes: %w", err)
	}
	r.setProber(prober)
	defer r.setProber(nil)
	g, ctx := errgroup.WithContext(ctx)
	if responder != nil {
		g.Go(func() error { return responder.Run(ctx) })
	}
	g.Go(func() error { return prober.Run(ctx) })
	g.Go(func() error { return r.follow(ctx, self, responder, prober) })
	if err := g.Wait(); !errors.Is(err, errMoved) {
		return err
	}
	return nil
}

// responder returns a Responder at the given address, nil without a
// configuration.
func (r *Runner) responder(self netip.Addr) (*Responder, error) {
	if r.config.Responder == nil {
		return nil, nil //nolint:nilnil // absence is an answer here
	}
	c := *r.config.Responder
	c.Addr, c.Port = self, r.config.Port
	if c.Now == nil {
		c.Now = r.config.Clock.Now
	}
	return NewResponder(c)
}

// follow passes the targets on, while the own host stays at its address.
func (r *Runner) follow(ctx context.Context, self netip.Addr, responder *Responder, prober *Prober) error {
	for {
		targets := r.current()
		if targets.Self != self {
			return errMoved
		}
		if responder != nil {
			responder.SetSources(targets.Answer)
		}
		_ = prober.SetTargets(targets.Probe) // the Runner's SetTargets has returned the error
		select {
		case <-ctx.Done():
			return nil
		case <-r.wake:
		}
	}
}

func (r *Runner) current() Targets {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.targets
}

func (r *Runner) setProber(p *Prober) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.prober = p
}
