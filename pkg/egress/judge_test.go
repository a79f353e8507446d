package egress_test

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

func TestJudge(t *testing.T) {
	vote := func(watchers, silent int) egress.Vote { return egress.Vote{Watchers: watchers, Silent: silent} }
	for _, test := range []struct {
		name   string
		given  egress.Evidence
		online bool
		closed bool
		reason egress.Reason
	}{
		{"without probes, the Node decides", egress.Evidence{Node: egress.NodeReady}, true, false, egress.ReasonNodeReady},
		{"gone", egress.Evidence{Node: egress.NodeGone, Probe: egress.ProbeAnswers}, false, false, egress.ReasonNodeGone},
		{"not ready by its own word", egress.Evidence{Node: egress.NodeNotReady, Probe: egress.ProbeAnswers}, false, false, egress.ReasonNodeNotReady},
		{"unreachable", egress.Evidence{Node: egress.NodeUnreachable}, false, false, egress.ReasonNodeUnreachable},
		{"unreachable, and silent", egress.Evidence{Node: egress.NodeUnreachable, Probe: egress.ProbeSilent, Vote: vote(3, 1)}, false, false, egress.ReasonNodeUnreachable},
		{"unreachable, and answers", egress.Evidence{Node: egress.NodeUnreachable, Probe: egress.ProbeAnswers}, true, true, egress.ReasonAnswers},
		{"its power went", egress.Evidence{Node: egress.NodeReady, Probe: egress.ProbeSilent, Vote: vote(3, 2)}, false, false, egress.ReasonSilent},
		{"half is no majority", egress.Evidence{Node: egress.NodeReady, Probe: egress.ProbeSilent, Vote: vote(4, 2)}, true, true, egress.ReasonNodeReady},
		{"nobody watches", egress.Evidence{Node: egress.NodeReady, Probe: egress.ProbeSilent}, true, true, egress.ReasonNodeReady},
		{"the controller alone hears it", egress.Evidence{Node: egress.NodeReady, Probe: egress.ProbeAnswers, Vote: vote(3, 3)}, true, false, egress.ReasonNodeReady},
		{"probes never came through", egress.Evidence{Node: egress.NodeReady, Probe: egress.ProbeNeverHeard, Vote: vote(3, 3)}, true, false, egress.ReasonNodeReady},
		{
			"unreachable, and was never heard",
			egress.Evidence{Node: egress.NodeUnreachable, Probe: egress.ProbeNeverHeard, Judged: true, Online: true, Reason: egress.ReasonNodeReady},
			false, false, egress.ReasonNodeUnreachable,
		},
		{"the controller is cut off, and most agents are not", egress.Evidence{Node: egress.NodeReady, Probe: egress.ProbeCutOff, Vote: vote(3, 1)}, true, false, egress.ReasonNodeReady},
		{"the controller seems cut off, and most agents agree that the host is gone", egress.Evidence{Node: egress.NodeReady, Probe: egress.ProbeCutOff, Vote: vote(3, 2)}, false, false, egress.ReasonSilent},
		{
			"it answers again, and has to go on",
			egress.Evidence{Node: egress.NodeReady, Probe: egress.ProbeHeld, Judged: true, Reason: egress.ReasonSilent},
			false, false, egress.ReasonHeldDown,
		},
		{
			"the controller alone had not heard it",
			egress.Evidence{Node: egress.NodeReady, Probe: egress.ProbeHeld, Judged: true, Online: true, Reason: egress.ReasonNodeReady},
			true, false, egress.ReasonNodeReady,
		},
		{
			"it serves as a last resort",
			egress.Evidence{Node: egress.NodeReady, Probe: egress.ProbeHeld, Judged: true, Online: true, Reason: egress.ReasonLastResort},
			true, false, egress.ReasonLastResort,
		},
		{
			"agents hear it before the controller does",
			egress.Evidence{Node: egress.NodeReady, Probe: egress.ProbeReturning, Judged: true, Reason: egress.ReasonSilent},
			false, false, egress.ReasonHeldDown,
		},
		{
			"the controller hears it once, and most agents do not",
			egress.Evidence{Node: egress.NodeReady, Probe: egress.ProbeReturning, Vote: vote(3, 2), Judged: true, Reason: egress.ReasonSilent},
			false, false, egress.ReasonHeldDown,
		},
		{
			"the controller alone had not heard it, and begins to",
			egress.Evidence{Node: egress.NodeReady, Probe: egress.ProbeReturning, Judged: true, Online: true, Reason: egress.ReasonNodeReady},
			true, true, egress.ReasonNodeReady,
		},
		{
			"it was held down when the controller could last tell",
			egress.Evidence{Node: egress.NodeReady, Probe: egress.ProbeUndecided, Judged: true, Reason: egress.ReasonHeldDown},
			false, false, egress.ReasonHeldDown,
		},
		{"no data plane", egress.Evidence{Node: egress.NodeReady, Probe: egress.ProbeNotServing, Vote: vote(3, 3)}, false, false, egress.ReasonNotServing},
		{"no agent", egress.Evidence{Node: egress.NodeReady, Probe: egress.ProbeNoAgent, Vote: vote(3, 3)}, true, true, egress.ReasonNoAgent},
		{"neither agent nor kubelet", egress.Evidence{Node: egress.NodeUnreachable, Probe: egress.ProbeNoAgent, Vote: vote(3, 3)}, true, true, egress.ReasonNoAgent},
		{
			"a new leader keeps a dead host offline",
			egress.Evidence{Node: egress.NodeReady, Probe: egress.ProbeUndecided, Judged: true, Reason: egress.ReasonSilent},
			false, false, egress.ReasonSilent,
		},
		{
			"a new leader keeps a host whose kubelet is dead",
			egress.Evidence{Node: egress.NodeUnreachable, Probe: egress.ProbeUndecided, Judged: true, Online: true, Reason: egress.ReasonAnswers},
			true, true, egress.ReasonAnswers,
		},
		{
			"a new leader asks before it believes a Node's silence",
			egress.Evidence{Node: egress.NodeUnreachable, Probe: egress.ProbeUndecided, Judged: true, Online: true, Reason: egress.ReasonNodeReady},
			true, true, egress.ReasonNodeReady,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			v := egress.Judge(test.given)
			if v.Online != test.online || v.Closed != test.closed || v.Reason != test.reason || v.Message == "" {
				t.Errorf("got %+v, want online %t, closed %t, reason %s", v, test.online, test.closed, test.reason)
			}
		})
	}
}

