package online_test

import (
	"testing"

	"github.com/egressip-operator/egressip-operator/pkg/online"
)

// TestAlone: a controller that hears no other host decides nothing on its own host's
// word, unless there was only one that it could lose.
//
// Mutants killed: one-lost-is-alone, known-dead-make-alone, held-down-is-company,
// missed-is-company, missed-alone-is-alone, missed-is-evidence,
// missed-without-agent-is-company.
func TestAlone(t *testing.T) {
	t.Parallel()
	const own = "own"
	ready := map[string]online.NodeState{own: online.NodeReady, "a": online.NodeReady, "b": online.NodeReady, "dead": online.NodeUnreachable}
	for _, test := range []struct {
		name   string
		probed map[string]online.Probed
		alone  bool
	}{
		{"all answer", map[string]online.Probed{own: {State: online.ProbeAnswers}, "a": {State: online.ProbeAnswers}, "b": {State: online.ProbeAnswers}}, false},
		{"one of two is lost", map[string]online.Probed{own: {State: online.ProbeAnswers}, "a": {State: online.ProbeSilent}, "b": {State: online.ProbeAnswers}}, false},
		{"the only other one is lost", map[string]online.Probed{own: {State: online.ProbeAnswers}, "a": {State: online.ProbeSilent}}, false},
		{"both are lost", map[string]online.Probed{own: {State: online.ProbeAnswers}, "a": {State: online.ProbeSilent}, "b": {State: online.ProbeSilent}}, true},
		{"both are lost at once", map[string]online.Probed{own: {State: online.ProbeAnswers}, "a": {State: online.ProbeCutOff}, "b": {State: online.ProbeCutOff}}, true},
		{"one comes back first", map[string]online.Probed{own: {State: online.ProbeAnswers}, "a": {State: online.ProbeReturning}, "b": {State: online.ProbeSilent}}, true},
		{"and is not trusted yet", map[string]online.Probed{own: {State: online.ProbeAnswers}, "a": {State: online.ProbeHeldDown}, "b": {State: online.ProbeSilent}}, true},
		{"the kernel of one answers", map[string]online.Probed{own: {State: online.ProbeAnswers}, "a": {State: online.ProbeNoAgent}, "b": {State: online.ProbeSilent}}, false},
		{"one answers that it does not serve", map[string]online.Probed{own: {State: online.ProbeAnswers}, "a": {State: online.ProbeNotServing}, "b": {State: online.ProbeSilent}}, false},
		{"one is known to be dead, and the other dies", map[string]online.Probed{own: {State: online.ProbeAnswers}, "a": {State: online.ProbeSilent}, "dead": {State: online.ProbeSilent}}, false},
		{"one was never heard", map[string]online.Probed{own: {State: online.ProbeAnswers}, "a": {State: online.ProbeSilent}, "b": {State: online.ProbeNeverAnswered}}, false},
		{"one is silent a moment before the other", map[string]online.Probed{own: {State: online.ProbeAnswers}, "a": {State: online.ProbeSilent}, "b": {State: online.ProbeAnswers, Missed: true}}, true},
		{"and its own host misses a probe", map[string]online.Probed{own: {State: online.ProbeAnswers, Missed: true}, "a": {State: online.ProbeSilent}, "b": {State: online.ProbeAnswers, Missed: true}}, true},
		{"the other answers again", map[string]online.Probed{own: {State: online.ProbeAnswers, Missed: true}, "a": {State: online.ProbeSilent}, "b": {State: online.ProbeAnswers}}, false},
		{"one is silent a moment before one without an agent", map[string]online.Probed{own: {State: online.ProbeAnswers}, "a": {State: online.ProbeSilent}, "b": {State: online.ProbeNoAgent, Missed: true}}, true},
		{"one is silent a moment before one that does not serve", map[string]online.Probed{own: {State: online.ProbeAnswers}, "a": {State: online.ProbeSilent}, "b": {State: online.ProbeNotServing, Missed: true}}, true},
		{"both missed a probe", map[string]online.Probed{own: {State: online.ProbeAnswers}, "a": {State: online.ProbeAnswers, Missed: true}, "b": {State: online.ProbeAnswers, Missed: true}}, false},
		{"one is silent, and one that is known to be dead missed a probe", map[string]online.Probed{own: {State: online.ProbeAnswers}, "a": {State: online.ProbeSilent}, "dead": {State: online.ProbeAnswers, Missed: true}}, false},
		{"its own host is silent too", map[string]online.Probed{own: {State: online.ProbeSilent}, "a": {State: online.ProbeSilent}}, false},
	} {
		counting, void := online.Alone(own, test.probed, ready)
		if alone := void != nil; alone != test.alone {
			t.Errorf("%s: alone is %t, want %t", test.name, alone, test.alone)
		}
		for name, before := range test.probed {
			want := before.State
			if test.alone && (want == online.ProbeSilent || want == online.ProbeCutOff || want == online.ProbeReturning) {
				want = online.ProbeAlone
			}
			if want := test.alone && (name == own || before.Missed); void[name] != want {
				t.Errorf("%s: the ballot of %s is void: %t, want %t", test.name, name, void[name], want)
			}
			if counting[name] != want {
				t.Errorf("%s: the result for %s is %d, want %d", test.name, name, counting[name], want)
			}
		}
	}
}
