package record

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

const (
	// aliveEvery is how long nothing may happen until that is recorded. triesEvery is how often
	// a volume is tried again.
	aliveEvery = 30 * time.Second
	triesEvery = 10 * time.Second
	// keptAtMost is how many periods that are over are kept in memory: some megabytes.
	keptAtMost = 20_000
	// waitAtMost is how many changes wait for a disk.
	waitAtMost = 10_000
)

// Config says who records, and where.
type Config struct {
	// Dir is the directory for files, which exists; empty for memory alone.
	Dir string
	// AtMost is how large all files together may become, in bytes.
	AtMost int64
	// Writer is this replica: files of one name are its own. Term is a name that no other term
	// has.
	Writer, Term string
	Now          func() time.Time
	// Problem gets why files cannot be written when that begins or changes, and nil when they
	// can again. Nil for nothing.
	Problem func(error)
}

// Recorder records what is used.
type Recorder struct {
	config Config
	wake   chan struct{}
	// reading has one place: files are read for one at a time.
	reading chan struct{}

	mu sync.Mutex
	// live is the present term in memory; nil before Begin. over: it has ended.
	live    *builder
	over    bool
	trimmed bool
	// waiting are changes that are not in files yet. fresh: files need a new segment instead.
	waiting []line
	fresh   bool
	problem error
}

// New returns a recorder, which records nothing before Begin.
func New(c Config) *Recorder {
	return &Recorder{config: c, wake: make(chan struct{}, 1), reading: make(chan struct{}, 1)}
}

// Begin begins to record: what is given is all that is in use.
func (r *Recorder) Begin(uses []Use) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.config.Now().UTC()
	r.live = newBuilder(&Query{}, &line{Time: now, Term: r.config.Term, Writer: r.config.Writer})
	for _, u := range uses {
		r.live.add(&line{Time: now, Kind: kindHeld, Change: Change{Use: u}})
	}
	r.live.add(&line{Time: now, Kind: kindKnown})
	r.fresh, r.waiting = true, nil
	r.tell()
}

// Record records a change. Before Begin, what is given to that has it already.
func (r *Recorder) Record(c Change) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.live == nil || r.over {
		return
	}
	l := line{Time: r.now(), Kind: kindChange, Change: c}
	r.live.add(&l)
	r.trim()
	r.await(l)
}

// await has a line written. r.mu must be held.
func (r *Recorder) await(l line) {
	if r.config.Dir == "" || r.fresh {
		return // what is in use will be written
	}
	if len(r.waiting) >= waitAtMost {
		r.fresh, r.waiting = true, nil
		return
	}
	r.waiting = append(r.waiting, l)
	r.tell()
}

// now does not go back: the lines of a segment are in order of time. r.mu must be held.
func (r *Recorder) now() time.Time {
	now := r.config.Now().UTC()
	if now.Before(r.live.last) {
		return r.live.last
	}
	return now
}

// trim forgets the oldest periods if there are too many. r.mu must be held.
func (r *Recorder) trim() {
	kept := r.live.segment.Periods
	if len(kept) <= keptAtMost {
		return
	}
	gone := kept[:keptAtMost/10]
	for i := range gone { // they are in order of their ends
		r.live.segment.From = gone[i].To
	}
	r.live.segment.Periods = append([]Period(nil), kept[len(gone):]...)
	r.trimmed = true
}

func (r *Recorder) tell() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Run writes files until ctx ends, and then that the term has ended. It returns when all is
// written, or cannot be.
func (r *Recorder) Run(ctx context.Context) error {
	f := &files{dir: r.config.Dir, writer: fileName(r.config.Writer), atMost: r.config.AtMost}
	defer f.close()
	ticker := time.NewTicker(triesEvery)
	defer ticker.Stop()
	var segments int
	wrote := r.config.Now()
	for over := false; !over; {
		select {
		case <-ctx.Done():
			over = true
			r.end()
		case <-r.wake:
			if r.failing() {
				continue // the next tick
			}
		case <-ticker.C:
			if r.config.Now().Sub(wrote) >= aliveEvery {
				r.alive()
			}
		}
		if r.config.Dir == "" {
			continue
		}
		if r.flush(f, &segments) {
			wrote = r.config.Now()
		}
	}
	return nil
}

func (r *Recorder) failing() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.problem != nil
}

// alive records that nothing happened.
func (r *Recorder) alive() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.live != nil && !r.over {
		l := line{Time: r.now(), Kind: kindAlive}
		r.live.add(&l)
		r.await(l)
	}
}

