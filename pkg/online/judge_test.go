package online_test

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/egressip-operator/egressip-operator/pkg/online"
)

func TestJudge(t *testing.T) {
	vote := func(watchers, silent int) online.Vote { return online.Vote{Watchers: watchers, Silent: silent} }
	for _, test := range []struct {
		name   string
		given  online.Evidence
		online bool
		closed bool
		reason online.Reason
	}{
		{"without probes, the Node decides", online.Evidence{Node: online.NodeReady}, true, false, online.ReasonNodeReady},
		{"gone", online.Evidence{Node: online.NodeGone, Probe: online.ProbeAnswers}, false, false, online.ReasonNodeGone},
		{"not ready by its own word", online.Evidence{Node: online.NodeNotReady}, false, false, online.ReasonNodeNotReady},
		{"its kubelet restarts, and it answers", online.Evidence{Node: online.NodeNotReady, Probe: online.ProbeAnswers}, true, true, online.ReasonAnswers},
		{"not ready, and nobody hears it", online.Evidence{Node: online.NodeNotReady, Probe: online.ProbeSilent, Vote: vote(3, 2)}, false, false, online.ReasonSilent},
		{"not ready, and its agent is gone", online.Evidence{Node: online.NodeNotReady, Probe: online.ProbeNoAgent}, false, false, online.ReasonNodeNotReady},
		{
			"a new leader asks before it believes that a Node is not ready",
			online.Evidence{Node: online.NodeNotReady, Probe: online.ProbeUndecided, Judged: true, WasOnline: true, WasReason: online.ReasonNodeReady},
			true, true, online.ReasonNodeReady,
		},
		{"unreachable", online.Evidence{Node: online.NodeUnreachable}, false, false, online.ReasonNodeUnreachable},
		{"unreachable, and silent", online.Evidence{Node: online.NodeUnreachable, Probe: online.ProbeSilent, Vote: vote(3, 1)}, false, false, online.ReasonNodeUnreachable},
		{"unreachable, and answers", online.Evidence{Node: online.NodeUnreachable, Probe: online.ProbeAnswers}, true, true, online.ReasonAnswers},
		{"its power went", online.Evidence{Node: online.NodeReady, Probe: online.ProbeSilent, Vote: vote(3, 2)}, false, false, online.ReasonSilent},
		{"half is no majority", online.Evidence{Node: online.NodeReady, Probe: online.ProbeSilent, Vote: vote(4, 2)}, true, true, online.ReasonNodeReady},
		{"nobody watches", online.Evidence{Node: online.NodeReady, Probe: online.ProbeSilent}, true, true, online.ReasonNodeReady},
		{"the controller alone hears it", online.Evidence{Node: online.NodeReady, Probe: online.ProbeAnswers, Vote: vote(3, 3)}, true, false, online.ReasonNodeReady},
		{"probes never came through", online.Evidence{Node: online.NodeReady, Probe: online.ProbeNeverAnswered, Vote: vote(3, 3)}, true, false, online.ReasonNodeReady},
		{
			"unreachable, and was never heard",
			online.Evidence{Node: online.NodeUnreachable, Probe: online.ProbeNeverAnswered, Judged: true, WasOnline: true, WasReason: online.ReasonNodeReady},
			false, false, online.ReasonNodeUnreachable,
		},
		{"the controller is cut off, and most agents are not", online.Evidence{Node: online.NodeReady, Probe: online.ProbeCutOff, Vote: vote(3, 1)}, true, false, online.ReasonNodeReady},
		{"the controller seems cut off, and most agents agree that the host is gone", online.Evidence{Node: online.NodeReady, Probe: online.ProbeCutOff, Vote: vote(3, 2)}, false, false, online.ReasonSilent},
		{
			"it answers again, and has to go on",
			online.Evidence{Node: online.NodeReady, Probe: online.ProbeHeldDown, Judged: true, WasReason: online.ReasonSilent},
			false, false, online.ReasonHeldDown,
		},
		{
			"the controller alone had not heard it",
			online.Evidence{Node: online.NodeReady, Probe: online.ProbeHeldDown, Judged: true, WasOnline: true, WasReason: online.ReasonNodeReady},
			true, false, online.ReasonNodeReady,
		},
		{
			"it serves as a last resort",
			online.Evidence{Node: online.NodeReady, Probe: online.ProbeHeldDown, Judged: true, WasOnline: true, WasReason: online.ReasonLastResort},
			true, false, online.ReasonLastResort,
		},
		{
			"agents hear it before the controller does",
			online.Evidence{Node: online.NodeReady, Probe: online.ProbeReturning, Judged: true, WasReason: online.ReasonSilent},
			false, false, online.ReasonHeldDown,
		},
		{
			"the controller hears it once, and most agents do not",
			online.Evidence{Node: online.NodeReady, Probe: online.ProbeReturning, Vote: vote(3, 2), Judged: true, WasReason: online.ReasonSilent},
			false, false, online.ReasonHeldDown,
		},
		{
			"the controller alone had not heard it, and begins to",
			online.Evidence{Node: online.NodeReady, Probe: online.ProbeReturning, Judged: true, WasOnline: true, WasReason: online.ReasonNodeReady},
			true, true, online.ReasonNodeReady,
		},
		{
			"it was held down when the controller could last tell",
			online.Evidence{Node: online.NodeReady, Probe: online.ProbeUndecided, Judged: true, WasReason: online.ReasonHeldDown},
			false, false, online.ReasonHeldDown,
		},
		{"no data plane", online.Evidence{Node: online.NodeReady, Probe: online.ProbeNotServing, Vote: vote(3, 3)}, false, false, online.ReasonNotServing},
		{"no agent", online.Evidence{Node: online.NodeReady, Probe: online.ProbeNoAgent, Vote: vote(3, 3)}, true, true, online.ReasonNoAgent},
		{"neither agent nor kubelet", online.Evidence{Node: online.NodeUnreachable, Probe: online.ProbeNoAgent, Vote: vote(3, 3)}, true, true, online.ReasonNoAgent},
		{
			"a new leader keeps a dead host offline",
			online.Evidence{Node: online.NodeReady, Probe: online.ProbeUndecided, Judged: true, WasReason: online.ReasonSilent},
			false, false, online.ReasonSilent,
		},
		{
			"a new leader keeps a host whose kubelet is dead",
			online.Evidence{Node: online.NodeUnreachable, Probe: online.ProbeUndecided, Judged: true, WasOnline: true, WasReason: online.ReasonAnswers},
			true, true, online.ReasonAnswers,
		},
		{
			"a new leader asks before it believes a Node's silence",
			online.Evidence{Node: online.NodeUnreachable, Probe: online.ProbeUndecided, Judged: true, WasOnline: true, WasReason: online.ReasonNodeReady},
			true, true, online.ReasonNodeReady,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			v := online.Judge(test.given)
			if doubtful := inDoubt(test.given, v); v.Doubtful != doubtful {
				t.Errorf("doubtful is %t", v.Doubtful)
			}
			if v.Online != test.online || v.Closed != test.closed || v.Reason != test.reason || v.Message == "" {
				t.Errorf("got %+v, want online %t, closed %t, reason %s", v, test.online, test.closed, test.reason)
			}
		})
	}
}

