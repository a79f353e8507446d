package controllers

import (
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// TestPropertyOneWriterOfClaims: whatever is delayed, lost, paused, cut off or wrongly
// considered dead, and however clocks jump, no two controllers write claims in turns, no address is on two lists,
// and when all is well again one controller leads and everything is claimed. Elector,
// lock, reconciler and fence are those of the program; the API and the time are not.
//
// Mutant killed: fence-not-checked.
func TestPropertyOneWriterOfClaims(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		h := drawHistory(rt)
		var wrong string
		synctest.Test(t, func(*testing.T) { wrong = h.run() })
		if wrong != "" {
			rt.Fatal(wrong)
		}
	})
}

func drawHistory(t *rapid.T) history {
	h := history{
		seed:     rapid.Uint64().Draw(t, "seed"),
		requests: rapid.IntRange(1, 4).Draw(t, "requests"),
		loss:     rapid.SampledFrom([]int{0, 0, 5, 20}).Draw(t, "loss"),
	}
	milliseconds := func(most time.Duration, what string) time.Duration {
		return time.Duration(rapid.Int64Range(0, most.Milliseconds()).Draw(t, what)) * time.Millisecond
	}
	spans := func(what string) []span {
		var all []span
		for range rapid.IntRange(0, 3).Draw(t, what) {
			from := milliseconds(troubled, what+" from")
			all = append(all, span{from, min(troubled, from+milliseconds(12*time.Second, what+" for"))})
		}
		return all
	}
	for range rapid.IntRange(2, 3).Draw(t, "controllers") {
		h.plights = append(h.plights, plight{
			paused: spans("paused"), cut: spans("cut"),
			refused: spans("refused"), unwritten: rapid.SampledFrom([]string{"node0", "node1", "node2"}).Draw(t, "unwritten"),
			fooled: spans("fooled"), lag: milliseconds(2*time.Second, "lag"),
			jumps: drawJumps(t), bare: rapid.Bool().Draw(t, "bare"),
		})
	}
	kinds := []string{"node flips", "node flips", "request flips", "host flips", "host flips", "Lease deleted", "mark restored"}
	if rapid.Bool().Draw(t, "tampered") {
		kinds = append(kinds, "mark removed")
	}
	for range rapid.IntRange(0, 25).Draw(t, "changes") {
		h.changes = append(h.changes, change{
			at: milliseconds(troubled, "at"), what: rapid.SampledFrom(kinds).Draw(t, "what"),
			host: rapid.SampledFrom([]string{"node0", "node1", "node2"}).Draw(t, "host"), i: rapid.IntRange(0, 99).Draw(t, "i"),
		})
	}
	return h
}
