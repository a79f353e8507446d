package online_test

import (
	"testing"

	"github.com/egressip-operator/egressip-operator/pkg/online"
)

// TestAlone: a controller that hears no other host decides nothing on its own host's
// word, unless there was only one that it could lose.
//
// Mutants killed: one-lost-is-alone, known-dead-make-alone, held-down-is-company,
// missed-is-company, missed-alone-is-alone, missed-is-evidence.
func TestAlone(t *testing.T) {
	t.Parallel()
	const own = "own"
	ready := map[string]online.NodeState{own: online.NodeReady, "a": online.NodeReady, "b": online.NodeReady, "dead": online.NodeUnreachable}
	for _, test := range []struct {
		name   string
		probed map[string]online.ProbeState
		alone  bool
	}{
		{"all answer", map[string]online.ProbeState{own: online.ProbeAnswers, "a": online.ProbeAnswers, "b": online.ProbeAnswers}, false},
		{"one of two is lost", map[string]online.ProbeState{own: online.ProbeAnswers, "a": online.ProbeSilent, "b": online.ProbeAnswers}, false},
		{"the only other one is lost", map[string]online.ProbeState{own: online.ProbeAnswers, "a": online.ProbeSilent}, false},
		{"both are lost", map[string]online.ProbeState{own: online.ProbeAnswers, "a": online.ProbeSilent, "b": online.ProbeSilent}, true},
		{"both are lost at once", map[string]online.ProbeState{own: online.ProbeAnswers, "a": online.ProbeCutOff, "b": online.ProbeCutOff}, true},
		{"one comes back first", map[string]online.ProbeState{own: online.ProbeAnswers, "a": online.ProbeReturning, "b": online.ProbeSilent}, true},
		{"and is not trusted yet", map[string]online.ProbeState{own: online.ProbeAnswers, "a": online.ProbeHeldDown, "b": online.ProbeSilent}, true},
		{"the kernel of one answers", map[string]online.ProbeState{own: online.ProbeAnswers, "a": online.ProbeNoAgent, "b": online.ProbeSilent}, false},
		{"one answers that it does not serve", map[string]online.ProbeState{own: online.ProbeAnswers, "a": online.ProbeNotServing, "b": online.ProbeSilent}, false},
		{"one is known to be dead, and the other dies", map[string]online.ProbeState{own: online.ProbeAnswers, "a": online.ProbeSilent, "dead": online.ProbeSilent}, false},
		{"one was never heard", map[string]online.ProbeState{own: online.ProbeAnswers, "a": online.ProbeSilent, "b": online.ProbeNeverAnswered}, false},
		{"one is silent a moment before the other", map[string]online.ProbeState{own: online.ProbeAnswers, "a": online.ProbeSilent, "b": online.ProbeMissed}, true},
		{"and its own host misses a probe", map[string]online.ProbeState{own: online.ProbeMissed, "a": online.ProbeSilent, "b": online.ProbeMissed}, true},
		{"the other answers again", map[string]online.ProbeState{own: online.ProbeMissed, "a": online.ProbeSilent, "b": online.ProbeAnswers}, false},
		{"both missed a probe", map[string]online.ProbeState{own: online.ProbeAnswers, "a": online.ProbeMissed, "b": online.ProbeMissed}, false},
		{"one is silent, and one that is known to be dead missed a probe", map[string]online.ProbeState{own: online.ProbeAnswers, "a": online.ProbeSilent, "dead": online.ProbeMissed}, false},
		{"its own host is silent too", map[string]online.ProbeState{own: online.ProbeSilent, "a": online.ProbeSilent}, false},
	} {
		counting, void := online.Alone(own, test.probed, ready)
		if alone := void != nil; alone != test.alone {
			t.Errorf("%s: alone is %t, want %t", test.name, alone, test.alone)
		}
		for name, before := range test.probed {
			want := before
			if before == online.ProbeMissed {
				want = online.ProbeAnswers
			}
			if test.alone && (before == online.ProbeSilent || before == online.ProbeCutOff || before == online.ProbeReturning) {
				want = online.ProbeAlone
			}
			if want := test.alone && (name == own || before == online.ProbeMissed); void[name] != want {
				t.Errorf("%s: the ballot of %s is void: %t, want %t", test.name, name, void[name], want)
			}
			if counting[name] != want {
				t.Errorf("%s: the result for %s is %d, want %d", test.name, name, counting[name], want)
			}
		}
	}
}
