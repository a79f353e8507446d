package agent

import (
	"testing"

	"k8s.io/apimachinery/pkg/labels"
)

// The labels of a pod are those that the API server has, whatever its sandbox was made with; of one
// that the API server does not have yet those of the sandbox, and of one that it has no longer
// those that it had last.
//
// Mutants killed: labels-of-the-sandbox, labels-end-with-the-object.
func TestLabelsOfPods(t *testing.T) {
	var last lastLabels
	pod := func(from podSource, uid, tier string) localPod {
		return localPod{source: from, uid: uid, labels: labels.Set{"tier": tier}}
	}
	for _, c := range []struct {
		name string
		pods []localPod
		want []string
	}{
		{"a sandbox alone", []localPod{pod(fromRuntime, "1", "made")}, []string{"made"}},
		{"a label was changed", []localPod{pod(fromAPI, "1", "changed"), pod(fromRuntime, "1", "made")}, []string{"changed", "changed"}},
		{"deleted by force", []localPod{pod(fromRuntime, "1", "made")}, []string{"changed"}},
		{"still running", []localPod{pod(fromRuntime, "1", "made")}, []string{"changed"}},
		{"another pod", []localPod{pod(fromRuntime, "2", "made")}, []string{"made"}},
		{"the first is long gone", []localPod{pod(fromRuntime, "1", "made")}, []string{"made"}},
	} {
		for i, p := range last.correct(c.pods) {
			if got := p.labels["tier"]; got != c.want[i] {
				t.Errorf("%s: label of pod %d is %q, want %q", c.name, i, got, c.want[i])
			}
		}
	}
}
