package probe

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// Each host is judged as if it were alone, in whatever order the outcomes of
// several arrive. Kills the mutants "leaves-the-round" (Observe forgets the
// others when one is offline) and "counted-together" (Observe stores one health
// for all).
func TestPropertyHostsDoNotInfluenceEachOther(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := DefaultConfig()
		names := []string{"node1", "node2", "node3", "node4"}
		tracker, err := NewTracker(c)
		if err != nil {
			t.Fatal(err)
		}
		tracker.SetHosts(names, epoch())
		alone := map[string]Health{}
		now := epoch()
		for range rapid.IntRange(1, 60).Draw(t, "rounds") {
			for _, name := range rapid.Permutation(names).Draw(t, "order") {
				o := Observation{Outcome: outcome().Draw(t, "outcome")}
				alone[name] = c.Next(alone[name], o, now)
				tracker.Observe(name, o, now)
			}
			if rapid.IntRange(0, 9).Draw(t, "others change") == 0 {
				tracker.SetHosts(append([]string{fmt.Sprint("extra", now.UnixNano())}, names...), now)
			}
			now = now.Add(c.Interval)
		}
		for _, name := range names {
			if got := tracker.Host(name); got != alone[name] {
				t.Fatalf("%s: %+v, alone %+v", name, got, alone[name])
			}
		}
	})
}

// When the prober's own network is gone, this is told before any host is
// offline; when a minority dies, it is not told at all. Kills the mutants
// "isolated-too-late" (isolated waits for OfflineAfter misses) and
// "a-third-is-most" (isolated compares 3*fell).
func TestPropertyIsolationIsToldBeforeAnyHostIsOffline(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := DefaultConfig()
		w := newWorld(&testing.T{}, c)
		n := rapid.IntRange(2, 40).Draw(t, "hosts")
		w.add(0, n, drawDuration(t, "rtt", 0, c.Timeout-1))
		w.run(drawDuration(t, "before", time.Second, 2*time.Second))
		die := rapid.IntRange(1, n).Draw(t, "die")
		for _, name := range w.names()[:die] {
			w.hosts[name].diesAt = w.now
		}
		most := 2*die > n
		w.watch = func() {
			switch v := w.tracker.View(w.now); {
			case most && len(v.Offline) > 0 && !v.Isolated:
				t.Fatalf("%d of %d died: %d are offline, and isolation is not told", die, n, len(v.Offline))
			case !most && v.Isolated:
				t.Fatalf("isolated because %d of %d died", die, n)
			}
		}
		w.run(5 * time.Second)
		if v := w.tracker.View(w.now); len(v.Offline) != die {
			t.Fatalf("%d of %d are offline", len(v.Offline), die)
		}
	})
}

func TestIsolationEnds(t *testing.T) {
	c := DefaultConfig()
	kill := func(w *world, names ...string) {
		for _, name := range names {
			w.hosts[name].diesAt = w.now
		}
	}
	t.Run("when the hosts answer again", func(t *testing.T) {
		w := newWorld(t, c)
		w.add(0, 3, time.Millisecond)
		w.run(time.Second)
		kill(w, "node0", "node1", "node2")
		w.run(time.Minute)
		if v := w.tracker.View(w.now); !v.Isolated || len(v.Offline) != 3 {
			t.Fatalf("after the cut: %+v", v)
		}
		for _, h := range w.hosts {
			h.diesAt = time.Time{}
		}
		w.run(time.Second)
		if v := w.tracker.View(w.now); v.Isolated || len(v.Offline) != 0 {
			t.Errorf("after its end: %+v", v)
		}
	})
	t.Run("when the others are dead for long", func(t *testing.T) {
		w := newWorld(t, c)
		w.add(0, 3, time.Millisecond)
		w.run(time.Second)
		kill(w, "node0", "node1")
		w.run(c.IsolationMemory - 2*c.Interval)
		if v := w.tracker.View(w.now); !v.Isolated {
			t.Fatalf("too early: %+v", v)
		}
		w.run(2 * time.Second)
		if v := w.tracker.View(w.now); v.Isolated || len(v.Offline) != 2 {
			t.Errorf("after %v: %+v", c.IsolationMemory, v)
		}
	})
	t.Run("never while nobody answers", func(t *testing.T) {
		w := newWorld(t, c)
		w.add(0, 2, time.Millisecond)
		w.run(time.Second)
		kill(w, "node0", "node1")
		w.run(time.Hour)
		if v := w.tracker.View(w.now); !v.Isolated {
			t.Errorf("after an hour: %+v", v)
		}
	})
	t.Run("one host alone is no sign of it", func(t *testing.T) {
		w := newWorld(t, c)
		w.add(0, 1, time.Millisecond)
		w.run(time.Second)
		kill(w, "node0")
		w.run(time.Second)
		if v := w.tracker.View(w.now); v.Isolated || len(v.Offline) != 1 {
			t.Errorf("%+v", v)
		}
	})
	t.Run("hosts that are dead for long have no vote", func(t *testing.T) {
		w := newWorld(t, c)
		w.add(0, 6, time.Millisecond)
		w.run(time.Second)
		kill(w, "node0", "node1")
		w.run(2 * c.IsolationMemory)
		kill(w, "node2", "node3")
		w.watch = func() {
			if v := w.tracker.View(w.now); v.Isolated {
				t.Fatalf("two of four that lived are most: %+v", v)
			}
		}
		w.run(time.Second)
	})
}

