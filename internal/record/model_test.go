package record

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// start is when all tests begin.
func start() time.Time { return time.Date(2026, 11, 24, 8, 0, 0, 0, time.UTC) }

// fact is what is so at some moment: the host of each egress IP that is used, by address.
type fact struct {
	at   time.Time
	uses map[string]string
	// term is that of the writer that records at that moment; 0 for none. recorded: it wrote a
	// line after that moment.
	term     int
	recorded bool
}

// room is what all files of a world may have: each has some ten lines.
const room = 10_000

// world is a cluster with several writers, of which one at a time records.
type world struct {
	dir     string
	now     time.Time
	uses    map[string]string
	terms   int
	files   *files // of the present term; nil if nobody records
	facts   []fact
	damaged bool
}

func (w *world) tick() { w.now = w.now.Add(time.Second) }

// note notes what is so between two steps.
func (w *world) note() {
	uses := maps.Clone(w.uses)
	f := fact{at: w.now.Add(-500 * time.Millisecond), uses: uses}
	if w.files != nil {
		f.term = w.terms
	}
	w.facts = append(w.facts, f)
}

func (w *world) begin(t *rapid.T) {
	w.stop(t, rapid.Bool().Draw(t, "stops"))
	w.terms++
	writer := rapid.SampledFrom([]string{"node1", "node2"}).Draw(t, "writer")
	b := newBuilder(&Query{}, &line{Time: w.now, Term: fmt.Sprintf("term%d", w.terms), Writer: writer})
	for ip, host := range w.uses {
		b.add(&line{Time: w.now, Kind: kindHeld, Change: Change{Use: use(ip, host)}})
	}
	w.files = &files{dir: w.dir, writer: writer, atMost: room}
	if err := w.files.begin(fmt.Sprintf("term%d.1", w.terms), b.lines(w.now)); err != nil {
		t.Fatal(err)
	}
}

// stop ends the term; cleanly, or by a crash that may cut off the last line.
func (w *world) stop(t *rapid.T, cleanly bool) {
	if w.files == nil {
		return
	}
	if cleanly {
		w.append(t, line{Time: w.now, Kind: kindEnd})
	} else if name := filepath.Join(w.dir, w.files.name); rapid.Bool().Draw(t, "torn") {
		f, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			t.Fatal(err)
		}
		whole := line{Time: w.now, Segment: "x", Number: 1, Kind: kindChange, Change: Change{Use: use("10.0.0.1", "never")}}
		text := whole.appendTo(nil)
		if _, err := f.Write(text[:rapid.IntRange(1, len(text)-1).Draw(t, "cut")]); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	w.files.close()
	w.files = nil
}

func (w *world) append(t *rapid.T, lines ...line) {
	if w.files == nil {
		return
	}
	if err := w.files.append(lines); err != nil {
		t.Fatal(err)
	}
	for i := range w.facts {
		w.facts[i].recorded = w.facts[i].recorded || w.facts[i].term == w.terms
	}
}

func use(ip, host string) Use {
	return Use{IP: ip, Group: "shop", UID: "uid-" + ip, NetID: 17, Host: host}
}

// change changes what is used, also while nobody records.
func (w *world) change(t *rapid.T) {
	ip := rapid.SampledFrom([]string{"10.0.0.1", "10.0.0.2", "10.0.0.3"}).Draw(t, "ip")
	host := rapid.SampledFrom([]string{"", "node1", "node2", "node3"}).Draw(t, "host")
	from := w.uses[ip]
	if from == host {
		return
	}
	if w.uses[ip] = host; host == "" {
		delete(w.uses, ip)
	}
	w.append(t, line{Time: w.now, Kind: kindChange, Change: Change{Use: use(ip, host), From: from, Reason: "Test"}})
}

// damage changes one byte of a file, as a broken disk does, or takes out a line.
func (w *world) damage(t *rapid.T) {
	names, err := list(w.dir)
	if err != nil || len(names) == 0 {
		return
	}
	name := filepath.Join(w.dir, rapid.SampledFrom(names).Draw(t, "file"))
	text, err := os.ReadFile(name)
	if err != nil || len(text) == 0 {
		return
	}
	at := rapid.IntRange(0, len(text)-1).Draw(t, "at")
	if rapid.Bool().Draw(t, "line") {
		from, to := at, at
		for from > 0 && text[from-1] != '\n' {
			from--
		}
		for to < len(text) && text[to] != '\n' {
			to++
		}
		text = append(text[:from:from], text[min(to+1, len(text)):]...)
	} else {
		text[at] = '\x00' // no line has it
	}
	if err := os.WriteFile(name, text, 0o600); err != nil {
		t.Fatal(err)
	}
	w.damaged = true
}

// TestNothingIsInvented: whatever writers do, crash, leave half lines behind, and whatever a disk
// does to their files: what is said to be known of a moment was so. And as long as the disk is sound
// and keeps the file, all that was recorded is known.
//
// Mutants: record-bridges-gaps, record-skips-lost-lines, record-goes-on-after-crashes,
// record-rotates-without-uses, record-grows.
func TestNothingIsInvented(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "record") //nolint:usetesting // one for each draw
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		w := &world{dir: dir, now: start(), uses: make(map[string]string)}
		broken := rapid.Bool().Draw(t, "a broken disk")
		for range rapid.IntRange(1, 120).Draw(t, "steps") {
			switch step := rapid.IntRange(0, 19).Draw(t, "step"); {
			case step < 12:
				w.change(t)
			case step < 15:
				w.append(t, line{Time: w.now, Kind: kindAlive})
			case step < 17:
				w.begin(t)
			case step < 19:
				w.stop(t, rapid.Bool().Draw(t, "cleanly"))
			case broken:
				w.damage(t)
			}
			w.tick()
			w.note()
		}
		w.append(t, line{Time: w.now, Kind: kindAlive})
		if w.files != nil {
			w.files.close()
		}
		w.check(t)
	})
}

func (w *world) check(t *rapid.T) {
	segments, err := read(w.dir, Query{})
	if err != nil {
		t.Fatal(err)
	}
	merged := Merge(segments, segments)
	names, err := list(w.dir)
	if err != nil {
		t.Fatal(err)
	}
	// What is in the files that are there is known.
	oldest, total := w.now, int64(0)
	for i, name := range names {
		if oldest, err = time.Parse(fileTime, names[0][len(filePrefix):len(filePrefix)+len(fileTime)]); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(filepath.Join(w.dir, names[i]))
		if err != nil {
			t.Fatal(err)
		}
		if total += info.Size(); total > room {
			t.Fatalf("%s and older files have %d bytes together", name, total)
		}
	}
	for _, f := range w.facts {
		m := At(merged, Query{}, f.at, w.now.Add(time.Hour))
		if !m.Known {
			if f.recorded && !w.damaged && f.at.After(oldest) {
				t.Fatalf("%s was recorded, and is not known: %+v", f.at, m)
			}
			continue
		}
		if f.term == 0 {
			t.Fatalf("nobody recorded at %s, and something is said to be known: %+v", f.at, m)
		}
		said := make(map[string]string)
		for _, u := range m.Uses {
			if was, twice := said[u.IP]; twice {
				t.Fatalf("at %s %s is on %s and on %s", f.at, u.IP, was, u.Host)
			}
			said[u.IP] = u.Host
		}
		if fmt.Sprint(said) != fmt.Sprint(f.uses) {
			t.Fatalf("at %s there was %v, and it is said to be %v\nsegments: %+v", f.at, f.uses, said, merged)
		}
	}
}
