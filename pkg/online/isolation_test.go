package online_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/egressip-operator/egressip-operator/pkg/online"
)

// TestPropertyOnlyTheCutOffWithdraw: a host never withdraws its addresses while it
// reaches the API server or a majority, always does when it has reached neither for
// long enough, and takes them back only when the API server has confirmed them.
//
// Mutants killed: not-one-of-the-majority, deaf-to-the-api, back-by-majority,
// blocked-probes-are-isolation.
func TestPropertyOnlyTheCutOffWithdraw(t *testing.T) {
	const after = time.Second
	rapid.Check(t, func(t *rapid.T) {
		now := time.Unix(1e9, 0)
		var i online.Isolation
		var api time.Time
		var alone time.Duration // without majority and API server, at least
		lost := false
		var lostAt time.Time
		watched, answering, there := 5, 0, true
		for range rapid.IntRange(1, 60).Draw(t, "looks") {
			step := time.Duration(rapid.IntRange(1, 400).Draw(t, "milliseconds")) * time.Millisecond
			now = now.Add(step)
			// What is so stays so for a while: a firewall that blocks probes is there for
			// many looks.
			if rapid.IntRange(0, 7).Draw(t, "others") == 0 {
				watched = rapid.IntRange(0, 5).Draw(t, "watched")
				answering = rapid.IntRange(0, watched).Draw(t, "answering")
			}
			if rapid.IntRange(0, 7).Draw(t, "API server changes") == 0 {
				there = !there
			}
			c := online.Contact{Watched: watched, Answering: answering}
			if there && rapid.Bool().Draw(t, "asked") {
				api, c.Current = now, rapid.Bool().Draw(t, "current")
			}
			c.API = api
			majority := c.Answering+1 > c.Watched-c.Answering
			reached := majority || api.Equal(now)
			if reached {
				alone = 0
			} else if lost {
				alone += step
			}
			if majority {
				lostAt = time.Time{}
			} else if lostAt.IsZero() {
				lostAt = now
			}
			lost = !majority
			// The API server has answered for long without a majority: probes are at fault.
			limit := after
			if !majority && api.Sub(lostAt) >= after {
				limit = 10 * after
			}
			was := i
			i = i.Next(c, after, now)
			switch {
			case !was.Withdrawn && i.Withdrawn && reached:
				t.Fatalf("withdraws though it reaches %+v", c)
			case !i.Withdrawn && alone >= limit && !was.Withdrawn:
				t.Fatalf("has reached nobody for %s, and does not withdraw", alone)
			case !was.Withdrawn && i.Withdrawn && alone < limit:
				t.Fatalf("withdraws after %s", alone)
			case was.Withdrawn && !i.Withdrawn && !c.Current:
				t.Fatalf("takes addresses back without knowing whether they are its own: %+v", c)
			case was.Withdrawn && i.Withdrawn && c.Current:
				t.Fatalf("knows that its addresses are its own, and does not take them back")
			case (i.Withdrawn || !majority) && !i.Uncertain():
				t.Fatalf("does not ask the API server: %+v", c)
			}
		}
		if i.Next(online.Contact{Watched: 3}, 0, now).Withdrawn {
			t.Fatal("withdraws though it never shall")
		}
	})
}
