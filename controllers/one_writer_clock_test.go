package controllers

import (
	"reflect"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/utils/clock"
	"pgregory.net/rapid"
)

// jumping is the clock of a controller: that of the model, plus the jumps until now.
// What waits, waits as long as the model says, as timers do.
type jumping struct {
	clock.RealClock
	link
}

func (j jumping) Now() time.Time {
	var by time.Duration
	for _, jump := range j.jumps {
		if jump.at <= j.now() {
			by += jump.by
		}
	}
	if j.bare {
		return time.Now().Round(0).Add(by)
	}
	return wallMoved(time.Now(), by)
}

func (j jumping) Since(t time.Time) time.Duration { return j.Now().Sub(t) }

// wear makes the elector, which offers no other way, use the clock.
func (j jumping) wear(elector *leaderelection.LeaderElector) {
	unexported(elector, "clock").Set(reflect.ValueOf(clock.Clock(j)))
}

// wallMoved is t as it reads after someone has set the clock by whole seconds: another
// time of day, and the same monotonic reading. Go keeps the seconds since 1885 from bit
// 30 of field wall on.
func wallMoved(t time.Time, by time.Duration) time.Time {
	wall := unexported(&t, "wall")
	wall.SetUint(wall.Uint() + uint64(int64(by/time.Second))<<30)
	return t
}

// unexported is a field of *object that can be set.
func unexported(object any, name string) reflect.Value {
	field := reflect.ValueOf(object).Elem().FieldByName(name)
	return reflect.NewAt(field.Type(), field.Addr().UnsafePointer()).Elem()
}

// lostTime reports whether a controller that reads no monotonic time was set back: it
// may wait for a moment that is long past, and what should happen in the end does not.
func (m *model) lostTime() bool {
	return slices.ContainsFunc(m.plights, func(p plight) bool {
		return p.bare && slices.ContainsFunc(p.jumps, func(j jump) bool { return j.by < 0 })
	})
}

func drawJumps(t *rapid.T) []jump {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) jump {
		return jump{
			at: time.Duration(rapid.Int64Range(0, troubled.Milliseconds()).Draw(t, "at")) * time.Millisecond,
			by: rapid.SampledFrom([]time.Duration{-time.Hour, -10 * time.Second, -time.Second, time.Second, 5 * time.Second, 10 * time.Second, time.Hour}).Draw(t, "by"),
		}
	}), 0, 4).Draw(t, "jumps")
}

// TestWallMoved: the clocks of the property are what they should be.
func TestWallMoved(t *testing.T) {
	for _, by := range []time.Duration{-time.Hour, 0, time.Second, 24 * time.Hour} {
		now := time.Now()
		moved := wallMoved(now, by)
		if got := moved.Sub(now); got != 0 {
			t.Errorf("moved by %v, the monotonic reading differs by %v", by, got)
		}
		if got := moved.Round(0).Sub(now.Round(0)); got != by {
			t.Errorf("moved by %v, the time of day differs by %v", by, got)
		}
	}
}

// TestClockOfAStandbyJumps: a standby whose time of day is set forward does not take the
// lead of a leader that pauses for a moment. One that had no monotonic reading would; then
// too, only one of them writes claims. This also shows that jumps reach the elector.
func TestClockOfAStandbyJumps(t *testing.T) {
	for bare, want := range map[bool]bool{false: false, true: true} {
		synctest.Test(t, func(t *testing.T) {
			leader := plight{paused: []span{{12 * time.Second, 13500 * time.Millisecond}}}
			standby := plight{paused: []span{{0, 3 * time.Second}}, bare: bare}
			for at := 10 * time.Second; at < troubled; at += 100 * time.Millisecond {
				standby.jumps = append(standby.jumps, jump{at: at, by: time.Hour})
			}
			flips := []change{{at: 13 * time.Second, what: "request flips"}, {at: 17 * time.Second, what: "request flips"}}
			m, wrong := history{seed: 1, requests: 3, plights: []plight{leader, standby}, changes: flips}.play()
			if wrong != "" {
				t.Errorf("without monotonic readings %v: %s", bare, wrong)
			}
			if changed := len(m.turns) > 1; changed != want {
				t.Errorf("without monotonic readings %v: the writers of claims were %v", bare, m.turns)
			}
		})
	}
}
