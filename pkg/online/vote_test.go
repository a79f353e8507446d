package online_test

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/egressip-operator/egressip-operator/pkg/online"
)

// offline reports whether probes take a host offline whose Node is Ready, and that the
// controller finds silent.
func offline(v online.Vote) bool {
	return !online.Judge(online.Evidence{Node: online.NodeReady, Probe: online.ProbeSilent, Vote: v}).Online
}

// ballotsOf are the ballots of silent, of those that hear the host, and of dead ones;
// witnesses are their names.
func ballotsOf(silent, hear, dead int) (witnesses []string, ballots map[string]online.Ballot) {
	ballots = make(map[string]online.Ballot)
	for i := range silent + hear + dead {
		name := fmt.Sprintf("w%d", i)
		witnesses = append(witnesses, name)
		b := online.Ballot{Void: i >= silent+hear}
		if i < silent {
			b.Silent = []string{"x"}
		}
		ballots[name] = b
	}
	return witnesses, ballots
}

func TestVote(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name               string
		silent, hear, dead int
		offline            bool
	}{
		{"nobody", 0, 0, 0, false},
		{"two nodes: the other one", 1, 0, 0, true},
		{"three nodes, both others", 2, 0, 0, true},
		{"three nodes, one hears it", 1, 1, 0, false},
		{"three nodes, the third died as well", 1, 0, 1, true},
		{"four of seven", 4, 3, 0, true},
		{"three of seven lie", 3, 4, 0, false},
		{"three of seven say that all is well", 4, 3, 0, true},
		{"a rack dies with the host", 4, 0, 3, true},
		{"a rack dies with the host, and one of four lies", 3, 1, 3, true},
		{"half of the living hear it", 2, 2, 3, false},
		{"two are left", 2, 0, 5, true},
		{"two are left, of which one lies", 1, 1, 5, false},
		{"one is left: the Node decides", 1, 0, 6, false},
		{"one is left of three", 1, 0, 2, false},
		{"all are dead", 0, 0, 7, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			witnesses, ballots := ballotsOf(test.silent, test.hear, test.dead)
			v := online.Count("x", witnesses, ballots)
			if want := (online.Vote{Panel: len(witnesses), Watchers: test.silent + test.hear, Silent: test.silent}); v != want {
				t.Errorf("vote %+v, want %+v", v, want)
			}
			if got := offline(v); got != test.offline {
				t.Errorf("offline: %t, want %t", got, test.offline)
			}
		})
	}
}

// TestARackFails: sixty of a hundred users die with the host. They said that all is well,
// and do so for good; they have no vote.
func TestARackFails(t *testing.T) {
	t.Parallel()
	witnesses, ballots := ballotsOf(4, 0, 3)
	for i := range 100 {
		user := online.Ballot{Void: i < 60}
		if i >= 60 {
			user.Silent = []string{"x"}
		}
		ballots[fmt.Sprintf("user%d", i)] = user
	}
	if v := online.Count("x", witnesses, ballots); !offline(v) {
		t.Errorf("vote %+v: the host that died stays online", v)
	}
}

// TestBallotStuffing: an agent that lists a host a hundred times has one vote, or none.
func TestBallotStuffing(t *testing.T) {
	t.Parallel()
	rogue := online.Ballot{Silent: slices.Repeat([]string{"x"}, 100)}
	witnesses, ballots := ballotsOf(0, 6, 0)
	ballots["rogue"] = rogue
	if v := online.Count("x", witnesses, ballots); v.Watchers != 6 || v.Silent != 0 || offline(v) {
		t.Errorf("not a witness: vote %+v", v)
	}
	if v := online.Count("x", append(witnesses, slices.Repeat([]string{"rogue"}, 10)...), ballots); v.Watchers != 7 || v.Silent != 1 || offline(v) {
		t.Errorf("a witness: vote %+v", v)
	}
	// As a witness that always says that all is well, it keeps no dead host online.
	witnesses, ballots = ballotsOf(4, 3, 0)
	if v := online.Count("x", witnesses, ballots); !offline(v) {
		t.Errorf("vote %+v", v)
	}
}

// TestPropertyMostLivingWitnessesDecide: whatever agents report, probes take a host
// offline if and only if most of its living witnesses find it silent: at least two,
// where it has three or more.
//
// Mutants killed: anyone-votes, votes-twice, dead-members-vote, half-is-enough,
// one-liar-is-enough.
func TestPropertyMostLivingWitnessesDecide(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := []string{"a", "b", "c", "d", "e", "f", "g", "x", "y"}
		name := rapid.SampledFrom(names)
		witnesses := rapid.SliceOfN(name, 0, 7).Draw(t, "witnesses")
		ballots := make(map[string]online.Ballot)
		for _, n := range names {
			if rapid.IntRange(0, 5).Draw(t, "no ballot") > 0 {
				ballots[n] = online.Ballot{
					Silent: rapid.SliceOfN(rapid.SampledFrom([]string{"x", "x", "y"}), 0, 3).Draw(t, "silent"),
					Void:   rapid.IntRange(0, 3).Draw(t, "void") == 0,
				}
			}
		}
		members, living, silent := map[string]bool{}, 0, 0
		for _, n := range witnesses {
			b, reports := ballots[n]
			if n == "x" || members[n] {
				continue
			}
			if members[n] = true; reports && !b.Void {
				living++
				if slices.Contains(b.Silent, "x") {
					silent++
				}
			}
		}
		want := 2*silent > living && (silent >= 2 || len(members) <= 2)
		if v := online.Count("x", witnesses, ballots); offline(v) != want {
			t.Fatalf("witnesses %v, ballots %v: vote %+v, offline %t", witnesses, ballots, v, !want)
		}
	})
}
