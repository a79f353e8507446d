package probe

import "time"

// Tracker judges a set of hosts. It is a state machine without clock, I/O and
// goroutines; it is not safe for concurrent use. Make one with NewTracker.
type Tracker struct {
	config Config
	hosts  map[string]Health
	// away are the hosts that were removed while they were not well: adding a dead
	// host again must not make it well.
	away map[string]departed
}

type departed struct {
	health Health
	at     time.Time
}

// View is what the hosts' health means for those who act on it.
type View struct {
	// Offline holds the hosts that are offline, and no others.
	Offline map[string]bool
	// Held holds those of them that are well again, and whose hold-down is not
	// over. They may be used where there is no other host: a hold-down only
	// prevents flapping between hosts.
	Held map[string]bool
	// Isolated says that most hosts fell silent at once: the cause is more likely
	// the prober's own network than theirs. A caller that moves what others own
	// (the controller's automatic hosts) does not act on Offline meanwhile. One
	// that only chooses a host for its own packets (an agent's ordered fallback)
	// may act, as a wrong choice does no harm.
	//
	// It is reported before the first of those hosts is offline. It ends when most
	// of them answer again, or when they have been silent for
	// Config.IsolationMemory while others answer: then they are dead.
	Isolated bool
	// Settled says that no host is Unknown.
	Settled bool
	// Heard is how many hosts gave a sign of life for their last probe: 0, 1, or 2 for
	// all greater numbers. While no host is offline it is 0, so that single probes that
	// get lost change nothing. A caller that judges a silent host by whether others are
	// heard meanwhile (Health.Reached) learns by it when to look again.
	Heard int
}

// NewTracker makes a tracker without hosts.
func NewTracker(c Config) (*Tracker, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	return &Tracker{config: c, hosts: map[string]Health{}, away: map[string]departed{}}, nil
}

// SetHosts replaces the set of hosts. Those that stay keep their health; one that is
// added again within Config.CalmAfter has the health that it was removed with, unless
// it was well then.
func (t *Tracker) SetHosts(names []string, now time.Time) {
	hosts := make(map[string]Health, len(names))
	for _, name := range names {
		h, ok := t.hosts[name]
		if !ok {
			if gone, was := t.away[name]; was && now.Sub(gone.at) < t.config.CalmAfter {
				h = gone.health
			}
		}
		hosts[name] = h
		delete(t.away, name)
	}
	for name, h := range t.hosts {
		if _, stays := hosts[name]; !stays && (h.State == Offline || !h.ReturnedAt.IsZero()) {
			t.away[name] = departed{health: h, at: now}
		}
	}
	for name, gone := range t.away {
		if now.Sub(gone.at) >= t.config.CalmAfter {
			delete(t.away, name)
		}
	}
	t.hosts = hosts
}

// Observe takes the outcome of a probe and returns the host's health before and
// after. A host that is not in the set stays unknown.
func (t *Tracker) Observe(name string, o Observation, now time.Time) (before, after Health) {
	before, ok := t.hosts[name]
	if !ok {
		return Health{}, Health{}
	}
	after = t.config.Next(before, o, now)
	t.hosts[name] = after
	return before, after
}

// Host returns the health of one host; of one that is not in the set, the zero
// value.
func (t *Tracker) Host(name string) Health { return t.hosts[name] }

// View judges all hosts together.
func (t *Tracker) View(now time.Time) View {
	v := View{Offline: map[string]bool{}, Held: map[string]bool{}, Settled: true}
	for name, h := range t.hosts {
		switch h.State {
		case Offline:
			v.Offline[name] = true
			if t.config.Held(h) {
				v.Held[name] = true
			}
		case Unknown:
			v.Settled = false
		case Online, Suspect:
		}
	}
	v.Isolated = t.isolated(now)
	if len(v.Offline) > 0 {
		v.Heard = t.heard()
	}
	return v
}

// heard counts the hosts that are reached, up to two.
func (t *Tracker) heard() int {
	n := 0
	for _, h := range t.hosts {
		if h.Reached() {
			n++
		}
		if n == 2 {
			break
		}
	}
	return n
}

// isolated reports whether most hosts fell silent at once. It counts a host as silent one
// missed probe before the host goes offline. Hosts that died together are found one after
// the other: when the first goes offline, each of the others may have one probe left to
// miss.
func (t *Tracker) isolated(now time.Time) bool {
	enough := max(1, t.config.OfflineAfter-1)
	answering, recent, fell := 0, 0, 0
	for _, h := range t.hosts {
		silent := h.silent >= enough
		if !silent {
			answering++
		}
		if h.LastAlive.IsZero() || now.Sub(h.LastAlive) > t.config.IsolationMemory {
			continue
		}
		recent++
		if silent {
			fell++
		}
	}
	switch {
	case len(t.hosts) < 2:
		// One host alone may be dead as well as unreachable.
		return false
	case answering == 0:
		return true
	default:
		return 2*fell > recent
	}
}