// inDoubt reports whether a host must be in doubt on which there is such a verdict: its
// Node is Ready, and probes alone speak against it. In its hold-down, the last resort
// decides instead.
func inDoubt(e online.Evidence, v online.Verdict) bool {
	return e.Node == online.NodeReady && !v.Online && !v.HeldDown &&
		(v.Reason == online.ReasonSilent || v.Reason == online.ReasonHeldDown)
}

// Mutants killed: silence-is-death, not-ready-is-dead, agentless-is-dead, unheard-gets-claims,
// agents-end-the-hold-down.
func TestPropertyProbesAloneTakeNoHostThatAnybodyHears(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := online.Evidence{
			Node:      online.NodeState(rapid.IntRange(int(online.NodeGone), int(online.NodeNotReported)).Draw(t, "node")),
			Probe:     online.ProbeState(rapid.IntRange(int(online.NotProbed), int(online.ProbeAlone)).Draw(t, "probe")),
			Judged:    rapid.Bool().Draw(t, "judged"),
			WasOnline: rapid.Bool().Draw(t, "online"),
			WasReason: rapid.SampledFrom([]online.Reason{
				online.ReasonNodeReady, online.ReasonSilent, online.ReasonNotServing, online.ReasonAnswers, online.ReasonNoAgent,
				online.ReasonHeldDown, online.ReasonLastResort,
			}).Draw(t, "reason"),
		}
		e.Vote.Watchers = rapid.IntRange(0, 5).Draw(t, "watchers")
		e.Vote.Silent = rapid.IntRange(0, e.Vote.Watchers).Draw(t, "silent")
		v := online.Judge(e)
		lost := e.Probe == online.ProbeSilent || e.Probe == online.ProbeReturning || e.Probe == online.ProbeNotServing || e.Probe == online.ProbeCutOff || e.Probe == online.ProbeAlone
		before := (e.Probe == online.ProbeHeldDown || e.Probe == online.ProbeReturning || e.Probe == online.ProbeUndecided || e.Probe == online.ProbeNeverAnswered || e.Probe == online.ProbeCutOff || e.Probe == online.ProbeAlone) && e.Judged
		majority := e.Vote.Silent > e.Vote.Watchers-e.Vote.Silent
		if e.Node == online.NodeReady && !v.Online && !before && (!lost || !majority) {
			t.Fatalf("%+v: offline though its Node is Ready, %t by the controller's probes, %t by a majority", e, lost, majority)
		}
		if (e.Node == online.NodeReady || e.Node == online.NodeUnreachable) && lost && majority && v.Online {
			t.Fatalf("%+v: online though nobody hears it", e)
		}
		if v.Doubtful != inDoubt(e, v) || v.Doubtful && v.Online {
			t.Fatalf("%+v: doubtful is %t: %+v", e, v.Doubtful, v)
		}
		alive := e.Probe == online.ProbeAnswers || e.Probe == online.ProbeNoAgent
		if e.Node == online.NodeUnreachable && alive && !v.Online {
			t.Fatalf("%+v: offline though its kernel answers", e)
		}
		returning := e.Probe == online.ProbeReturning || e.Probe == online.ProbeHeldDown
		byProbes := e.WasReason == online.ReasonSilent || e.WasReason == online.ReasonNotServing || e.WasReason == online.ReasonHeldDown
		if returning && e.Judged && !e.WasOnline && byProbes && v.Online {
			t.Fatalf("%+v: online before its hold-down is over", e)
		}
		if e.Node == online.NodeNotReady && e.Probe == online.ProbeAnswers && !v.Online {
			t.Fatalf("%+v: offline though it answers", e)
		}
		if (e.Node == online.NodeUnreachable || e.Node == online.NodeNotReady) && v.Online && !v.Closed {
			t.Fatalf("%+v: gets more, of which its agent may not hear", e)
		}
	})
}
