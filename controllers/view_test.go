package controllers

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/pkg/online"
)

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
			probed: map[string]online.ProbeState{"node2": c.probed},
		}
		if got := len(v.silentHosts()) == 1; got != c.dead {
			t.Errorf("%s: dead is %t, want %t", name, got, c.dead)
		}
	}
}