// Mutants killed: judgeSilent that asks for half of the agents instead of more;
// Judge that moves what a host without an agent bears; unheard-gets-claims; agents-end-the-hold-down.
func TestPropertyProbesAloneTakeNoHostThatAnybodyHears(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := egress.Evidence{
			Node:   egress.NodeWord(rapid.IntRange(int(egress.NodeGone), int(egress.NodeUnheard)).Draw(t, "node")),
			Probe:  egress.ProbeWord(rapid.IntRange(int(egress.NotProbed), int(egress.ProbeNoAgent)).Draw(t, "probe")),
			Judged: rapid.Bool().Draw(t, "judged"),
			Online: rapid.Bool().Draw(t, "online"),
			Reason: rapid.SampledFrom([]egress.Reason{
				egress.ReasonNodeReady, egress.ReasonSilent, egress.ReasonNotServing, egress.ReasonAnswers, egress.ReasonNoAgent,
				egress.ReasonHeldDown, egress.ReasonLastResort,
			}).Draw(t, "reason"),
		}
		e.Vote.Watchers = rapid.IntRange(0, 5).Draw(t, "watchers")
		e.Vote.Silent = rapid.IntRange(0, e.Vote.Watchers).Draw(t, "silent")
		v := egress.Judge(e)
		lost := e.Probe == egress.ProbeSilent || e.Probe == egress.ProbeReturning || e.Probe == egress.ProbeNotServing || e.Probe == egress.ProbeCutOff
		before := (e.Probe == egress.ProbeHeld || e.Probe == egress.ProbeReturning || e.Probe == egress.ProbeUndecided || e.Probe == egress.ProbeNeverHeard || e.Probe == egress.ProbeCutOff) && e.Judged
		majority := e.Vote.Silent > e.Vote.Watchers-e.Vote.Silent
		if e.Node == egress.NodeReady && !v.Online && !before && (!lost || !majority) {
			t.Fatalf("%+v: offline though its Node is Ready, %t by the controller's probes, %t by a majority", e, lost, majority)
		}
		if (e.Node == egress.NodeReady || e.Node == egress.NodeUnreachable) && lost && majority && v.Online {
			t.Fatalf("%+v: online though nobody hears it", e)
		}
		alive := e.Probe == egress.ProbeAnswers || e.Probe == egress.ProbeNoAgent
		if e.Node == egress.NodeUnreachable && alive && !v.Online {
			t.Fatalf("%+v: offline though its kernel answers", e)
		}
		returning := e.Probe == egress.ProbeReturning || e.Probe == egress.ProbeHeld
		byProbes := e.Reason == egress.ReasonSilent || e.Reason == egress.ReasonNotServing || e.Reason == egress.ReasonHeldDown
		if returning && e.Judged && !e.Online && byProbes && v.Online {
			t.Fatalf("%+v: online before its hold-down is over", e)
		}
		if e.Node == egress.NodeUnreachable && v.Online && !v.Closed {
			t.Fatalf("%+v: gets more, of which its agent may not hear", e)
		}
	})
}
