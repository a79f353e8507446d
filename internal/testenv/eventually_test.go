package testenv

import (
	"context"
	"strings"
	"testing"
	"time"
)

func TestAwaitReturnsTheLastAnswer(t *testing.T) {
	t.Parallel()
	asked := 0
	count := func(enough int) func(context.Context) string {
		return func(context.Context) string {
			if asked++; asked >= enough {
				return ""
			}
			return strings.Repeat("x", asked)
		}
	}
	if got := Await(t.Context(), time.Minute, count(3)); got != "" || asked != 3 {
		t.Errorf("got %q after %d questions", got, asked)
	}
	asked = 0
	if got := Await(t.Context(), 5*pollEvery, count(1<<30)); got == "" || len(got) > asked {
		t.Errorf("got %q after %d questions", got, asked)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if got := Await(ended, time.Minute, func(context.Context) string { return "no" }); !strings.HasPrefix(got, "no") {
		t.Errorf("got %q", got)
	}
}

// A look that takes long is not followed by a pause in which most of the patience ends.
func TestPauseAfter(t *testing.T) {
	t.Parallel()
	for took, want := range map[time.Duration]time.Duration{
		0: pollEvery, time.Millisecond: pollEvery, 5 * time.Millisecond: 20 * time.Millisecond,
		50 * time.Millisecond: 100 * time.Millisecond, 3 * time.Second: 3 * time.Second,
	} {
		if got := pauseAfter(took); got != want {
			t.Errorf("after %v: %v, want %v", took, got, want)
		}
	}
}

// The answer that names what is wrong must not be lost to "context deadline
// exceeded" of the last question.
func TestAwaitPrefersAnAnswerFromBeforeTheEnd(t *testing.T) {
	t.Parallel()
	got := Await(t.Context(), 3*pollEvery, func(ctx context.Context) string {
		select {
		case <-ctx.Done():
			return ctx.Err().Error()
		default:
			return "no such host"
		}
	})
	if got != "no such host" {
		t.Errorf("got %q", got)
	}
}

// failures stands for a test that fails.
type failures struct {
	testing.TB
	said string
}

func (f *failures) Helper() {}

func (f *failures) Fatalf(format string, args ...any) { f.said = format }

func TestUntil(t *testing.T) {
	t.Parallel()
	f := &failures{TB: t}
	UntilWithin(f, time.Minute, "it holds", func() bool { return true })
	if f.said != "" {
		t.Errorf("failed with %q", f.said)
	}
	UntilWithin(f, pollEvery, "it holds", func() bool { return false })
	if f.said == "" {
		t.Error("a condition that never holds passes")
	}
}

func TestAddresses(t *testing.T) {
	t.Parallel()
	if got := Addrs("192.168.7.1", "192.168.7.2"); len(got) != 2 || got[1] != Addr("192.168.7.1").Next() {
		t.Errorf("got %v", got)
	}
	if got := Prefixes("192.168.7.0/24"); len(got) != 1 || !got[0].Contains(Addr("192.168.7.1")) || got[0] != Prefix("192.168.7.0/24") {
		t.Errorf("got %v", got)
	}
}

func TestStretch(t *testing.T) {
	for text, want := range map[string]time.Duration{"": time.Second, "1": time.Second, "2.5": 2500 * time.Millisecond} {
		t.Setenv(patienceVariable, text)
		if got := Stretch(time.Second); got != want {
			t.Errorf("%s=%q: %v, want %v", patienceVariable, text, got, want)
		}
	}
	for _, text := range []string{"0", "-1", "long"} {
		t.Setenv(patienceVariable, text)
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s=%q is taken", patienceVariable, text)
				}
			}()
			Stretch(time.Second)
		}()
	}
}
