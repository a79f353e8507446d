package probe

import (
	"container/heap"
	"math"
	"net/netip"
	"time"
)

// schedule decides when each host is probed, and what became of each probe. It
// is a state machine like Tracker: no clock, no I/O, no goroutines.
//
// Each target has a phase within the interval and keeps it whatever happens to
// other targets. Phases follow the golden ratio: any number of targets, added one
// by one, is almost evenly spread, so that there are no bursts.
//
//	due (heap by time) --send--> waiting --Timeout--> late --lateFor--> forgotten
//	                               |                   |
//	                          Ready, Unready,         Late
//	                            Refused
type schedule struct {
	config Config
	token  func() uint64
	self   uint64 // instance of the prober

	targets map[string]*target
	due     dueHeap
	added   uint64 // targets ever added: the next one's phase

	open    map[uint64]*question // by token: waiting and late
	waiting []*question          // in order of deadline
	late    []*question          // in order of deadline
	planned time.Time            // when the owner should be back at the latest
}

type target struct {
	Target
	hash     uint64
	sequence uint64
	next     time.Time // of the next question
	index    int       // in the heap
}

type question struct {
	to       *target
	addr     netip.Addr // as it was sent; the target's may have changed
	token    uint64
	sequence uint64
	sent     time.Time
	deadline time.Time
	missed   bool
	done     bool // answered, or of a target that is gone
}

// report is the outcome of one question.
type report struct {
	host string
	Observation
}

// datagram is a question on its way.
type datagram struct {
	addr    netip.Addr
	overlay bool
	message Message
}

func newSchedule(c Config, self uint64, token func() uint64) *schedule {
	return &schedule{config: c, token: token, self: self, targets: map[string]*target{}, open: map[uint64]*question{}}
}

// set replaces the targets. One that keeps its name and address keeps its phase
// and the question that it has not answered yet.
func (s *schedule) set(targets []Target, now time.Time) {
	wanted := make(map[string]Target, len(targets))
	for _, t := range targets {
		wanted[t.Name] = t
	}
	for name, t := range s.targets {
		if _, stays := wanted[name]; !stays {
			heap.Remove(&s.due, t.index)
			delete(s.targets, name)
			t.index = -1
		}
	}
	for _, t := range targets {
		if have := s.targets[t.Name]; have != nil {
			have.Target = wanted[t.Name]
			continue
		}
		s.added++
		_, phase := math.Modf(float64(s.added) * (math.Sqrt(5) - 1) / 2)
		added := &target{
			Target: wanted[t.Name],
			hash:   HostHash(t.Name),
			next:   now.Add(time.Duration(phase * float64(s.config.Interval))),
		}
		s.targets[t.Name] = added
		heap.Push(&s.due, added)
	}
	for _, queue := range [][]*question{s.waiting, s.late} {
		for _, q := range queue {
			if q.to.index < 0 || q.to.Addr != q.addr {
				s.finish(q)
			}
		}
	}
}

// step appends to out the questions that must be sent now, and returns the probes
// that count as missed from now on.
func (s *schedule) step(now time.Time, out []datagram) ([]datagram, []report) {
	missed := s.expire(now)
	for len(s.due) > 0 && !s.due[0].next.After(now) {
		t := s.due[0]
		// After a stall, skipped probes are not sent later; the phase stays.
		skipped := now.Sub(t.next) / s.config.Interval
		t.next = t.next.Add((skipped + 1) * s.config.Interval)
		heap.Fix(&s.due, 0)
		t.sequence++
		q := &question{
			to: t, addr: t.Addr, token: s.token(), sequence: t.sequence,
			sent: now, deadline: now.Add(s.config.Timeout),
		}
		s.open[q.token] = q
		s.waiting = append(s.waiting, q)
		out = append(out, datagram{addr: t.Addr, overlay: t.Overlay, message: Message{
			Kind: Question, Sequence: q.sequence, Token: q.token, Instance: s.self, Host: t.hash,
		}})
	}
	s.planned, _ = s.wake(now)
	return out, missed
}

