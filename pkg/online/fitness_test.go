package online_test

import (
	"testing"
	"time"

	"github.com/egressip-operator/egressip-operator/pkg/online"
)

// TestFitness: a witness that falls silent for a moment stays, one that is gone is
// replaced, and one whose agent is known not to work is not tried again at once.
//
// Mutants killed: silent-for-a-moment-is-gone, unprobed-is-well.
func TestFitness(t *testing.T) {
	t.Parallel()
	now := time.Unix(1e9, 0)
	var f online.Fitness
	for i, step := range []struct {
		after              time.Duration
		can, probed        bool
		appointable, stays bool
	}{
		{0, true, true, true, true},
		{time.Second, false, true, false, true},
		{50 * time.Second, false, true, false, true},
		{time.Second, true, true, true, true}, // it was a moment
		{time.Second, false, true, false, true},
		{59 * time.Second, false, true, false, true},
		{2 * time.Second, false, true, false, false}, // replaced
		{time.Second, true, false, false, false},     // not probed any more
		{8 * time.Minute, true, false, false, false},
		{2 * time.Minute, true, false, true, true}, // tried again
		{time.Second, false, true, false, true},
		{5 * time.Minute, true, true, true, true}, // its agent answers
		{time.Second, false, false, false, true},
		{time.Second, true, false, true, true}, // an agent that has just reported
	} {
		now = now.Add(step.after)
		f = f.Next(step.can, step.probed, now)
		if f.Appointable() != step.appointable || f.Stays(now) != step.stays {
			t.Fatalf("step %d: appointable %t, stays %t; want %t, %t", i, f.Appointable(), f.Stays(now), step.appointable, step.stays)
		}
	}
}

func TestCanWitness(t *testing.T) {
	t.Parallel()
	for _, probe := range []online.ProbeState{
		online.NotProbed, online.ProbeUndecided, online.ProbeNeverAnswered, online.ProbeCutOff, online.ProbeHeldDown, online.ProbeAnswers,
	} {
		if !online.CanWitness(true, online.NodeReady, probe) {
			t.Errorf("probe %d: cannot be a witness", probe)
		}
		if online.CanWitness(false, online.NodeReady, probe) || online.CanWitness(true, online.NodeUnreachable, probe) {
			t.Errorf("probe %d: a host without agent, or with a lost Node, is a witness", probe)
		}
	}
	for _, probe := range []online.ProbeState{online.ProbeSilent, online.ProbeReturning, online.ProbeNotServing, online.ProbeNoAgent} {
		if online.CanWitness(true, online.NodeReady, probe) {
			t.Errorf("probe %d: can be a witness", probe)
		}
	}
}
