package page

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	clocktesting "k8s.io/utils/clock/testing"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/testenv/objects"
)

// played is a Source that tests change.
type played struct {
	mu    sync.Mutex
	in    Input
	err   error
	reads int
}

func (p *played) Read(context.Context) (Input, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reads++
	return p.in, p.err
}

func (p *played) set(namespaces ...v1.NetNamespace) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.in.NetNamespaces = namespaces
}

func newPlayedFeed() (*feed, *played, *clocktesting.FakeClock) {
	clock := clocktesting.NewFakeClock(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	source := &played{}
	return newFeed(source, clock), source, clock
}

// client applies events, as the script does.
type client struct {
	last   string
	groups map[string]json.RawMessage
}

func (c *client) take(t *testing.T, f *feed) (names []string) {
	t.Helper()
	events, last, err := f.after(t.Context(), c.last)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		names = append(names, e.name)
		var m message
		if err := json.Unmarshal(e.data, &m); err != nil {
			t.Fatal(err)
		}
		if e.name == "all" {
			c.groups = make(map[string]json.RawMessage)
		}
		for _, g := range m.Groups {
			var id struct{ ID string }
			if err := json.Unmarshal(g, &id); err != nil {
				t.Fatal(err)
			}
			c.groups[id.ID] = g
		}
		for _, id := range m.NoGroups {
			delete(c.groups, id)
		}
	}
	c.last = last
	return names
}

// TestFeedCatchesUp: whenever clients look, and from whatever event they come back, they see the same.
//
// Mutants: page-forgets-what-is-gone, page-takes-any-number.
func TestFeedCatchesUp(t *testing.T) {
	t.Parallel()
	f, source, clock := newPlayedFeed()
	always, seldom := &client{}, &client{}
	for i := range 3 * remembered {
		var namespaces []v1.NetNamespace
		for n := range i % 5 {
			namespaces = append(namespaces, objects.NetNamespace(fmt.Sprintf("n%d", n), uint32(n+1), fmt.Sprintf("10.0.0.%d", 1+(i+n)%200)))
		}
		source.set(namespaces...)
		f.touch()
		clock.Step(time.Second)
		names := always.take(t, f)
		if i > 0 && (len(names) != 1 || names[0] != "delta") {
			t.Fatalf("change %d is %v", i, names)
		}
		if i%100 == 0 {
			seldom.take(t, f)
		}
	}
	if names := seldom.take(t, f); len(names) != 67 {
		t.Errorf("a client that was away for 67 changes gets %d events", len(names))
	}
	late := &client{last: f.id(3)}
	if names := late.take(t, f); len(names) != 1 || names[0] != "all" {
		t.Errorf("a client that was away for too long gets %v", names)
	}
	foreign := &client{last: fmt.Sprintf("another-%d", f.number-1)}
	if names := foreign.take(t, f); len(names) != 1 || names[0] != "all" {
		t.Errorf("a client of another process, whose number this one has, too, gets %v", names)
	}
	if names := foreign.take(t, f); names != nil {
		t.Errorf("a client that has all gets %v", names)
	}
	for name, c := range map[string]*client{"always": always, "seldom": seldom, "late": late, "foreign": foreign} {
		if len(c.groups) != len(f.parts.groups) {
			t.Errorf("client %s has %d groups, want %d", name, len(c.groups), len(f.parts.groups))
		}
		for id, want := range f.parts.groups {
			if string(c.groups[id]) != string(want) {
				t.Errorf("client %s has %s of %s, want %s", name, c.groups[id], id, want)
			}
		}
	}
	if len(f.deltas) > remembered || f.bytes > rememberedBytes {
		t.Errorf("%d deltas with %d bytes are remembered", len(f.deltas), f.bytes)
	}
}

// TestFeedRests: nothing is read unless something may have changed, and not more often than it may be.
func TestFeedRests(t *testing.T) {
	t.Parallel()
	f, source, clock := newPlayedFeed()
	look := func(want int) {
		t.Helper()
		if s := f.current(t.Context()); s.problem != "" || source.reads != want {
			t.Errorf("objects were read %d times, want %d (%s)", source.reads, want, s.problem)
		}
	}
	look(1)
	clock.Step(time.Hour)
	look(1)
	f.touch()
	look(2)
	f.touch()
	look(2)
	clock.Step(restFor)
	look(3)
	f.touch()
	clock.Step(restFor)
	source.err = errors.New("no caches")
	s := f.current(t.Context())
	if s.problem != "read the objects: no caches" || !s.at.Equal(clock.Now().Add(-restFor)) {
		t.Errorf("with an error the page is of %v and says %q, want what it was before, and why", s.at, s.problem)
	}
	source.err = nil
	look(5)
}