// end records the end.
func (r *Recorder) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.live == nil || r.over {
		return
	}
	l := line{Time: r.now(), Kind: kindEnd}
	r.live.add(&l)
	r.await(l)
	r.over = true
}

// flush writes what waits, and reports whether anything was written.
func (r *Recorder) flush(f *files, segments *int) bool {
	lines, fresh := r.take()
	if len(lines) == 0 {
		return false
	}
	var err error
	if fresh {
		*segments++
		err = f.begin(fmt.Sprintf("%s.%d", r.config.Term, *segments), lines)
	} else {
		err = f.append(lines)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		r.fresh, r.waiting = true, nil
	}
	if report := r.config.Problem; report != nil && (err == nil) != (r.problem == nil) || report != nil && err != nil && err.Error() != r.problem.Error() {
		report(err)
	}
	r.problem = err
	return err == nil
}

// take returns the lines to write; fresh if they begin a segment.
func (r *Recorder) take() (lines []line, fresh bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.live == nil {
		return nil, false
	}
	if fresh = r.fresh; fresh {
		lines = r.live.lines(r.now())
		if r.over {
			lines = append(lines, line{Time: r.now(), Kind: kindEnd})
		}
	} else {
		lines = r.waiting
	}
	r.fresh, r.waiting = false, nil
	return lines, fresh
}

// Answer is what one replica knows.
type Answer struct {
	// Writer is the replica that answers, and Now its time.
	Writer string    `json:"writer"`
	Now    time.Time `json:"now"`
	// Durable: there are files, which outlive the replica. Problem is why they cannot be
	// written.
	Durable bool   `json:"durable"`
	Problem string `json:"problem,omitempty"`
	// Segments are what was recorded, in order of time.
	Segments []Segment `json:"segments"`
	// Next asks for the rest, if there is more than a page; empty if not.
	Next string `json:"next,omitempty"`
}

// errBusy: someone else reads.
var errBusy = errors.New("the record is being read for someone else: try again")

// Answer returns what is known. It fails if files cannot be read, or are being read for
// someone else until ctx ends.
func (r *Recorder) Answer(ctx context.Context, q Query) (Answer, error) {
	a := Answer{Writer: r.config.Writer, Durable: r.config.Dir != "", Segments: []Segment{}}
	var stored []Segment
	if a.Durable {
		select {
		case r.reading <- struct{}{}:
		case <-ctx.Done():
			return a, errBusy
		}
		var err error
		stored, err = read(r.config.Dir, q)
		<-r.reading
		if err != nil {
			return a, err
		}
	}
	// After the files: what they do not have yet is in memory.
	r.mu.Lock()
	defer r.mu.Unlock()
	a.Now = r.config.Now().UTC()
	if r.problem != nil {
		a.Problem = r.problem.Error()
	}
	for _, s := range stored {
		if r.live == nil || s.Term != r.config.Term {
			a.Segments = append(a.Segments, s)
		} else if r.trimmed && s.From.Before(r.live.segment.From) {
			a.Segments = append(a.Segments, s.before(r.live.segment.From))
		}
	}
	if r.live != nil {
		a.Segments = append(a.Segments, r.present(&q))
	}
	a.Segments = q.segments(a.Segments)
	return a, nil
}

// segments are those that have a part in the time of the query, and one more on each side.
func (q *Query) segments(all []Segment) []Segment {
	first, last := 0, len(all)
	for first+1 < last && !q.From.IsZero() && all[first+1].To.Before(q.From) {
		first++
	}
	for last-2 > first && !q.To.IsZero() && all[last-2].From.After(q.To) {
		last--
	}
	return all[first:last]
}

// present is the present term as far as memory has it. r.mu must be held.
func (r *Recorder) present(q *Query) Segment {
	b := *r.live
	if !r.over {
		b.last = r.now()
	}
	b.query = q
	s := b.segment
	s.To, s.Live, s.Stopped = b.last, !r.over, r.over
	s.Periods = nil
	for _, p := range b.segment.Periods {
		if q.wants(&p.Use) && q.during(p.From, p.To) {
			s.Periods = append(s.Periods, p)
		}
	}
	for _, p := range b.uses() {
		if p.To, p.Open = s.To, true; q.wants(&p.Use) && q.during(p.From, p.To) {
			s.Periods = append(s.Periods, p)
		}
	}
	return s
}
