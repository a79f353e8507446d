package record

import (
	"cmp"
	"slices"
	"time"
)

// Row is what is known of a time: a use, or that nothing is known.
type Row struct {
	Period
	// Gap: nobody recorded from From to To. Without a From the record does not reach further
	// back. Open: nobody records now.
	Gap bool `json:"gap,omitempty"`
	// Writer is the replica that recorded a use, or whose record ended before a gap; Stopped
	// says that it stopped, and did not crash.
	Writer  string `json:"writer,omitempty"`
	Stopped bool   `json:"stopped,omitempty"`
	// Live: a use that is Open goes on now.
	Live bool `json:"live,omitempty"`
}

// Merge puts together what several replicas answered. Of a term that several know, one answer
// counts: the writer's own, else that which reaches furthest. Segments that overlap, because
// clocks differ or because a writer noticed late that its term was over, end where the next
// one begins.
func Merge(answers ...[]Segment) []Segment {
	best := make(map[string]int)
	better := func(a, b []Segment) bool {
		x, y := a[len(a)-1], b[len(b)-1]
		if x.Live != y.Live {
			return x.Live
		}
		return x.To.After(y.To) || x.To.Equal(y.To) && a[0].From.Before(b[0].From)
	}
	var terms [][]Segment
	for _, answer := range answers {
		byTerm := make(map[string][]Segment)
		for _, s := range answer {
			byTerm[s.Term] = append(byTerm[s.Term], s)
		}
		for term, segments := range byTerm {
			slices.SortStableFunc(segments, func(a, b Segment) int { return a.From.Compare(b.From) })
			at, ok := best[term]
			switch {
			case !ok:
				best[term] = len(terms)
				terms = append(terms, segments)
			case better(segments, terms[at]):
				terms[at] = segments
			}
		}
	}
	all := slices.Concat(terms...)
	slices.SortStableFunc(all, func(a, b Segment) int { return cmp.Or(a.From.Compare(b.From), cmp.Compare(a.Term, b.Term)) })
	for i := range all {
		if i+1 < len(all) {
			all[i] = all[i].before(all[i+1].From)
		}
		if i > 0 {
			all[i] = all[i].after(all[i-1].To)
		}
	}
	return all
}

// after is a segment of which the one before, until a time, has told the beginning.
func (s Segment) after(told time.Time) Segment {
	kept := slices.Clone(s.Periods)
	for i := range kept {
		if kept[i].From.Before(told) {
			kept[i].From, kept[i].Found, kept[i].Began = s.From, true, ""
		}
	}
	s.Periods = kept
	return s
}

// before is the part of a segment that was before a time.
func (s Segment) before(end time.Time) Segment {
	if !s.To.After(end) {
		return s
	}
	s.To, s.Live, s.Stopped = end, false, false
	kept := make([]Period, 0, len(s.Periods))
	for _, p := range s.Periods {
		if p.From.After(end) {
			continue
		}
		if p.To.After(end) {
			p.To, p.Open, p.Ended = end, true, ""
		}
		kept = append(kept, p)
	}
	s.Periods = kept
	return s
}

// Rows are the uses and the gaps that have a part in the time of a query, in order of time.
// segments are what Merge returns. now is the end of a query without one.
func Rows(segments []Segment, q Query, now time.Time) []Row {
	if q.To.IsZero() || q.To.After(now) {
		q.To = now
	}
	var rows []Row
	gap := func(from, to time.Time, after *Segment) {
		r := Row{Gap: true, Period: Period{From: from, To: to}}
		if after != nil {
			r.Writer, r.Stopped = after.Writer, after.Stopped
		}
		if to.IsZero() {
			r.To, r.Open = now, true
		}
		if (from.IsZero() || from.Before(r.To)) && q.during(from, r.To) {
			rows = append(rows, r)
		}
	}
	var last *Segment
	for i := range segments {
		s := &segments[i]
		switch {
		case last == nil:
			gap(time.Time{}, s.From, nil)
		case last.To.Before(s.From):
			gap(last.To, s.From, last)
		}
		for _, p := range s.Periods {
			if q.wants(&p.Use) && q.during(p.From, p.To) {
				rows = append(rows, Row{Period: p, Writer: s.Writer, Live: p.Open && s.Live})
			}
		}
		last = s
	}
	switch {
	case last == nil:
		gap(time.Time{}, time.Time{}, nil)
	case !last.Live:
		gap(last.To, time.Time{}, last)
	}
	slices.SortStableFunc(rows, func(a, b Row) int { return byTime(a.Period, b.Period) })
	return rows
}

// Moment is what is known of one moment.
type Moment struct {
	At time.Time `json:"at"`
	// Known: the moment was recorded, and Uses are all uses then. Otherwise Uses are those right
	// before and right after the gap, with their times.
	Known bool `json:"known"`
	// Gap is the time of which nothing is known; nil if the moment was recorded.
	Gap  *Row  `json:"gap,omitempty"`
	Uses []Row `json:"uses"`
}

// At is what is known of one moment; q has no time.
func At(segments []Segment, q Query, at, now time.Time) Moment {
	m := Moment{At: at, Uses: []Row{}}
	q.From, q.To = time.Time{}, time.Time{}
	for _, r := range Rows(segments, q, now) {
		if r.Gap && !r.From.After(at) && (r.Open || at.Before(r.To)) {
			m.Gap = &r
		}
	}
	m.Known = m.Gap == nil
	for _, s := range segments {
		for _, p := range s.Periods {
			if !q.wants(&p.Use) {
				continue
			}
			if s.tells(&p, at, m.Gap) {
				m.Uses = append(m.Uses, Row{Period: p, Writer: s.Writer, Live: p.Open && s.Live})
			}
		}
	}
	slices.SortStableFunc(m.Uses, func(a, b Row) int { return byTime(a.Period, b.Period) })
	return m
}

// tells reports whether a period was at a moment, or right before or after the gap that the moment is in.
func (s *Segment) tells(p *Period, at time.Time, gap *Row) bool {
	if !p.From.After(at) && (at.Before(p.To) || p.Open && !at.After(p.To)) {
		return true
	}
	return gap != nil && (p.Open && p.To.Equal(gap.From) || p.Found && !gap.Open && !p.From.After(s.From) && s.From.Equal(gap.To))
}
