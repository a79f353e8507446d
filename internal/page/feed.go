package page

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"k8s.io/utils/clock"

	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

const (
	// remembered is how many deltas are kept for clients that come back, and rememberedBytes how
	// large they may be together.
	remembered      = 256
	rememberedBytes = 4 << 20
	// restFor is the least time between two looks at the objects: whatever changes in it is one
	// delta. Where a look takes long, restTimes is how many times as long the rest is.
	restFor   = 250 * time.Millisecond
	restTimes = 4
	// readWithin limits how long objects may take to be read: caches that are not filled wait.
	readWithin = 3 * time.Second
)

// Source is where objects are read. They must not be changed.
type Source interface {
	Read(ctx context.Context) (Input, error)
}

// feed makes Models, and remembers what changed from one to the next.
type feed struct {
	source Source
	clock  clock.Clock
	// epoch tells this process's numbers from those of others.
	epoch string

	mu    sync.Mutex
	memo  egress.Memo
	stale bool
	made  time.Time // zero before the first Model
	rest  time.Duration
	model Model
	// number is that of the model; the first is 1.
	number int
	parts  parts
	deltas []delta
	bytes  int
}

// delta is what changed with one number.
type delta struct {
	number int
	data   []byte
}

// parts are what a Model is made of, as they are sent: JSON by kind and id.
type parts struct {
	groups, hosts map[string]json.RawMessage
	issues        json.RawMessage
	changes       json.RawMessage
	moves         json.RawMessage
}

// message is the data of an event: of "all" the whole, of "delta" what changed.
type message struct {
	Groups []json.RawMessage `json:"groups,omitempty"`
	Hosts  []json.RawMessage `json:"hosts,omitempty"`
	// NoGroups and NoHosts are the ids of those that are gone.
	NoGroups []string `json:"noGroups,omitempty"`
	NoHosts  []string `json:"noHosts,omitempty"`
	// Issues, Changes and Moves are whole lists; missing if they are the same as before.
	Issues  json.RawMessage `json:"issues,omitempty"`
	Changes json.RawMessage `json:"changes,omitempty"`
	Moves   json.RawMessage `json:"moves,omitempty"`
}

func newFeed(source Source, c clock.Clock) *feed {
	return &feed{source: source, clock: c, epoch: rand.Text()[:10], stale: true}
}

// touch notes that objects may have changed.
func (f *feed) touch() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stale = true
}

// snapshot is a Model, as of when it holds, and the id of the event that tells of it.
type snapshot struct {
	Model
	// at is zero if there is no Model.
	at time.Time
	id string
	// problem says why there is none of now; empty if there is.
	problem string
}

// current returns the newest Model, or that from before, if there is one.
func (f *feed) current(ctx context.Context) snapshot {
	f.mu.Lock()
	defer f.mu.Unlock()
	err := f.refresh(ctx)
	s := snapshot{Model: f.model, at: f.made, id: f.id(f.number)}
	switch {
	case err != nil:
		s.problem = err.Error()
	case !f.stale:
		s.at = f.clock.Now()
	}
	return s
}

// refresh makes a new Model if anything may have changed, with a rest after the last. The caller
// holds the lock.
func (f *feed) refresh(ctx context.Context) error {
	now := f.clock.Now()
	if !f.stale || !f.made.IsZero() && now.Sub(f.made) < f.rest {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, readWithin)
	defer cancel()
	in, err := f.source.Read(ctx)
	if err != nil {
		return fmt.Errorf("read the objects: %w", err)
	}
	m := Make(in, &f.memo)
	m.Moves = f.model.Moves
	if f.number > 0 {
		seen := moves(f.model, m, now)
		slices.Reverse(seen)
		m.Moves = append(seen, m.Moves...)
		m.Moves = m.Moves[:min(len(m.Moves), maxMoves)]
	}
	p, err := partsOf(m)
	if err != nil {
		return err
	}
	f.stale, f.made, f.model, f.rest = false, now, m, max(restFor, restTimes*f.clock.Since(now))
	if f.number == 0 {
		f.number, f.parts = 1, p
		return nil
	}
	data, err := difference(f.parts, p)
	if err != nil || data == nil {
		return err
	}
	f.number, f.parts = f.number+1, p
	f.deltas, f.bytes = append(f.deltas, delta{number: f.number, data: data}), f.bytes+len(data)
	for len(f.deltas) > remembered || f.bytes > rememberedBytes && len(f.deltas) > 1 {
		f.bytes -= len(f.deltas[0].data)
		f.deltas = f.deltas[1:]
	}
	return nil
}

