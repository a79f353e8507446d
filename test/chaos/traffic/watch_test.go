package traffic

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestLongest compares with a walk over every millisecond. Mutants that it
// kills: the gap before the first answer is left out; the one after the last
// is; a gap that ends after until does not count.
func TestLongest(t *testing.T) {
	zero := time.Unix(0, 0)
	at := func(ms int) time.Time { return zero.Add(time.Duration(ms) * time.Millisecond) }
	rapid.Check(t, func(t *rapid.T) {
		var times []Answer
		answered := map[int]bool{}
		for ms := range 60 {
			if rapid.IntRange(0, 4).Draw(t, "answered") == 0 {
				times = append(times, Answer{At: at(ms)})
				answered[ms] = true
			}
		}
		from := rapid.IntRange(0, 59).Draw(t, "from")
		until := rapid.IntRange(from+1, 80).Draw(t, "until")
		want := longestGap(answered, from, until)
		if got := Longest(gaps(times, at(from), at(until))).Length(); got != time.Duration(want)*time.Millisecond {
			t.Fatalf("answers %v, from %d until %d: %s, want %d ms", times, from, until, got, want)
		}
	})
}

// longestGap walks over every millisecond.
func longestGap(answered map[int]bool, from, until int) (longest int) {
	for start := range 81 {
		// A gap begins with an answer, or with from if there was none before.
		begins := answered[start]
		if start == from {
			begins = begins || !anyBefore(answered, from)
		}
		if !begins || start > until {
			continue
		}
		end := start + 1
		for end < 81 && !answered[end] {
			end++
		}
		if end == 81 {
			end = until
		}
		if end < from || end == from && !answered[from] {
			continue
		}
		longest = max(longest, end-start)
	}
	return longest
}

func anyBefore(answered map[int]bool, ms int) bool {
	for before := range ms {
		if answered[before] {
			return true
		}
	}
	return false
}
