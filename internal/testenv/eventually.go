package testenv

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"
)

// Patience is how long the wait for something that must happen may take: far
// longer than anything takes, as the machine may be busy with other tests.
const Patience = 30 * time.Second

// patienceVariable says how many times slower this machine is than a common one.
const patienceVariable = "EGRESSIP_TEST_PATIENCE"

// Stretch returns a span of time of a common machine as it is on this one: as many
// times longer as EGRESSIP_TEST_PATIENCE says. An emulated machine needs that, for its
// deadlines, and for the pauses of what sends without end. It panics if the variable is
// not a positive number: the run is wrong then.
func Stretch(span time.Duration) time.Duration {
	text := os.Getenv(patienceVariable)
	if text == "" {
		return span
	}
	factor, err := strconv.ParseFloat(text, 64)
	if err != nil || factor <= 0 {
		panic(fmt.Sprintf("%s=%s: not a positive number", patienceVariable, text))
	}
	return time.Duration(float64(span) * factor)
}

// pollEvery is the pause between two looks.
const pollEvery = 10 * time.Millisecond

// pauseAfter returns the pause after a look that took some time: four times that, so that quick
// looks, such as commands, take a fifth of a processor's time at most; but no more than 100 ms,
// unless the look itself took more.
func pauseAfter(took time.Duration) time.Duration {
	return max(pollEvery, took, min(4*took, 100*time.Millisecond))
}

// Eventually waits until wrong returns "", and fails the test with its last
// answer if that takes longer than Patience.
func Eventually(tb testing.TB, wrong func(context.Context) string) {
	tb.Helper()
	EventuallyWithin(tb, Patience, wrong)
}

// EventuallyWithin waits until wrong returns "", and fails the test with its
// last answer if that takes longer than the limit, stretched as the machine needs it.
func EventuallyWithin(tb testing.TB, limit time.Duration, wrong func(context.Context) string) {
	tb.Helper()
	limit = Stretch(limit)
	if last := Await(lifetime(tb), limit, wrong); last != "" {
		tb.Fatalf("still wrong after %v: %s", limit, last)
	}
}

// Until waits until a condition holds, and fails the test by its name if that
// takes longer than Patience.
func Until(tb testing.TB, what string, holds func() bool) {
	tb.Helper()
	UntilWithin(tb, Patience, what, holds)
}

// UntilWithin waits until a condition holds, and fails the test by its name if
// that takes longer than the limit, stretched as the machine needs it.
func UntilWithin(tb testing.TB, limit time.Duration, what string, holds func() bool) {
	tb.Helper()
	limit = Stretch(limit)
	if Await(lifetime(tb), limit, func(context.Context) string { return condition(what, holds) }) != "" {
		tb.Fatalf("waited %v in vain for: %s", limit, what)
	}
}

func condition(what string, holds func() bool) string {
	if holds() {
		return ""
	}
	return what
}

// Await waits until wrong returns "", the limit is over, or ctx ends, and returns
// the last answer: "" if all is well. The context of a question ends with the
// limit.
func Await(ctx context.Context, limit time.Duration, wrong func(context.Context) string) string {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	last := ""
	for {
		began := time.Now()
		now := wrong(ctx)
		switch {
		case now == "":
			return ""
		case ctx.Err() != nil && last != "":
			// The end of ctx may be all that is wrong now.
			return last
		case ctx.Err() != nil:
			return fmt.Sprintf("%s (%v)", now, ctx.Err())
		}
		last = now
		select {
		case <-ctx.Done(): // One more look: the process may have been kept waiting.
		case <-time.After(pauseAfter(time.Since(began))):
		}
	}
}

// lifetime is the test's context, or one without an end while the test cleans up.
func lifetime(tb testing.TB) context.Context {
	tb.Helper()
	ctx := tb.Context()
	if ctx.Err() != nil {
		return context.WithoutCancel(ctx)
	}
	return ctx
}
