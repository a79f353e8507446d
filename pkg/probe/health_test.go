package probe

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// epoch is when all pure tests begin.
func epoch() time.Time { return time.Unix(1_700_000_000, 0) }

// story plays outcomes, one an interval, written as one letter each:
// r Ready, m Missed, n Unready, x Refused, l Late.
type story struct {
	config Config
	health Health
	now    time.Time
}

func tell() *story { return &story{config: DefaultConfig(), now: epoch()} }

func (s *story) play(outcomes string) Health {
	for _, o := range outcomes {
		kind := map[rune]Outcome{'r': Ready, 'm': Missed, 'n': Unready, 'x': Refused, 'l': Late}[o]
		s.health = s.config.Next(s.health, Observation{Outcome: kind}, s.now)
		s.now = s.now.Add(s.config.Interval)
	}
	return s.health
}

func TestJudgements(t *testing.T) {
	for _, c := range []struct {
		name, outcomes string
		want           State
		cause          Cause
	}{
		{"nothing is known at first", "", Unknown, NoCause},
		{"one answer is enough for a host that never failed", "r", Online, NoCause},
		{"a host that never answered needs three misses", "mm", Unknown, NoCause},
		{"and then is offline", "mmm", Offline, Silent},
		{"one miss makes a suspect", "rm", Suspect, NoCause},
		{"two misses leave it at that", "rmm", Suspect, NoCause},
		{"the third in a row takes it offline", "rmmm", Offline, Silent},
		{"an answer takes the suspicion away", "rmmr", Online, NoCause},
		{"isolated misses do not add up", "rmmrmmrmmrmm", Suspect, NoCause},
		{"one answer \"not ready\" moves nothing", "rn", Suspect, NoCause},
		{"the second does", "rnn", Offline, NotReady},
		{"also with a miss in between", "rnmn", Offline, NotReady},
		{"a repair within an interval moves nothing", "rnrnrnr", Online, NoCause},
		{"one answer does not bring a host back", "rmmmr", Offline, Silent},
		{"nor do three before the hold-down is over", "rmmmrrr", Offline, Silent},
		{"the hold-down counts from the fall", "rmmmrrrrrrrrrr", Online, NoCause},
		{"a miss on the way back begins again", "rmmmmmmmmmmrrmrr", Offline, Silent},
		{"three in a row then bring it back", "rmmmmmmmmmmrrmrrr", Online, NoCause},
		{"a host without an agent lives", "rxxxxx", Online, NoCause},
		{"though most refusals are not sent", "rxmmmmxmmmmxmmmm", Online, NoCause},
		{"until the last refusal is too old", "rxmmmmmmmmmm", Offline, Silent},
		{"a refusal does not bring a host back", "rmmmxxxxxxxxxxxxxxxx", Offline, Silent},
		{"a host that says it is not ready may die", "rnnmmm", Offline, Silent},
		{"but two misses do not show that", "rnnmm", Offline, NotReady},
		{"one that was silent may say that it is not ready", "rmmmnn", Offline, NotReady},
		{"late answers keep a slow host", "rmlmlmlmlml", Online, NoCause},
		{"and do not bring it back", "rmmmmlmlmlmlmlmlmlmlmlml", Offline, Silent},
	} {
		t.Run(c.name, func(t *testing.T) {
			if h := tell().play(c.outcomes); h.State != c.want || h.Cause != c.cause {
				t.Errorf("after %q: %v %v, want %v %v", c.outcomes, h.State, h.Cause, c.want, c.cause)
			}
		})
	}
}

func TestAgentMayBeAwayForItsGraceAndNoLonger(t *testing.T) {
	s := tell()
	s.play("r")
	for gone := s.now; s.now.Sub(gone) < s.config.AgentGrace; {
		if h := s.play("xmmmm"); h.State == Offline && s.now.Sub(gone) < s.config.AgentGrace {
			t.Fatalf("offline %v after the agent went", s.now.Sub(gone))
		}
	}
	if h := s.play("x"); h.State != Offline || h.Cause != NoAgent {
		t.Errorf("after the grace: %v %v", h.State, h.Cause)
	}
	// A host without an agent may die as well.
	if h := s.play("mmmmmmmmmmmm"); h.State != Offline || h.Cause != Silent {
		t.Errorf("after it died: %v %v", h.State, h.Cause)
	}
	// What its kernel says when it is back is not about what the agent left behind.
	if h := s.play("xmmmmxmmmmxmmmm"); h.State != Offline || h.Cause != Silent {
		t.Errorf("after it booted: %v %v", h.State, h.Cause)
	}
	s = tell()
	s.config.AgentGrace = 0
	if h := s.play("rxxx"); h.State != Offline || h.Cause != Silent {
		t.Errorf("without a grace: %v %v", h.State, h.Cause)
	}
}

