package record

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// running is a recorder whose Run has begun; stop ends it.
type running struct {
	*Recorder
	stop    func()
	problem atomic.Pointer[string]
}

func run(t *testing.T, c Config) *running {
	t.Helper()
	r := &running{}
	c.Now = time.Now
	c.Problem = func(err error) {
		text := ""
		if err != nil {
			text = err.Error()
		}
		r.problem.Store(&text)
	}
	if c.AtMost == 0 {
		c.AtMost = 1 << 20
	}
	r.Recorder = New(c)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	r.stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	return r
}

// told is an answer in short: each row as the seconds since the test began.
func told(t *testing.T, q Query, began time.Time, answers ...*Recorder) string {
	t.Helper()
	var all [][]Segment
	for _, r := range answers {
		a, err := r.Answer(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, a.Segments)
	}
	var text []string
	for _, r := range Rows(Merge(all...), q, time.Now()) {
		from := "-"
		if !r.From.IsZero() {
			from = fmt.Sprint(int(r.From.Sub(began).Round(time.Second).Seconds()))
		}
		row := fmt.Sprintf("%s..%d ", from, int(r.To.Sub(began).Round(time.Second).Seconds()))
		switch {
		case r.Gap && r.Stopped:
			row += "gap after " + r.Writer + " stopped"
		case r.Gap:
			row += strings.TrimSuffix("gap after "+r.Writer, " after ")
		default:
			row += r.IP + "@" + r.Host
			if r.Found {
				row += " found"
			}
			if r.Open {
				row += " open"
			}
		}
		text = append(text, row)
	}
	return strings.Join(text, "; ")
}

func expect(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s:\n got %s\nwant %s", what, got, want)
	}
}

// TestTwoTerms: what was recorded outlives the controller; the time without one is a gap, and so is
// what a controller that crashed did not write any more: at most half a minute and a bit. Another
// replica that does not record tells the same.
func TestTwoTerms(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		a := run(t, Config{Dir: dir, Writer: "node1", Term: "a"})
		time.Sleep(time.Second)
		a.Record(Change{Use: use("10.0.0.9", "never")}) // it does not lead yet
		a.Begin([]Use{use("10.0.0.1", "node1")})
		time.Sleep(10 * time.Second)
		a.Record(Change{Use: use("10.0.0.1", "node2"), From: "node1", Reason: "Assigned"})
		a.Record(Change{Use: use("10.0.0.2", "node2"), Reason: "Assigned"})
		time.Sleep(10 * time.Second)
		expect(t, "a leader", told(t, Query{}, began, a.Recorder), "-..1 gap; 1..11 10.0.0.1@node1 found; 11..21 10.0.0.1@node2 open; 11..21 10.0.0.2@node2 open")
		a.stop()
		expect(t, "one that stopped", told(t, Query{IP: "10.0.0.2"}, began, a.Recorder), "-..1 gap; 11..21 10.0.0.2@node2 open")
		time.Sleep(10 * time.Second)

		b := run(t, Config{Dir: dir, Writer: "node2", Term: "b"})
		standby := New(Config{Dir: dir, Writer: "node3", Term: "c", Now: time.Now})
		expect(t, "a standby", told(t, Query{IP: "10.0.0.2"}, began, standby), "-..1 gap; 11..21 10.0.0.2@node2 open; 21..31 gap after node1 stopped")
		b.Begin([]Use{use("10.0.0.1", "node2")})
		time.Sleep(100 * time.Second)
		want := "-..1 gap; 1..11 10.0.0.1@node1 found; 11..21 10.0.0.1@node2 open; 21..31 gap after node1 stopped; 31..%d 10.0.0.1@node2 found open"
		expect(t, "the next leader", told(t, Query{IP: "10.0.0.1"}, began, b.Recorder), fmt.Sprintf(want, 131))
		expect(t, "both", told(t, Query{IP: "10.0.0.1"}, began, standby, b.Recorder), fmt.Sprintf(want, 131))
		synctest.Wait()
		// What a crash leaves behind: the last mark that it is alive was 10 seconds ago.
		expect(t, "after a crash", told(t, Query{IP: "10.0.0.1"}, began, standby), fmt.Sprintf(want, 121)+"; 121..131 gap after node2")
		expect(t, "of a time", told(t, Query{IP: "10.0.0.1", From: began.Add(15 * time.Second), To: began.Add(25 * time.Second)}, began, standby),
			"11..21 10.0.0.1@node2 open; 21..31 gap after node1 stopped")
		b.stop()
	})
}

// TestWithoutAVolume: what was recorded since the controller leads is in memory, and only that.
func TestWithoutAVolume(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		r := run(t, Config{Writer: "node1", Term: "a"})
		defer r.stop()
		time.Sleep(time.Second)
		r.Begin(nil)
		for i := range keptAtMost + 10 {
			r.Record(Change{Use: use("10.0.0.1", fmt.Sprintf("node%d", i%2))})
			time.Sleep(time.Second)
		}
		a, err := r.Answer(t.Context(), Query{})
		if err != nil || a.Durable || len(a.Segments) != 1 || len(a.Segments[0].Periods) > keptAtMost+1 {
			t.Fatalf("durable: %t, %d segments, %v", a.Durable, len(a.Segments), err)
		}
		if s := a.Segments[0]; s.From.Sub(began) < 2000*time.Second || s.Periods[0].From.Before(s.From) {
			t.Errorf("it knows from %s on, and says from %s on", s.From, s.Periods[0].From)
		}
	})
}

