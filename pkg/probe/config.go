package probe

import (
	"errors"
	"fmt"
	"time"
)

// Port is the default UDP port of the responder. Neighbouring ports are those of the
// overlay (9789) and of metrics and health (9790 to 9793).
const Port = 9788

// wakeUpsPerInterval bounds the cost of the prober for any number of hosts: with
// thousands, several probes leave in one wake-up.
const wakeUpsPerInterval = 100

// Config holds every number that a judgement depends on. The zero value is not
// valid; start from DefaultConfig.
type Config struct {
	// Interval is the time between two probes to one host.
	Interval time.Duration
	// Timeout is how long an answer may take before the probe counts as
	// missed. It is at most Interval, so that only one probe of a host is open at
	// a time.
	Timeout time.Duration
	// SuspectAfter and OfflineAfter are numbers of failures without a success
	// in between. A failure is a probe that was missed or answered "not ready".
	SuspectAfter, OfflineAfter int
	// NotReadyAfter is how many answers "not ready" without a "ready" in
	// between make a host offline. An agent repairs most damage within one
	// interval, and a move cuts connections: one such answer alone moves
	// nothing. More than two would only delay a verdict that the host has
	// already given itself.
	NotReadyAfter int
	// OnlineAfter is how many answers "ready" in a row bring an offline host
	// back, once its hold-down is over.
	OnlineAfter int
	// HoldDown is how long a host stays offline at least. It doubles each time
	// that the host falls within CalmAfter of its return, up to MaxHoldDown.
	HoldDown, MaxHoldDown time.Duration
	// CalmAfter is how long a host must stay online after a return for the
	// hold-down to begin from HoldDown again. It is more than MaxHoldDown.
	CalmAfter time.Duration
	// AgentGrace is how long a host without an agent counts as online: its
	// kernel refuses the probes (ICMP port unreachable), so it is up and forwards
	// as the agent left it. It covers the restart and the upgrade of an agent;
	// afterwards it must be assumed that nothing repairs or releases egress IPs
	// there. 0: a refusal counts as a missed probe.
	AgentGrace time.Duration
	// RefusalHold is how long a refusal excuses missed probes. Linux sends one
	// such message a second to one receiver (net.ipv4.icmp_ratelimit), so that
	// most probes to a host without an agent get no answer at all.
	RefusalHold time.Duration
	// IsolationMemory is how recently a host must have answered for its silence
	// to count as a sign that the prober itself is isolated.
	IsolationMemory time.Duration
}

// DefaultConfig finds a dead host in 500 to 700 ms.
func DefaultConfig() Config {
	return Config{
		Interval:        200 * time.Millisecond,
		Timeout:         100 * time.Millisecond,
		SuspectAfter:    1,
		OfflineAfter:    3,
		NotReadyAfter:   2,
		OnlineAfter:     3,
		HoldDown:        2 * time.Second,
		MaxHoldDown:     time.Minute,
		CalmAfter:       2 * time.Minute,
		AgentGrace:      time.Minute,
		RefusalHold:     1500 * time.Millisecond,
		IsolationMemory: 10 * time.Second,
	}
}

// WithInterval returns the numbers that go with another interval; 0 keeps it.
func (c Config) WithInterval(interval time.Duration) Config {
	if interval > 0 {
		c.Interval, c.Timeout = interval, interval/2
		c.RefusalHold = max(c.RefusalHold, interval)
		c.IsolationMemory = max(c.IsolationMemory, 3*c.DetectionTime())
	}
	return c
}

// DetectionTime is the longest time from the death of a host until it is offline, for
// a host whose agent runs and a prober that is not starved of processor time: the
// first probe after the death leaves within one interval.
func (c Config) DetectionTime() time.Duration {
	return time.Duration(c.OfflineAfter)*c.Interval + c.Timeout + 2*c.granularity()
}

// granularity is how late a question or a verdict may be on purpose: what becomes due
// within it is done in one wake-up.
func (c Config) granularity() time.Duration { return c.Interval / wakeUpsPerInterval }

// Validate names each number that cannot work.
func (c Config) Validate() error {
	var errs []error
	must := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	must(c.Interval >= 10*time.Millisecond && c.Interval <= time.Minute, "interval %v is not within 10ms and 1m", c.Interval)
	must(c.Timeout > 0 && c.Timeout <= c.Interval, "timeout %v is not within 0 and the interval %v", c.Timeout, c.Interval)
	must(c.SuspectAfter >= 1, "suspect after %d failures: must be 1 or more", c.SuspectAfter)
	must(c.OfflineAfter >= c.SuspectAfter, "offline after %d failures: must not be less than suspect after %d", c.OfflineAfter, c.SuspectAfter)
	must(c.NotReadyAfter >= 1, "offline after %d answers \"not ready\": must be 1 or more", c.NotReadyAfter)
	must(c.OnlineAfter >= 1, "online after %d answers: must be 1 or more", c.OnlineAfter)
	must(c.HoldDown >= 0, "hold-down %v is negative", c.HoldDown)
	must(c.MaxHoldDown >= c.HoldDown, "greatest hold-down %v is less than the first, %v", c.MaxHoldDown, c.HoldDown)
	must(c.CalmAfter > c.MaxHoldDown, "calm after %v: must be more than the greatest hold-down %v", c.CalmAfter, c.MaxHoldDown)
	must(c.AgentGrace >= 0, "grace for agents %v is negative", c.AgentGrace)
	must(c.RefusalHold >= c.Interval || c.AgentGrace == 0, "a refusal excuses %v: must not be less than the interval %v", c.RefusalHold, c.Interval)
	must(c.IsolationMemory > c.DetectionTime(), "memory for isolation %v: must be more than the time to find a dead host, %v", c.IsolationMemory, c.DetectionTime())
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("numbers of the probe: %w", err)
	}
	return nil
}
