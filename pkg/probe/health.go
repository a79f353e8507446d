package probe

import "time"

// State is the judgement of a host. Only Offline requires action.
type State uint8

const (
	// Unknown is a host that has neither answered nor failed often enough: the
	// state of all hosts after a start. Callers keep what exists until it ends.
	Unknown State = iota
	// Online is a host that answers.
	Online
	// Suspect is a host that was online and fails now, less often than makes it
	// offline.
	Suspect
	// Offline is a host that failed too often and has not recovered for good yet.
	Offline
)

func (s State) String() string {
	switch s {
	case Online:
		return "Online"
	case Suspect:
		return "Suspect"
	case Offline:
		return "Offline"
	default:
		return "Unknown"
	}
}

// Cause is why a host is offline.
type Cause uint8

const (
	// NoCause is the cause of a host that is not offline.
	NoCause Cause = iota
	// Silent is a host that did not answer.
	Silent
	// NotReady is a host whose agent says that its data plane does not work.
	NotReady
	// NoAgent is a host whose kernel answers in place of its agent for longer
	// than Config.AgentGrace.
	NoAgent
)

func (c Cause) String() string {
	switch c {
	case Silent:
		return "Silent"
	case NotReady:
		return "NotReady"
	case NoAgent:
		return "NoAgent"
	default:
		return ""
	}
}

// Outcome is what became of one probe.
type Outcome uint8

const (
	// Missed is a probe without an answer in time.
	Missed Outcome = iota
	// Ready is an answer in time of an agent whose data plane works.
	Ready
	// Unready is an answer in time of an agent whose data plane does not work.
	Unready
	// Refused is a probe that the host's kernel refused: no agent listens.
	Refused
	// Late is an answer "ready" to a probe that was reported as missed before.
	Late
)

// Outcomes are the names of all outcomes, for metrics.
func Outcomes() []string {
	return []string{Missed.String(), Ready.String(), Unready.String(), Refused.String(), Late.String()}
}

func (o Outcome) String() string {
	switch o {
	case Missed:
		return "missed"
	case Ready:
		return "ready"
	case Unready:
		return "unready"
	case Refused:
		return "refused"
	case Late:
		return "late"
	}
	return "unknown"
}

// Observation is the outcome of one probe of one host. There is no other input:
// what happens to traffic, above all to destinations outside the cluster that do
// not answer, cannot be passed to a tracker, and so cannot mark a host.
type Observation struct {
	Outcome Outcome
	// Instance is the random number of the agent that answered; 0 without an
	// answer.
	Instance uint64
	// RTT is the time that the answer took; 0 without an answer.
	RTT time.Duration
}

// Health is what is known of one host: a value, comparable, whose zero value is
// a host about which nothing is known. Times are zero for "never".
type Health struct {
	State State
	// Cause is why the host is offline: what took it offline, or what it has done since.
	// A host never becomes NoAgent once it is offline: its kernel may have booted
	// meanwhile, and forwards nothing for it then.
	Cause Cause
	// Instance is the agent that answered last, and Restarts how often it changed.
	// A restart is not a failure.
	Instance uint64
	Restarts uint64
	// RTT is the time that the last answer took.
	RTT time.Duration
	// OfflineSince is when the host went offline, HoldUntil when its hold-down
	// ends; both are kept after its return.
	OfflineSince, HoldUntil time.Time
	// ReturnedAt is when the host was last brought back from offline.
	ReturnedAt time.Time
	// LastAlive is when the host last gave a sign of life, of any kind.
	LastAlive time.Time

	bad     int       // failures since the last success
	unready int       // answers "not ready" since the last success
	silent  int       // missed probes since the last sign of life
	good    int       // successes in a row
	flaps   int       // how often the hold-down has been doubled
	refused time.Time // last refusal
	bereft  time.Time // first refusal since an agent answered
}

