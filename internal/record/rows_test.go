package record

import (
	"strings"
	"testing"
	"time"
)

// FuzzHistory: whatever is in a file, reading it ends, and segments are in order and do not overlap.
func FuzzHistory(f *testing.F) {
	lines := (&builder{open: map[key]*Period{{ip: "10.0.0.1"}: {Use: use("10.0.0.1", "node1"), From: start()}}, segment: Segment{Term: "a", Writer: "node1"}}).lines(start())
	whole, _ := (&files{}).encode("a.1", 0, nil, lines)
	f.Add(whole)
	f.Add([]byte(strings.ReplaceAll(string(whole), "\n", "")))
	f.Add([]byte("{}\n{\"k\":\"begin\"}\nx\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		h := newHistory(Query{})
		h.addText(text)
		merged := Merge(h.segments())
		for i, s := range merged {
			if s.To.Before(s.From) || i > 0 && merged[i-1].To.After(s.From) {
				t.Errorf("segments overlap: %+v", merged)
			}
		}
		Rows(merged, Query{}, start().Add(time.Hour))
		At(merged, Query{}, start(), start().Add(time.Hour))
	})
}

// TestMergeOverlappingTerms: a writer that noticed late that its term was over does not tell what is later
// than the next term's beginning.
func TestMergeOverlappingTerms(t *testing.T) {
	t.Parallel()
	at := func(s int) time.Time { return start().Add(time.Duration(s) * time.Second) }
	former := Segment{Term: "a", Writer: "node1", From: at(0), To: at(20), Live: true, Periods: []Period{
		{Use: use("10.0.0.1", "node1"), From: at(0), To: at(20), Open: true}, {Use: use("10.0.0.2", "node1"), From: at(12), To: at(20), Open: true},
	}}
	next := Segment{Term: "b", Writer: "node2", From: at(10), To: at(30), Live: true, Periods: []Period{{Use: use("10.0.0.1", "node2"), From: at(10), To: at(30), Found: true, Open: true}}}
	rows := Rows(Merge([]Segment{former}, []Segment{next}), Query{}, at(30))
	if len(rows) != 3 || rows[1].Host != "node1" || !rows[1].To.Equal(at(10)) || rows[2].Host != "node2" {
		t.Errorf("%+v", rows)
	}
}

// TestMoment: one moment has one answer: what was so, that nothing was, or what was so before and after
// a gap.
func TestMoment(t *testing.T) {
	t.Parallel()
	at := func(s int) time.Time { return start().Add(time.Duration(s) * time.Second) }
	segments := Merge([]Segment{
		{Term: "a", Writer: "node1", From: at(0), To: at(20), Periods: []Period{{Use: use("10.0.0.1", "node1"), From: at(5), To: at(20), Open: true}}},
		{Term: "b", Writer: "node2", From: at(30), To: at(40), Live: true, Periods: []Period{{Use: use("10.0.0.1", "node2"), From: at(30), To: at(35), Found: true}}},
	})
	for _, c := range []struct {
		at    int
		known bool
		hosts string
	}{{-5, false, ""}, {2, true, ""}, {5, true, "node1"}, {19, true, "node1"}, {25, false, "node1 node2"}, {30, true, "node2"}, {34, true, "node2"}, {35, true, ""}, {40, true, ""}} {
		m := At(segments, Query{IP: "10.0.0.1"}, at(c.at), at(40))
		var hosts []string
		for _, u := range m.Uses {
			hosts = append(hosts, u.Host)
		}
		if m.Known != c.known || strings.Join(hosts, " ") != c.hosts || (m.Gap == nil) != c.known {
			t.Errorf("%d: %+v", c.at, m)
		}
	}
}
