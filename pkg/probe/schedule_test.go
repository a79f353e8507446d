package probe

import (
	"net/netip"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func drawDuration(t *rapid.T, label string, from, to time.Duration) time.Duration {
	return time.Duration(rapid.Int64Range(int64(from), int64(to)).Draw(t, label))
}

// A dead host is found in time, however many others there are, come, and go.
// Kills the mutants "all-begin-again" (set gives new phases to hosts that stay)
// and "one-more-miss" (Next compares bad > OfflineAfter).
func TestPropertyADeadHostIsFoundInTime(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := DefaultConfig()
		w := newWorld(&testing.T{}, c)
		w.add(0, rapid.IntRange(1, 30).Draw(t, "hosts"), drawDuration(t, "rtt", 0, c.Timeout-1))
		w.run(drawDuration(t, "before", time.Second, 2*time.Second))
		victim := w.hosts[rapid.SampledFrom(w.names()).Draw(t, "victim")]
		death := w.now
		victim.diesAt = death
		next := 100
		for w.tracker.Host(victim.Name).State != Offline {
			// What was answered before the death may arrive after it.
			if w.now.Sub(death) > c.DetectionTime() {
				t.Fatalf("%v %v after its death", w.tracker.Host(victim.Name).State, w.now.Sub(death))
			}
			if rapid.IntRange(0, 3).Draw(t, "churn") == 0 {
				w.add(next, rapid.IntRange(1, 20).Draw(t, "come"), time.Millisecond)
				next += 20
				for _, name := range w.names() {
					if name != victim.Name && rapid.Bool().Draw(t, "goes") {
						delete(w.hosts, name)
					}
				}
				w.tell()
			}
			w.run(drawDuration(t, "pause", time.Millisecond, 100*time.Millisecond))
		}
		for name, h := range w.tracker.hosts {
			if name != victim.Name && h.State == Offline {
				t.Fatalf("%s is offline, too", name)
			}
		}
	})
}

// Kills the mutants "late-is-lost" (expire forgets a question that it reports)
// and "late-is-nothing" (count does not lower bad at Late).
func TestPropertyASlowHostStaysOnline(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := DefaultConfig()
		w := newWorld(&testing.T{}, c)
		w.add(0, 3, drawDuration(t, "rtt", 0, 2*c.Interval))
		w.watch = func() {
			if v := w.tracker.View(w.now); len(v.Offline) > 0 {
				t.Fatalf("offline: %v", v.Offline)
			}
		}
		w.run(5 * time.Second)
		if v := w.tracker.View(w.now); !v.Settled {
			t.Fatal("not settled")
		}
	})
}

// A prober that was stopped (a busy processor, a paused machine) has unread
// answers and blames nobody. Kills the mutant "blames-others": expire gives no
// grace after a stall.
func TestPropertyAStalledProberBlamesNobody(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := DefaultConfig()
		c.OfflineAfter = 1 // each single wrong verdict shows
		w := newWorld(&testing.T{}, c)
		// So many, and so slow, that answers are under way at any moment.
		w.add(0, rapid.IntRange(20, 40).Draw(t, "hosts"), drawDuration(t, "rtt", c.Timeout/4, c.Timeout/2))
		w.run(time.Second)
		for range rapid.IntRange(1, 5).Draw(t, "stalls") {
			// From any moment within the interval on.
			w.run(drawDuration(t, "work", 0, c.Interval))
			w.paused = w.now.Add(drawDuration(t, "stall", c.Timeout, 5*time.Second))
			w.run(w.paused.Sub(w.now) + time.Second)
			for name, h := range w.tracker.hosts {
				if h.State != Online || !h.OfflineSince.IsZero() {
					t.Fatalf("%s is %v, offline at %v", name, h.State, h.OfflineSince)
				}
			}
		}
	})
}

// Probes leave evenly, one for each host and interval. Kills the mutants
// "all-at-once" (set gives all the same phase) and "drifts" (step counts the
// next question from now).
func TestPropertyProbesAreSpread(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := DefaultConfig()
		w := newWorld(&testing.T{}, c)
		w.lag = drawDuration(t, "lag", 0, time.Millisecond)
		total := 0
		for range rapid.IntRange(1, 4).Draw(t, "groups") {
			n := rapid.IntRange(1, 100).Draw(t, "hosts")
			w.add(total, n, time.Millisecond)
			total += n
			w.run(drawDuration(t, "between", 0, time.Second))
		}
		w.run(c.Interval)
		w.asked = nil
		w.run(20 * c.Interval)
		count, first := map[string]int{}, map[string]time.Time{}
		for _, q := range w.asked {
			if first[q.host].IsZero() {
				first[q.host] = q.at
			}
			whole := time.Duration(count[q.host]) * c.Interval
			if off := q.at.Sub(first[q.host]) - whole; off.Abs() > c.granularity()+w.lag {
				t.Fatalf("%s has left its place in the interval by %v", q.host, off)
			}
			count[q.host]++
		}
		for name, n := range count {
			if n < 19 || n > 21 { // one is late, or early, by the granularity
				t.Fatalf("%s was asked %d times in 20 intervals", name, n)
			}
		}
		if len(count) != total {
			t.Fatalf("%d of %d hosts were asked", len(count), total)
		}
		// Within a tenth of the interval: a tenth of the hosts, and little more.
		from, window := 0, c.Interval/10
		for i, q := range w.asked {
			for q.at.Sub(w.asked[from].at) > window {
				from++
			}
			if got := i - from + 1; got > total/10+total/20+4 {
				t.Fatalf("%d of %d probes within %v", got, total, window)
			}
		}
	})
}