// Next is the health of a host after an observation at the given time. It
// depends on nothing but its arguments: what other hosts do has no influence.
func (c Config) Next(h Health, o Observation, now time.Time) Health {
	if o.Outcome == Refused && c.AgentGrace == 0 {
		o.Outcome = Missed
	}
	h = c.count(h, o, now)
	if h.State == Offline {
		switch {
		case h.good >= c.OnlineAfter && !now.Before(h.HoldUntil):
			h.State, h.Cause, h.ReturnedAt = Online, NoCause, now
		case h.silent >= c.OfflineAfter:
			// Whatever took it offline: a host that had lost its agent may die too.
			h.Cause = Silent
		case h.unready >= c.NotReadyAfter:
			h.Cause = NotReady
		}
		return h
	}
	switch {
	case h.unready >= c.NotReadyAfter:
		return c.offline(h, NotReady, now)
	case h.bad >= c.OfflineAfter:
		// Misses and answers mixed: what the host says itself is more precise.
		if h.unready > 0 {
			return c.offline(h, NotReady, now)
		}
		return c.offline(h, Silent, now)
	case !h.bereft.IsZero() && now.Sub(h.bereft) >= c.AgentGrace:
		return c.offline(h, NoAgent, now)
	case h.bad >= c.SuspectAfter:
		if h.State == Online {
			h.State = Suspect
		}
	case o.Outcome != Missed:
		h.State = Online
	}
	return h
}

// Held reports whether a host is offline only because of its hold-down: it answers as
// well as it must to be online again.
func (c Config) Held(h Health) bool { return h.State == Offline && h.good >= c.OnlineAfter }

// Returning reports whether an offline host has answered "ready" to the last probe: at
// least once, and perhaps often enough to be held.
func (h Health) Returning() bool { return h.State == Offline && h.good > 0 }

// Reached reports whether the last probe got a sign of life of any kind, or did not
// need one: a kernel that answers for an absent agent does not refuse each probe (see
// Config.RefusalHold). It says which hosts the prober can reach, not which are usable:
// a host without an agent, with a broken data plane or in its hold-down is reached.
func (h Health) Reached() bool { return !h.LastAlive.IsZero() && h.silent == 0 }

// count updates the counters with the observation.
func (c Config) count(h Health, o Observation, now time.Time) Health {
	if o.Outcome != Missed {
		h.LastAlive, h.silent = now, 0
	}
	if o.Instance != 0 && o.Instance != h.Instance {
		if h.Instance != 0 {
			h.Restarts++
		}
		h.Instance = o.Instance
	}
	if o.RTT > 0 {
		h.RTT = o.RTT
	}
	switch o.Outcome {
	case Ready:
		h.good++
		h.bad, h.unready = 0, 0
		h.refused, h.bereft = time.Time{}, time.Time{}
	case Unready:
		h.good = 0
		h.bad++
		h.unready++
		h.refused, h.bereft = time.Time{}, time.Time{}
	case Late:
		// Proof of life, so that a slow host does not go offline; not of
		// health, so that it does not come back by it either.
		h.bad = min(h.bad, h.unready)
		h.refused, h.bereft = time.Time{}, time.Time{}
	case Refused:
		h.good = 0
		h.bad = min(h.bad, h.unready)
		h.refused = now
		if h.bereft.IsZero() {
			h.bereft = now
		}
	case Missed:
		h.good = 0
		if h.refused.IsZero() || now.Sub(h.refused) > c.RefusalHold {
			h.bad++
			h.silent++
		}
	}
	return h
}

func (c Config) offline(h Health, why Cause, now time.Time) Health {
	if !h.ReturnedAt.IsZero() && now.Sub(h.ReturnedAt) < c.CalmAfter {
		h.flaps++
	} else {
		h.flaps = 0
	}
	hold := c.HoldDown
	for range h.flaps {
		if hold >= c.MaxHoldDown {
			break
		}
		hold *= 2
	}
	h.State, h.Cause = Offline, why
	h.OfflineSince, h.HoldUntil = now, now.Add(min(hold, c.MaxHoldDown))
	h.good = 0
	return h
}
