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
		"node2":          "", // no identity that we know
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
	well := probeStates{"node1": {State: online.ProbeAnswers}, "node2": {State: online.ProbeAnswers}}
	one := probeStates{"node1": {State: online.ProbeAnswers}, "node2": {State: online.ProbeSilent}}
	both := probeStates{"node1": {State: online.ProbeCutOff}, "node2": {State: online.ProbeCutOff}}
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
		{retryPeriod, both, true}, // another one falls silent
		{2 * leaseDuration, both, false},
		{retryPeriod, well, false},
		{retryPeriod, one, true}, // it falls again
	} {
		fake.Step(step.after)
		if got := m.due(step.probed); got != step.due {
			t.Errorf("step %d: due is %t, want %t", i, got, step.due)
		}
	}
}
