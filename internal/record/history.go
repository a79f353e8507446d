package record

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// Period is a time in which an egress IP was used without a change.
type Period struct {
	Use
	// From and To are when it began and ended. If Found, it began before From, at a time that
	// was not recorded. If Open, it went on at To, which is the end of the segment.
	From  time.Time `json:"from"`
	To    time.Time `json:"to"`
	Found bool      `json:"found,omitempty"`
	Open  bool      `json:"open,omitempty"`
	// Began and Ended are the reasons of the changes at both ends.
	Began string `json:"began,omitempty"`
	Ended string `json:"ended,omitempty"`
}

// Segment is a time that was recorded without a gap.
type Segment struct {
	// Term is the term that it belongs to, and Writer the replica whose term that was.
	Term   string    `json:"term"`
	Writer string    `json:"writer,omitempty"`
	From   time.Time `json:"from"`
	To     time.Time `json:"to"`
	// Live: it goes on. Stopped: its writer stopped, and did not crash.
	Live    bool     `json:"live,omitempty"`
	Stopped bool     `json:"stopped,omitempty"`
	Periods []Period `json:"periods,omitempty"`
}

// Query says what is asked for. What is empty is everything.
type Query struct {
	IP, Group string
	// From and To limit the time: periods count that have a part in it, and segments, with one
	// more on each side, so that one sees how long a gap is.
	From, To time.Time
}

func (q *Query) wants(u *Use) bool {
	return (q.IP == "" || u.IP == q.IP) && (q.Group == "" || strings.EqualFold(u.Group, q.Group))
}

// during reports whether a time has a part in that of the query.
func (q *Query) during(from, to time.Time) bool {
	return (q.From.IsZero() || !to.Before(q.From)) && (q.To.IsZero() || !from.After(q.To))
}

// key names an egress IP and its user, whatever the host.
type key struct{ ip, group, uid string }

func keyOf(u *Use) key { return key{u.IP, u.Group, u.UID} }

// history makes segments of lines.
type history struct {
	query    Query
	building map[string]*builder
	// here are the segments with lines in the present file.
	here map[string]bool
	done []Segment
}

func newHistory(q Query) *history {
	return &history{query: q, building: make(map[string]*builder), here: make(map[string]bool)}
}

// nextFile says that what follows is in another file.
func (h *history) nextFile() { clear(h.here) }

// add takes the next line, and reports whether it belongs where it is.
func (h *history) add(l *line) bool {
	b := h.building[l.Segment]
	h.here[l.Segment] = true
	if l.Kind == kindBegin {
		switch {
		case b == nil, b.broken:
			h.building[l.Segment] = newBuilder(&h.query, l)
			return true
		case l.Number == b.number+1 && b.known:
			// The file was rotated: all that it lists is known already.
			b.number, b.last, b.again = l.Number, l.Time, true
			return true
		}
	}
	switch {
	case b == nil || b.broken:
		return false
	case l.Number != b.number+1 || l.Time.Before(b.last):
		h.breakOff(l.Segment)
		if l.Kind == kindBegin {
			return h.add(l)
		}
		return false
	}
	b.add(l)
	return true
}

// unreadable takes a line that cannot be read: of which segment it was is not known.
func (h *history) unreadable() {
	for id := range h.here {
		h.breakOff(id)
	}
}

// breakOff ends a segment with the last line that was read.
func (h *history) breakOff(id string) {
	if b := h.building[id]; b != nil {
		if s, ok := b.finish(); ok {
			h.done = append(h.done, s)
		}
	}
	h.building[id] = &builder{broken: true}
}

// segments ends the history.
func (h *history) segments() []Segment {
	for id := range h.building {
		h.breakOff(id)
	}
	slices.SortStableFunc(h.done, func(a, b Segment) int {
		return cmp.Or(a.From.Compare(b.From), cmp.Compare(a.Term, b.Term))
	})
	return h.done
}

// builder makes one segment.
type builder struct {
	query   *Query
	segment Segment
	open    map[key]*Period
	// number and last are those of the last line.
	number int
	last   time.Time
	// known: all that was in use has been listed. again: it is being listed once more.
	known, again, broken bool
}

func newBuilder(q *Query, begin *line) *builder {
	return &builder{
		query: q, open: make(map[key]*Period), number: begin.Number, last: begin.Time,
		segment: Segment{Term: begin.Term, Writer: begin.Writer},
	}
}

func (b *builder) add(l *line) {
	b.number, b.last = l.Number, l.Time
	switch l.Kind {
	case kindHeld:
		if b.again || !b.query.wants(&l.Use) {
			return
		}
		p := &Period{Use: l.Use, From: l.Time, Found: true}
		if l.Since != nil {
			p.From, p.Found, p.Began = *l.Since, l.Found, l.Reason
		}
		b.open[keyOf(&l.Use)] = p
	case kindKnown:
		if !b.known {
			b.segment.From = l.Time
		}
		b.known, b.again = true, false
	case kindChange:
		if b.query.wants(&l.Use) {
			b.change(l.Time, &l.Change)
		}
	case kindEnd:
		b.segment.Stopped = true
	case kindBegin, kindAlive:
	}
}

// change takes a change of what is used.
func (b *builder) change(at time.Time, c *Change) {
	k := keyOf(&c.Use)
	if p := b.open[k]; p != nil {
		p.To, p.Ended = at, c.Reason
		b.keep(p)
		delete(b.open, k)
	}
	if c.Host != "" {
		b.open[k] = &Period{Use: c.Use, From: at, Began: c.Reason}
	}
}

// keep keeps a period that is over, if it is asked for.
func (b *builder) keep(p *Period) {
	if b.query.during(p.From, p.To) {
		b.segment.Periods = append(b.segment.Periods, *p)
	}
}

// finish returns the segment; ok is false if there was not enough to know anything.
func (b *builder) finish() (_ Segment, ok bool) {
	if b.broken || !b.known {
		return Segment{}, false
	}
	for _, p := range b.open {
		still := *p
		still.To, still.Open = b.last, true
		b.keep(&still)
	}
	b.segment.To = b.last
	slices.SortFunc(b.segment.Periods, byTime)
	return b.segment, true
}

func byTime(a, b Period) int {
	return cmp.Or(a.From.Compare(b.From), cmp.Compare(a.IP, b.IP), cmp.Compare(a.Group, b.Group), cmp.Compare(a.UID, b.UID), cmp.Compare(a.Host, b.Host))
}