func TestRestartIsInformation(t *testing.T) {
	c := DefaultConfig()
	var h Health
	for i, instance := range []uint64{7, 7, 9, 9, 7} {
		h = c.Next(h, Observation{Outcome: Ready, Instance: instance}, epoch().Add(time.Duration(i)*c.Interval))
		if h.State != Online {
			t.Fatalf("a restart made the host %v", h.State)
		}
	}
	if h.Restarts != 2 || h.Instance != 7 {
		t.Errorf("saw %d restarts, instance %d", h.Restarts, h.Instance)
	}
}

// A host is held while it answers and its hold-down is not over, and at no other time:
// as soon as it is over, the host is back. Kills the mutants "held-by-one-answer"
// (Held asks for one good answer) and "held-though-online" (Held forgets the state).
func TestPropertyHeldIsWellAndWaiting(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := &story{config: DefaultConfig(), now: epoch()}
		history(t, s, func(before, after Health) {
			well := after.good >= s.config.OnlineAfter
			if got, want := s.config.Held(after), well && after.State == Offline; got != want {
				t.Fatalf("held: %t, want %t, of %+v", got, want, after)
			}
			if s.config.Held(after) && !s.now.Before(after.HoldUntil) {
				t.Fatalf("held after its hold-down: %+v at %v", after, s.now)
			}
			if s.config.Held(before) && after.State == Offline && after.good > 0 && !s.config.Held(after) {
				t.Fatalf("no longer held though it answered: %+v, then %+v", before, after)
			}
		})
	})
}

// TestPropertyReachedIsHeard: a host is reached when the last probe had any answer, or
// its kernel has just refused one, whatever becomes of its state.
func TestPropertyReachedIsHeard(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := &story{config: DefaultConfig(), now: epoch()}
		history(t, s, func(_, after Health) {
			excused := !after.refused.IsZero() && s.now.Sub(after.refused) <= s.config.RefusalHold
			if got, want := after.Reached(), after.LastAlive.Equal(s.now) || excused; got != want {
				t.Fatalf("reached: %t, want %t, of %+v at %v", got, want, after, s.now)
			}
		})
	})
}

// outcome draws one, good and bad ones evenly.
func outcome() *rapid.Generator[Outcome] {
	return rapid.SampledFrom([]Outcome{Ready, Ready, Ready, Missed, Missed, Unready, Refused, Late})
}

// history plays drawn outcomes; an enemy that knows the judgement plays some of
// the time, and does what makes the host come and go most often.
func history(t *rapid.T, s *story, each func(before, after Health)) {
	step := func(o Outcome) {
		before := s.health
		s.health = s.config.Next(s.health, Observation{Outcome: o}, s.now)
		each(before, s.health)
		s.now = s.now.Add(s.config.Interval)
	}
	for range rapid.IntRange(1, 8).Draw(t, "chapters") {
		length := rapid.IntRange(1, 900).Draw(t, "length")
		if rapid.Bool().Draw(t, "enemy") {
			for range length {
				if s.health.State == Offline {
					step(Ready)
				} else {
					step(Missed)
				}
			}
			continue
		}
		run := rapid.SliceOfN(outcome(), 1, 12).Draw(t, "run")
		for i := range length {
			step(run[i%len(run)])
		}
	}
}

// Kills the mutant "failures-add-up": count does not set bad to 0 at Ready.
func TestPropertyNoLossBelowTheBoundTakesAHostOffline(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := tell()
		s.config.OfflineAfter = rapid.IntRange(1, 6).Draw(t, "offline after")
		lost := 0
		for _, miss := range rapid.SliceOfN(rapid.Bool(), 1, 400).Draw(t, "misses") {
			o := Ready
			if lost++; miss && lost < s.config.OfflineAfter {
				o = Missed
			} else {
				lost = 0
			}
			s.health = s.config.Next(s.health, Observation{Outcome: o}, s.now)
			s.now = s.now.Add(s.config.Interval)
			if s.health.State == Offline {
				t.Fatalf("offline with at most %d misses in a row, offline after %d", s.config.OfflineAfter-1, s.config.OfflineAfter)
			}
		}
	})
}