// Only the answer to an open question counts. Kills the mutants that drop one of
// the conditions of answer: "any-address", "any-sequence", "any-host",
// "question-answers", "answers-twice".
func TestPropertyForgedAnswersSayNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := DefaultConfig()
		w := newWorld(&testing.T{}, c)
		w.add(0, 2, time.Millisecond)
		w.run(drawDuration(t, "before", time.Second, 2*time.Second))
		from := w.hosts["node0"].Addr
		questions, _ := w.schedule.step(w.now.Add(c.Interval), nil)
		var good Message
		for _, q := range questions {
			if q.addr == from {
				good = q.message
			}
		}
		good.Kind, good.Ready, good.Instance = Answer, true, 1
		forged, sender := good, from
		switch rapid.IntRange(0, 5).Draw(t, "forgery") {
		case 0:
			forged.Token += rapid.Uint64Range(1, 1<<62).Draw(t, "token")
		case 1:
			forged.Sequence += rapid.Uint64Range(1, 1<<62).Draw(t, "sequence")
		case 2:
			forged.Host += rapid.Uint64Range(1, 1<<62).Draw(t, "host")
		case 3:
			forged.Kind = Question
		case 4:
			sender = w.hosts["node1"].Addr
		case 5:
			if _, ok := w.schedule.answer(good, from, w.now); !ok {
				t.Fatal("the true answer is not taken")
			}
		}
		if r, ok := w.schedule.answer(forged, sender, w.now); ok {
			t.Fatalf("taken: %+v from %v as %+v", forged, sender, r)
		}
	})
}

func TestRefusalsQuoteAnOpenQuestion(t *testing.T) {
	w := newWorld(t, DefaultConfig())
	w.add(0, 1, time.Millisecond)
	addr := w.hosts["node0"].Addr
	questions, _ := w.schedule.step(w.now.Add(w.schedule.config.Interval), nil)
	quote := questions[0].message
	forged := quote
	forged.Token++
	if _, ok := w.schedule.refused(forged, addr); ok {
		t.Error("a refusal of a question that was not asked is taken")
	}
	if _, ok := w.schedule.refused(quote, netip.MustParseAddr("10.9.9.9")); ok {
		t.Error("a router's refusal is taken for the host's")
	}
	if r, ok := w.schedule.refused(quote, addr); !ok || r.Outcome != Refused || r.host != "node0" {
		t.Errorf("the refusal became %+v, %v", r, ok)
	}
	if _, ok := w.schedule.refused(quote, addr); ok {
		t.Error("the same refusal is taken twice")
	}
}

// The address of a host changes: what is under way to the old one is forgotten.
func TestHostThatMovesIsAskedAtItsNewAddress(t *testing.T) {
	w := newWorld(t, DefaultConfig())
	w.add(0, 1, time.Millisecond)
	w.run(time.Second)
	w.hosts["node0"].Addr = netip.MustParseAddr("10.9.9.9")
	w.tell()
	if len(w.schedule.open) != 0 {
		t.Errorf("%d questions are open to the old address", len(w.schedule.open))
	}
	w.run(time.Second)
	if h := w.tracker.Host("node0"); h.State != Online || h.LastAlive.Before(w.now.Add(-w.schedule.config.Interval)) {
		t.Errorf("%v, last alive at %v", h.State, h.LastAlive)
	}
}

// What was asked is forgotten: memory is bounded by the number of targets.
func TestScheduleForgets(t *testing.T) {
	w := newWorld(t, DefaultConfig())
	w.add(0, 10, time.Millisecond)
	w.hosts["node3"].diesAt = w.now.Add(time.Second)
	for range 100 {
		w.run(time.Second)
		s := w.schedule
		if n := len(s.open) + len(s.waiting) + len(s.late); n > 10*10 {
			t.Fatalf("%d questions are remembered", n)
		}
	}
	w.remove(w.names()...)
	w.run(time.Minute)
	if _, ok := w.schedule.wake(w.now); ok || len(w.schedule.open) != 0 {
		t.Errorf("there is work without targets: %d questions open", len(w.schedule.open))
	}
}