// expire reports the questions whose time is over.
func (s *schedule) expire(now time.Time) []report {
	// After a stall, nothing is known about which hosts were silent: their answers may
	// have arrived and not been read yet. Give the reader time for them, once.
	stalled := !s.planned.IsZero() && now.Sub(s.planned) > s.config.Timeout/2
	if stalled {
		grace := now.Add(s.config.Timeout / 2)
		for _, q := range s.waiting {
			if q.deadline.Before(grace) {
				q.deadline = grace
			}
		}
	}
	var missed []report
	for len(s.waiting) > 0 {
		q := s.waiting[0]
		if !q.done && q.deadline.After(now) {
			break
		}
		s.waiting = s.waiting[1:]
		if q.done {
			continue
		}
		q.missed = true
		// An answer counts as late until the host is offline by silence.
		q.deadline = q.sent.Add(s.config.DetectionTime())
		s.late = append(s.late, q)
		missed = append(missed, report{host: q.to.Name, Observation: Observation{Outcome: Missed}})
	}
	for len(s.late) > 0 && (s.late[0].done || !s.late[0].deadline.After(now)) {
		s.finish(s.late[0])
		s.late = s.late[1:]
	}
	return missed
}

// wake returns when step must be called again: when it has work, and not too soon;
// false: never, until there are targets.
func (s *schedule) wake(now time.Time) (time.Time, bool) {
	var at time.Time
	if len(s.due) > 0 {
		at = s.due[0].next
	}
	for len(s.waiting) > 0 && s.waiting[0].done {
		s.waiting = s.waiting[1:]
	}
	if len(s.waiting) > 0 && (at.IsZero() || s.waiting[0].deadline.Before(at)) {
		at = s.waiting[0].deadline
	}
	if at.IsZero() {
		return at, false
	}
	if soonest := now.Add(s.config.granularity()); at.Before(soonest) {
		at = soonest
	}
	return at, true
}

// answer takes a datagram that came from the given address. False: it is not the
// answer to an open question, and says nothing.
func (s *schedule) answer(m Message, from netip.Addr, now time.Time) (report, bool) {
	q := s.open[m.Token]
	if m.Kind != Answer || q == nil || q.done || q.addr != from || q.sequence != m.Sequence || q.to.hash != m.Host {
		return report{}, false
	}
	s.finish(q)
	r := report{host: q.to.Name, Observation: Observation{Instance: m.Instance, RTT: now.Sub(q.sent)}}
	switch {
	case q.missed && (m.Away || !m.Ready):
		// Already counted as missed; to count it twice would make the host
		// offline too soon.
		return report{}, false
	case q.missed:
		r.Outcome = Late
	case m.Away:
		// As if the kernel had refused the question: there is no agent.
		r.Observation = Observation{Outcome: Refused}
	case m.Ready:
		r.Outcome = Ready
	default:
		r.Outcome = Unready
	}
	return r, true
}

// refused takes the question that the kernel of a host sent back.
func (s *schedule) refused(m Message, by netip.Addr) (report, bool) {
	q := s.open[m.Token]
	if m.Kind != Question || q == nil || q.done || q.missed || q.addr != by || q.sequence != m.Sequence {
		return report{}, false
	}
	s.finish(q)
	return report{host: q.to.Name, Observation: Observation{Outcome: Refused}}, true
}

func (s *schedule) finish(q *question) {
	q.done = true
	delete(s.open, q.token)
}

// dueHeap orders targets by the time of their next question.
type dueHeap []*target

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].next.Before(h[j].next) }
func (h dueHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

// Push implements heap.Interface.
func (h *dueHeap) Push(x any) {
	t := x.(*target) //nolint:forcetypeassert // heap.Push is called with targets only
	t.index = len(*h)
	*h = append(*h, t)
}

// Pop implements heap.Interface.
func (h *dueHeap) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}