// Kills the mutants "returns-at-once" (Next does not ask for HoldUntil) and
// "hold-down-stays" (offline does not count flaps).
func TestPropertyNoPatternMakesAHostFlap(t *testing.T) {
	// 2, 4, 8, 16, 32 and 60 seconds: six falls fit into two minutes.
	const most = 6
	rapid.Check(t, func(t *rapid.T) {
		s := tell()
		var falls []time.Time
		history(t, s, func(before, after Health) {
			if before.State == Offline || after.State != Offline {
				return
			}
			falls = append(falls, s.now)
			if n := len(falls); n > most && falls[n-1].Sub(falls[n-1-most]) < s.config.CalmAfter {
				t.Fatalf("%d falls within %v", most+1, falls[n-1].Sub(falls[n-1-most]))
			}
		})
	})
}

// Kills the mutants "hold-down-without-bound" (offline does not compare with
// MaxHoldDown) and "never-back" (good is not counted while offline).
func TestPropertyAHostThatAnswersIsBackInTime(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := tell()
		history(t, s, func(Health, Health) {})
		began := s.now
		for s.health.State != Online {
			s.play("r")
			if s.now.Sub(began) > s.config.MaxHoldDown+time.Duration(s.config.OnlineAfter)*s.config.Interval {
				t.Fatalf("%v after %v of answers", s.health.State, s.now.Sub(began))
			}
		}
	})
}

// Kills the mutant "excused-for-ever": count does not look at RefusalHold.
func TestPropertyAHostThatIsSilentIsOffline(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := tell()
		history(t, s, func(Health, Health) {})
		began, excused := s.now, time.Duration(0)
		if !s.health.bereft.IsZero() {
			excused = s.config.RefusalHold
		}
		for s.health.State != Offline {
			s.play("m")
			if s.now.Sub(began) > excused+time.Duration(s.config.OfflineAfter+1)*s.config.Interval {
				t.Fatalf("%v after %v of silence", s.health.State, s.now.Sub(began))
			}
		}
	})
}

// Which agent answers, and how fast within the timeout, does not matter; nor
// can anything else be told. Kills the mutants "slow-is-bad" (count adds to bad
// what took more than half the timeout) and "restart-is-failure" (an other
// instance sets good to 0).
func TestPropertyOnlyOutcomesDecide(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c, now := DefaultConfig(), epoch()
		var plain, told Health
		for _, o := range rapid.SliceOfN(outcome(), 1, 200).Draw(t, "outcomes") {
			plain = c.Next(plain, Observation{Outcome: o}, now)
			told = c.Next(told, Observation{
				Outcome:  o,
				Instance: rapid.Uint64Range(0, 3).Draw(t, "instance"),
				RTT:      time.Duration(rapid.Int64Range(0, int64(c.Timeout)).Draw(t, "rtt")),
			}, now)
			now = now.Add(c.Interval)
			if plain.State != told.State || plain.Cause != told.Cause {
				t.Fatalf("%v %v, but %v %v with instance and round-trip time", plain.State, plain.Cause, told.State, told.Cause)
			}
		}
	})
}

func TestConfigNamesWhatCannotWork(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Fatal(err)
	}
	for i, spoil := range []func(*Config){
		func(c *Config) { c.Interval = 0 },
		func(c *Config) { c.Interval = time.Hour },
		func(c *Config) { c.Timeout = c.Interval + 1 },
		func(c *Config) { c.Timeout = 0 },
		func(c *Config) { c.SuspectAfter = 0 },
		func(c *Config) { c.OfflineAfter = 0 },
		func(c *Config) { c.NotReadyAfter = 0 },
		func(c *Config) { c.OnlineAfter = 0 },
		func(c *Config) { c.HoldDown = -1 },
		func(c *Config) { c.MaxHoldDown = c.HoldDown - 1 },
		func(c *Config) { c.CalmAfter = c.MaxHoldDown },
		func(c *Config) { c.AgentGrace = -1 },
		func(c *Config) { c.RefusalHold = 0 },
		func(c *Config) { c.IsolationMemory = c.DetectionTime() },
	} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			c := DefaultConfig()
			spoil(&c)
			if err := c.Validate(); err == nil {
				t.Errorf("valid: %+v", c)
			}
			if _, err := NewTracker(c); err == nil {
				t.Error("a tracker works with it")
			}
		})
	}
}

// Whatever interval is chosen, the other numbers fit it.
func TestWithInterval(t *testing.T) {
	for _, interval := range []time.Duration{0, 10 * time.Millisecond, 200 * time.Millisecond, 5 * time.Second, time.Minute} {
		c := DefaultConfig().WithInterval(interval)
		if err := c.Validate(); err != nil {
			t.Errorf("interval %s: %v", interval, err)
		}
		if interval > 0 && c.Interval != interval {
			t.Errorf("interval is %s, want %s", c.Interval, interval)
		}
	}
}