// Hosts that fall silent at almost one moment are found one after the other: those that
// are not offline yet are not reached any more when the first one is. While one is
// offline, the view shows whether others are heard.
//
// Mutant killed: heard-without-need.
func TestHeardMeanwhile(t *testing.T) {
	c := DefaultConfig()
	w := newWorld(t, c)
	w.add(0, 3, time.Millisecond)
	w.run(time.Second)
	if v := w.tracker.View(w.now); v.Heard != 0 {
		t.Fatalf("while all are well: %+v", v)
	}
	const apart = 100 * time.Millisecond
	w.hosts["node0"].diesAt, w.hosts["node1"].diesAt = w.now, w.now.Add(apart)
	found := false
	w.watch = func() {
		if v := w.tracker.View(w.now); len(v.Offline) == 1 {
			found = true
			if one := w.tracker.Host("node1"); one.Reached() || v.Heard != 1 {
				t.Fatalf("%+v, and node1 is %+v", v, one)
			}
		}
	}
	w.run(time.Second)
	if v := w.tracker.View(w.now); !found || len(v.Offline) != 2 || v.Heard != 1 {
		t.Errorf("found one before the other: %t, then %+v", found, v)
	}
	w.watch = func() {}
	w.hosts["node1"].diesAt = time.Time{}
	w.run(c.Interval)
	if v := w.tracker.View(w.now); v.Heard != 2 {
		t.Errorf("after one answered: %+v", v)
	}
}

// While a host is offline, it is news that another one is heard again.
//
// Mutant killed: heard-is-not-told.
func TestHeardIsNews(t *testing.T) {
	p, err := NewProber(ProberConfig{Config: DefaultConfig()})
	if err != nil {
		t.Fatal(err)
	}
	var targets []Target
	for i, name := range []string{"dead", "other"} {
		targets = append(targets, Target{Name: name, Addr: netip.AddrFrom4([4]byte{127, 0, 0, byte(2 + i)})})
	}
	if err := p.SetTargets(targets); err != nil {
		t.Fatal(err)
	}
	now := epoch()
	for i, step := range []struct {
		host    string
		outcome Outcome
		news    bool
	}{
		{"dead", Ready, false},
		{"other", Ready, true}, // all are known
		{"dead", Missed, false},
		{"other", Missed, false},
		{"other", Ready, false},
		{"dead", Missed, false},
		{"dead", Missed, true}, // offline
		{"other", Ready, false},
		{"other", Missed, true},
		{"other", Ready, true},
	} {
		select {
		case <-p.changed:
		default:
		}
		now = now.Add(time.Millisecond)
		p.mu.Lock()
		p.observe(now, report{host: step.host, Observation: Observation{Outcome: step.outcome}})
		p.mu.Unlock()
		if news := len(p.changed) > 0; news != step.news {
			t.Errorf("step %d: %s %v is news: %t, want %t", i, step.host, step.outcome, news, step.news)
		}
	}
}

// A host is not healed by being taken off the list and put back.
func TestDeadHostStaysDeadWhileItIsOffTheList(t *testing.T) {
	c := DefaultConfig()
	for _, away := range []struct {
		time time.Duration
		want State
	}{{time.Second, Offline}, {c.CalmAfter - time.Second, Offline}, {c.CalmAfter, Unknown}} {
		w := newWorld(t, c)
		w.add(0, 2, time.Millisecond)
		w.run(time.Second)
		dead := w.hosts["node0"]
		dead.diesAt = w.now
		w.run(time.Second)
		w.remove("node0")
		if v := w.tracker.View(w.now); len(v.Offline) != 0 {
			t.Fatalf("offline though not asked for: %v", v.Offline)
		}
		w.run(away.time)
		w.hosts["node0"] = dead
		w.tell()
		if got := w.tracker.Host("node0").State; got != away.want {
			t.Errorf("%v after %v away, want %v", got, away.time, away.want)
		}
		if n := len(w.tracker.away); n != 0 {
			t.Errorf("%d hosts are remembered as away", n)
		}
	}
}

func TestUnknownHostsAreNotJudged(t *testing.T) {
	tracker, err := NewTracker(DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	tracker.Observe("nobody", Observation{Outcome: Missed}, epoch())
	if v := tracker.View(epoch()); len(v.Offline) != 0 || !v.Settled || tracker.Host("nobody") != (Health{}) {
		t.Errorf("%+v", v)
	}
}
