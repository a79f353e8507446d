package controllers

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	testclock "k8s.io/utils/clock/testing"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/pkg/online"
)

// TestHostOfLeader: a lead ends only where its very host is among the dead.
//
// Mutants killed: any-dead-host-led, first-underscore.
func TestHostOfLeader(t *testing.T) {
	dead := []*v1.HostSubnet{
		{ObjectMeta: metav1.ObjectMeta{Name: "node2"}},
		{ObjectMeta: metav1.ObjectMeta{Name: "a_b"}},
	}
	for identity, want := range map[string]string{
		"node2_11fe7d1c": "node2",
		"NODE2_11fe7d1c": "node2", // the kubelet lowers a machine's name
		"a_b_11fe7d1c":   "a_b",
		"node1_11fe7d1c": "",
		"node22_1":       "",
		"node2":          "", // nobody's identity that we know
		"":               "",
	} {
		if got, found := hostOfLeader(identity, dead); got != want || found != (want != "") {
			t.Errorf("leader %q runs on %q (%t), want %q", identity, got, found, want)
		}
	}
}

// TestLeaderMonitorChecksForAsLongAsALeaseLasts: a host that stays dead is not checked
// forever.
//
// Mutant killed: looks-for-ever.
func TestLeaderMonitorChecksForAsLongAsALeaseLasts(t *testing.T) {
	fake := testclock.NewFakeClock(time.Unix(1_000_000, 0))
	m := &leaderMonitor{clock: fake}
	well := probeStates{"node1": online.ProbeAnswers, "node2": online.ProbeAnswers}
	one := probeStates{"node1": online.ProbeAnswers, "node2": online.ProbeSilent}
	both := probeStates{"node1": online.ProbeCutOff, "node2": online.ProbeCutOff}
	for i, step := range []struct {
		after  time.Duration
		probed probeStates
		due    bool
	}{
		{0, well, false},
		{time.Hour, one, true},
		{leaseDuration, one, true},
		{leaseDuration, one, false},
		{time.Hour, one, false},
		{checkLeaderEvery, both, true}, // another one falls silent
		{2 * leaseDuration, both, false},
		{checkLeaderEvery, well, false},
		{checkLeaderEvery, one, true}, // it falls again
	} {
		fake.Step(step.after)
		if got := m.due(step.probed); got != step.due {
			t.Errorf("step %d: due is %t, want %t", i, got, step.due)
		}
	}
}

// TestSilentHosts: a host counts if its silence made it offline and lasts.
//
// Mutants killed: leader-gone-without-votes, leader-gone-by-verdict-alone,
// leader-gone-before-the-verdict.
func TestSilentHosts(t *testing.T) {
	hosts := []*v1.HostSubnet{{ObjectMeta: metav1.ObjectMeta{Name: "node2"}}}
	offline := online.Verdict{Reason: online.ReasonSilent}
	most, few := online.Vote{Watchers: 3, Silent: 2}, online.Vote{Watchers: 3, Silent: 1}
	for name, c := range map[string]struct {
		probed  online.ProbeState
		vote    online.Vote
		verdict online.Verdict
		dead    bool
	}{
		"silent, and agents agree":                     {online.ProbeSilent, most, offline, true},
		"most hosts are silent, and agents agree":      {online.ProbeCutOff, most, offline, true},
		"silent, and agents do not":                    {online.ProbeSilent, few, offline, false},
		"most are, were before, and agents disagree":   {online.ProbeCutOff, few, offline, false},
		"was silent, and is not decided now":           {online.ProbeUndecided, most, offline, false},
		"was silent, and answers":                      {online.ProbeHeldDown, most, offline, false},
		"silent to all, and not taken for offline yet": {online.ProbeSilent, most, online.Verdict{Online: true}, false},
	} {
		v := view{
			hosts: hosts, verdicts: map[string]online.Verdict{"node2": c.verdict}, votes: map[string]online.Vote{"node2": c.vote},
			probed: probeStates{"node2": c.probed},
		}
		if got := len(v.silentHosts()) == 1; got != c.dead {
			t.Errorf("%s: dead is %t, want %t", name, got, c.dead)
		}
	}
}