// event is one event of a stream. ID is empty for one that is not to be remembered.
type event struct {
	id, name string
	data     []byte
}

// after returns the events that a client needs that has got the one with an id, or none, and the
// id of the last.
func (f *feed) after(ctx context.Context, id string) (events []event, last string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.refresh(ctx); err != nil {
		return nil, id, err
	}
	last = f.id(f.number)
	if n, ok := f.numberOf(id); ok && (n == f.number || len(f.deltas) > 0 && f.deltas[0].number <= n+1) {
		for _, d := range f.deltas {
			if d.number > n {
				events = append(events, event{id: f.id(d.number), name: "delta", data: d.data})
			}
		}
		return events, last, nil
	}
	whole, err := difference(parts{}, f.parts)
	if err != nil {
		return nil, id, err
	}
	return []event{{id: last, name: "all", data: whole}}, last, nil
}

func (f *feed) id(number int) string { return f.epoch + "-" + strconv.Itoa(number) }

// numberOf reads an id; false for one of another process, or of none.
func (f *feed) numberOf(id string) (int, bool) {
	epoch, written, _ := strings.Cut(id, "-")
	n, err := strconv.Atoi(written)
	return n, err == nil && epoch == f.epoch && n >= 1 && n <= f.number
}

// sortedKeys are the keys in order.
func sortedKeys(m map[string]json.RawMessage) []string { return slices.Sorted(maps.Keys(m)) }

func partsOf(m Model) (parts, error) {
	p := parts{groups: make(map[string]json.RawMessage, len(m.Groups)), hosts: make(map[string]json.RawMessage, len(m.Hosts))}
	var err error
	for i := range m.Groups {
		if p.groups[m.Groups[i].ID], err = json.Marshal(&m.Groups[i]); err != nil {
			return p, fmt.Errorf("encode %s: %w", m.Groups[i].ID, err)
		}
	}
	for i := range m.Hosts {
		if p.hosts[m.Hosts[i].Name], err = json.Marshal(&m.Hosts[i]); err != nil {
			return p, fmt.Errorf("encode host %s: %w", m.Hosts[i].Name, err)
		}
	}
	if p.issues, err = json.Marshal(m.Issues); err != nil {
		return p, fmt.Errorf("encode issues: %w", err)
	}
	if p.changes, err = json.Marshal(m.Changes); err != nil {
		return p, fmt.Errorf("encode changes: %w", err)
	}
	if p.moves, err = json.Marshal(append([]Move{}, m.Moves...)); err != nil {
		return p, fmt.Errorf("encode moves: %w", err)
	}
	return p, nil
}

// difference is the message that makes one into the other; nil if they are the same.
func difference(before, now parts) ([]byte, error) {
	var m message
	same := true
	compare := func(before, now map[string]json.RawMessage) (set []json.RawMessage, gone []string) {
		for _, id := range sortedKeys(now) {
			if !bytes.Equal(before[id], now[id]) {
				set = append(set, now[id])
			}
		}
		for _, id := range sortedKeys(before) {
			if _, ok := now[id]; !ok {
				gone = append(gone, id)
			}
		}
		same = same && len(set)+len(gone) == 0
		return set, gone
	}
	m.Groups, m.NoGroups = compare(before.groups, now.groups)
	m.Hosts, m.NoHosts = compare(before.hosts, now.hosts)
	if !bytes.Equal(before.issues, now.issues) {
		m.Issues, same = now.issues, false
	}
	if !bytes.Equal(before.changes, now.changes) {
		m.Changes, same = now.changes, false
	}
	if !bytes.Equal(before.moves, now.moves) {
		m.Moves, same = now.moves, false
	}
	if same {
		return nil, nil
	}
	return json.Marshal(m)
}
