package probe

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// world is a network of hosts around one schedule and one tracker, in which time
// is a number: it moves from one event to the next.
type world struct {
	schedule *schedule
	tracker  *Tracker
	now      time.Time
	paused   time.Time // the prober does not run before
	wakeAt   time.Time // as the prober's timer: set by step only
	awake    bool
	lag      time.Duration // every wake-up is late by this, as on a real machine
	hosts    map[string]*place
	byAddr   map[netip.Addr]*place
	flying   []flight // answers, in order of arrival
	asked    []asked  // every question that was sent
	// watch is called after each event.
	watch func()
}

type place struct {
	Target
	rtt      time.Duration
	diesAt   time.Time // zero: never
	instance uint64
}

type flight struct {
	at   time.Time
	from netip.Addr
	Message
}

type asked struct {
	at   time.Time
	host string
}

func newWorld(tb testing.TB, c Config) *world {
	tb.Helper()
	tracker, err := NewTracker(c)
	if err != nil {
		tb.Fatal(err)
	}
	token := uint64(0)
	return &world{
		schedule: newSchedule(c, 1, func() uint64 { token++; return token }),
		tracker:  tracker,
		now:      epoch(),
		hosts:    map[string]*place{},
		byAddr:   map[netip.Addr]*place{},
		watch:    func() {},
	}
}

// add brings in hosts, numbered.
func (w *world) add(first, n int, rtt time.Duration) {
	for i := first; i < first+n; i++ {
		t := Target{Name: fmt.Sprintf("node%d", i), Addr: netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})}
		w.hosts[t.Name] = &place{Target: t, rtt: rtt, instance: uint64(i + 1)}
	}
	w.tell()
}

// remove takes hosts out.
func (w *world) remove(names ...string) {
	for _, name := range names {
		delete(w.hosts, name)
	}
	w.tell()
}

func (w *world) names() []string {
	var names []string
	for name := range w.hosts {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func (w *world) tell() {
	var targets []Target
	clear(w.byAddr)
	for _, name := range w.names() {
		targets = append(targets, w.hosts[name].Target)
		w.byAddr[w.hosts[name].Addr] = w.hosts[name]
	}
	w.schedule.set(targets, w.now)
	w.tracker.SetHosts(w.names(), w.now)
	w.step()
}

// run lets time pass.
func (w *world) run(d time.Duration) {
	for end := w.now.Add(d); ; {
		wake := w.wakeAt
		if wake.Before(w.paused) {
			wake = w.paused
		}
		arrives := len(w.flying) > 0 && !w.flying[0].at.After(end)
		awake := w.awake && !wake.After(end)
		switch {
		case !arrives && !awake:
			w.now = end
			return
		// What arrives during a pause is read just after the prober's step: of
		// the two, the worse order.
		case arrives && (!awake || max(w.flying[0].at.UnixNano(), w.paused.UnixNano()+1) < wake.UnixNano()):
			w.deliver()
		default:
			w.now = wake
			w.step()
		}
		w.watch()
	}
}

func (w *world) deliver() {
	f := w.flying[0]
	w.flying = w.flying[1:]
	if f.at.After(w.now) {
		w.now = f.at
	}
	if r, ok := w.schedule.answer(f.Message, f.from, w.now); ok {
		w.tracker.Observe(r.host, r.Observation, w.now)
	}
}

func (w *world) step() {
	questions, missed := w.schedule.step(w.now, nil)
	for _, r := range missed {
		w.tracker.Observe(r.host, r.Observation, w.now)
	}
	for _, q := range questions {
		h := w.byAddr[q.addr]
		if h == nil {
			continue
		}
		w.asked = append(w.asked, asked{at: w.now, host: h.Name})
		if !h.diesAt.IsZero() && !w.now.Before(h.diesAt) {
			continue
		}
		m := q.message
		m.Kind, m.Ready, m.Instance = Answer, true, h.instance
		f := flight{at: w.now.Add(h.rtt), from: h.Addr, Message: m}
		i, _ := slices.BinarySearchFunc(w.flying, f, func(a, b flight) int {
			if a.at.After(b.at) {
				return 1
			}
			return -1
		})
		w.flying = slices.Insert(w.flying, i, f)
	}
	w.wakeAt, w.awake = w.schedule.wake(w.now)
	w.wakeAt = w.wakeAt.Add(w.lag)
}
