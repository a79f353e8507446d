package probe

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
)

// pausingClock is the real time, but for pauses, which end when the test says so.
type pausingClock struct {
	clock.RealClock
	pauses *clocktesting.FakeClock
}

func (c pausingClock) After(d time.Duration) <-chan time.Time { return c.pauses.After(d) }

// newRunner runs a runner on the given port until the test's end.
func newRunner(t *testing.T, c RunnerConfig) *Runner {
	t.Helper()
	if c.Clock == nil {
		c.Clock = clock.RealClock{}
	}
	c.Config, c.RetryInterval = DefaultConfig().WithInterval(20*time.Millisecond), time.Second
	r, err := NewRunner(c)
	if err != nil {
		t.Fatal(err)
	}
	spawn(t, func(ctx context.Context) error {
		r.Run(ctx)
		return nil
	})
	return r
}

// set gives a runner its targets.
func set(t *testing.T, r *Runner, targets Targets) {
	t.Helper()
	if err := r.SetTargets(targets); err != nil {
		t.Fatal(err)
	}
}

// online reports whether the runner's prober considers a host online.
func online(r *Runner, name string) bool {
	s, ok := r.Snapshot()
	return ok && s.Hosts[name].State == Online
}

func TestRunnersProbeEachOther(t *testing.T) {
	port, a, b := freePort(t), loopback(1), loopback(2)
	var changes, outcomes sync.Map
	var asker *Runner
	asker = newRunner(t, RunnerConfig{Port: port, OnChange: func() {
		if s, ok := asker.Snapshot(); ok { // calls back without deadlock
			changes.Store(len(s.View.Offline), true)
		}
	}, OnOutcome: func(o Outcome, roundTrip time.Duration) { outcomes.Store(o.String(), roundTrip) }})
	ready := make(chan bool, 1)
	ready <- true
	other := newRunner(t, RunnerConfig{Port: port, Responder: &ResponderConfig{Host: "b", Ready: func() bool {
		v := <-ready
		ready <- v
		return v
	}}})
	if _, ok := asker.Snapshot(); ok {
		t.Error("a prober runs before the first targets are known")
	}
	set(t, asker, Targets{Self: a, Probe: []Target{{Name: "b", Addr: b}}})
	set(t, other, Targets{Self: b, Answer: []netip.Addr{a}})
	testenv.Until(t, "b is online", func() bool { return online(asker, "b") })
	<-ready
	ready <- false
	testenv.Until(t, "b is reported offline", func() bool {
		_, told := changes.Load(1)
		return told
	})
	for _, outcome := range []string{"ready", "unready"} {
		if took, told := outcomes.Load(outcome); !told || took.(time.Duration) <= 0 {
			t.Errorf("outcome %s: told: %t, after %v", outcome, told, took)
		}
	}
	set(t, asker, Targets{Self: a})
	testenv.Until(t, "b is no target any more", func() bool {
		s, ok := asker.Snapshot()
		return ok && len(s.View.Offline) == 0
	})
}

func TestRunnerFollowsTheHostsAddress(t *testing.T) {
	port, b := freePort(t), loopback(2)
	responder := newResponder(t, ResponderConfig{Host: "b", Addr: b, Port: port, SourceRate: 1000}, loopback(3))
	spawn(t, responder.Run)
	r := newRunner(t, RunnerConfig{Port: port, OnError: func(err error) { t.Error(err) }})
	probe := []Target{{Name: "b", Addr: b}}
	set(t, r, Targets{Self: loopback(1), Probe: probe})
	testenv.Until(t, "probes of a strange address are not answered", func() bool { return responder.Stats().Foreign > 0 })
	set(t, r, Targets{Self: loopback(3), Probe: probe})
	testenv.Until(t, "b is online", func() bool { return online(r, "b") })
}

func TestRunnerStartsAgainAfterAFailure(t *testing.T) {
	port, self := freePort(t), loopback(1)
	// Somebody else has the responder's port: the prober must not run without
	// its responder, as the others would take this host for dead.
	conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(self, port)))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	pauses := clocktesting.NewFakeClock(time.Now())
	failures, changes := make(chan error, 10), make(chan struct{}, 10)
	r := newRunner(t, RunnerConfig{
		Port: port, Responder: &ResponderConfig{Host: "a"}, Clock: pausingClock{pauses: pauses},
		OnError:  func(err error) { failures <- err },
		OnChange: func() { changes <- struct{}{} },
	})
	set(t, r, Targets{Self: self})
	if err := <-failures; !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("the runner failed with %v, want the reason", err)
	}
	<-changes // the end of a prober is a change
	if _, ok := r.Snapshot(); ok {
		t.Error("a prober runs after a failure")
	}
	testenv.Until(t, "the runner pauses", pauses.HasWaiters)
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	pauses.Step(time.Second - 1)
	if !pauses.HasWaiters() {
		t.Fatal("the pause after a failure is too short")
	}
	pauses.Step(1)
	testenv.Until(t, "a prober runs", func() bool {
		_, ok := r.Snapshot()
		return ok
	})
}

func TestRunnerNamesUselessTargetsOnce(t *testing.T) {
	r := newRunner(t, RunnerConfig{Port: freePort(t)})
	targets := Targets{Self: loopback(1), Probe: []Target{{Name: "b"}, {Name: "c", Addr: loopback(3)}}}
	if err := r.SetTargets(targets); err == nil || !strings.Contains(err.Error(), `"b"`) || strings.Contains(err.Error(), `"c"`) {
		t.Errorf("targets without an address: got %v, want an error that names b alone", err)
	}
	if err := r.SetTargets(targets); err != nil {
		t.Errorf("the same targets again: %v, want no error", err)
	}
	testenv.Until(t, "the other target is probed", func() bool {
		s, ok := r.Snapshot()
		_, probed := s.Hosts["c"]
		return ok && probed && len(s.Hosts) == 1
	})
}

func TestNewRunner(t *testing.T) {
	good := RunnerConfig{Config: DefaultConfig(), RetryInterval: time.Second, Clock: clock.RealClock{}}
	for name, spoil := range map[string]func(*RunnerConfig){
		"no numbers":        func(c *RunnerConfig) { c.Config = Config{} },
		"no clock":          func(c *RunnerConfig) { c.Clock = nil },
		"no retry interval": func(c *RunnerConfig) { c.RetryInterval = 0 },
	} {
		c := good
		spoil(&c)
		if _, err := NewRunner(c); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := NewRunner(good); err != nil {
		t.Error(err)
	}
}
