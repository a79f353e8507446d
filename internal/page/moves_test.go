package page

import (
	"fmt"
	"slices"
	"testing"
	"time"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/testenv/objects"
)

// TestMoves: each change of what is in use is a move, and nothing else is.
//
// Mutant: page-moves-of-standbys.
func TestMoves(t *testing.T) {
	t.Parallel()
	const ip, other = "192.168.7.200", "192.168.7.201"
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	nobody := modelOf(nil, nil)
	state := func(requests []string, first, second []string) Model {
		return modelOf([]v1.NetNamespace{objects.NetNamespace("shop", 1, requests...)},
			[]v1.HostSubnet{host("node1", "192.168.7.11", first...), host("node2", "192.168.7.12", second...)})
	}
	both := []string{ip, other}
	ordered, swapped := state(both, []string{ip}, []string{other}), state(both, []string{other}, []string{ip})
	for name, c := range map[string]struct {
		before, now Model
		want        []string
	}{
		"nothing":                    {ordered, ordered, nil},
		"a namespace comes":          {nobody, ordered, []string{"shop 192.168.7.200 -> node1"}},
		"a namespace goes":           {ordered, nobody, []string{"shop 192.168.7.200 node1 ->"}},
		"both change hosts":          {ordered, swapped, []string{"shop 192.168.7.200 node1 -> node2"}},
		"one that stands by goes":    {ordered, state(both, []string{ip}, nil), nil},
		"the other one is used":      {ordered, state(both, nil, []string{other}), []string{"shop 192.168.7.201 -> node2", "shop 192.168.7.200 node1 ->"}},
		"none is used":               {ordered, state(both, nil, nil), []string{"shop 192.168.7.200 node1 ->"}},
		"it is not requested":        {ordered, state(nil, nil, nil), []string{"shop 192.168.7.200 node1 ->"}},
		"two claim it, and none may": {ordered, state([]string{ip}, []string{ip}, []string{ip}), []string{"shop 192.168.7.200 node1 ->"}},
	} {
		var got []string
		for _, m := range moves(c.before, c.now, at) {
			text := fmt.Sprintf("%s %s %s -> %s", m.Name, m.IP, m.From, m.To)
			text = string(slices.Compact([]byte(text)))
			for len(text) > 0 && text[len(text)-1] == ' ' {
				text = text[:len(text)-1]
			}
			got = append(got, text)
			if m.At != "2026-01-01T00:00:00Z" {
				t.Errorf("%s: it was at %s", name, m.At)
			}
		}
		want := slices.Clone(c.want)
		for i := range want {
			want[i] = string(slices.Compact([]byte(want[i])))
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: moves are %q, want %q", name, got, want)
		}
	}
}

// TestMovesAreRemembered: the newest first, not too many, and none for what was there at the beginning.
func TestMovesAreRemembered(t *testing.T) {
	t.Parallel()
	f, source, clock := newPlayedFeed()
	source.in.HostSubnets = []v1.HostSubnet{host("node1", "192.168.7.11", "192.168.7.200"), host("node2", "192.168.7.12")}
	source.set(objects.NetNamespace("shop", 1, "192.168.7.200"))
	if s := f.current(t.Context()); len(s.Moves) != 0 {
		t.Errorf("at the beginning there are %+v", s.Moves)
	}
	for i := range maxMoves + 50 {
		source.in.HostSubnets[i%2].EgressIPs, source.in.HostSubnets[(i+1)%2].EgressIPs = nil, []string{"192.168.7.200"}
		f.touch()
		clock.Step(time.Second)
		f.current(t.Context())
	}
	s := f.current(t.Context())
	if len(s.Moves) != maxMoves || s.Moves[0].At != clock.Now().UTC().Format(time.RFC3339) || s.Moves[0].From == s.Moves[0].To {
		t.Errorf("%d moves, the first is %+v", len(s.Moves), s.Moves[0])
	}
}