// TestFullDisk: a volume without room stops nothing. It is reported, once, and what happens meanwhile is
// known as long as the controller lives; in the files it is a gap. When there is room again, it goes on.
// That is a real file system with a few kilobytes.
//
// Mutant: record-believes-writes.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("record", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("a tmpfs cannot be mounted: %v", err)
	}
	defer func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	}()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		r := run(t, Config{Dir: dir, Writer: "node1", Term: "a"})
		r.Begin([]Use{use("10.0.0.1", "node1")})
		time.Sleep(time.Second)
		ballast := filepath.Join(dir, "ballast")
		fill(t, ballast)
		var hosts int
		for ; r.problem.Load() == nil || *r.problem.Load() == ""; hosts++ { // the last page of the file has room
			r.Record(Change{Use: use("10.0.0.1", fmt.Sprintf("node%d", hosts%2)), From: "x"})
			time.Sleep(time.Millisecond)
			synctest.Wait()
			if hosts > 1000 {
				t.Fatal("a full disk is not reported")
			}
		}
		if text := *r.problem.Load(); !strings.Contains(text, "no space left") {
			t.Errorf("reported: %s", text)
		}
		time.Sleep(100 * time.Second)
		r.Record(Change{Use: use("10.0.0.2", "node2"), Reason: "Assigned"})
		time.Sleep(19 * time.Second)
		if got := told(t, Query{IP: "10.0.0.2"}, began, r.Recorder); got != "-..0 gap; 101..120 10.0.0.2@node2 open" {
			t.Errorf("while the disk is full: %s", got)
		}
		if a, err := r.Answer(t.Context(), Query{}); err != nil || !strings.Contains(a.Problem, "no space left") {
			t.Errorf("the problem is %q, %v", a.Problem, err)
		}
		if err := os.Remove(ballast); err != nil {
			t.Fatal(err)
		}
		time.Sleep(triesEvery + time.Second)
		synctest.Wait()
		if text := *r.problem.Load(); text != "" {
			t.Errorf("there is room again: %s", text)
		}
		r.stop()
		other := New(Config{Dir: dir, Writer: "node2", Term: "b", Now: time.Now})
		if got := told(t, Query{IP: "10.0.0.2"}, began, other); got != "-..0 gap; 1..130 gap after node1; 101..131 10.0.0.2@node2 open" {
			t.Errorf("in the files: %s", got)
		}
	})
}

// fill fills a file system.
func fill(t *testing.T, name string) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for page := make([]byte, 4096); ; {
		if _, err := f.Write(page); err != nil {
			if !errors.Is(err, syscall.ENOSPC) {
				t.Fatal(err)
			}
			return
		}
	}
}

// TestVolumeThatCannotBeUsed: without its directory, and with one that can only be read, a controller
// records in memory.
func TestVolumeThatCannotBeUsed(t *testing.T) {
	readOnly := t.TempDir()
	if err := syscall.Mount("record", readOnly, "tmpfs", syscall.MS_RDONLY, ""); err != nil {
		t.Skipf("a tmpfs cannot be mounted: %v", err)
	}
	defer func() {
		if err := syscall.Unmount(readOnly, 0); err != nil {
			t.Error(err)
		}
	}()
	for dir, want := range map[string]string{readOnly: "read-only file system", filepath.Join(t.TempDir(), "none"): "no such file"} {
		synctest.Test(t, func(t *testing.T) {
			r := run(t, Config{Dir: dir, Writer: "node1", Term: "a"})
			r.Begin([]Use{use("10.0.0.1", "node1")})
			synctest.Wait()
			if text := r.problem.Load(); text == nil || !strings.Contains(*text, want) {
				t.Errorf("%s: reported %v, want %q", dir, text, want)
			}
			r.stop()
		})
	}
}

// TestManyChangesAtOnce: recording does not wait for a disk, and what is too much for it is a gap in the
// files, not a hole.
func TestManyChangesAtOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := New(Config{Dir: dir, AtMost: 1 << 20, Writer: "node1", Term: "a", Now: time.Now})
	r.Begin(nil)
	f := &files{dir: dir, writer: "node1", atMost: 1 << 20}
	var segments int
	r.flush(f, &segments)
	for i := range waitAtMost + 5 {
		r.Record(Change{Use: use("10.0.0.1", fmt.Sprintf("node%d", i%2)), From: "x"})
	}
	r.Record(Change{Use: use("10.0.0.1", "node7"), From: "x"})
	r.flush(f, &segments)
	f.close()
	stored, err := read(dir, Query{})
	if err != nil || len(stored) != 2 || len(stored[0].Periods) != 0 || len(stored[1].Periods) != 1 || stored[1].Periods[0].Host != "node7" {
		t.Errorf("%+v, %v", stored, err)
	}
}
