package conformance_test

import (
	"testing"

	"github.com/egressip-operator/egressip-operator/test/conformance"
)

// TestAPIServer plays the corpus on a real API server with the controller
// running.
func TestAPIServer(t *testing.T) {
	corpus, deviations := load(t)
	c := startCluster(t)
	t.Run("scenarios", func(t *testing.T) {
		var count tally
		for _, scenario := range corpus.Scenarios {
			t.Run(scenario.Name, func(t *testing.T) {
				wrong, err := conformance.Play(t.Context(), newDriver(t, c, scenario.Profile), scenario)
				if err != nil {
					wrong = append(wrong, err.Error())
				}
				count.judge(t, onAPIServer(scenario.Name, deviations), deviations, wrong)
			})
			if _, ok := deviations["api/"+scenario.Name]; !ok {
				continue
			}
			// What differs because the controller is quick must not differ
			// where it finds everything at once.
			t.Run(scenario.Name+" at once", func(t *testing.T) {
				d := newDriver(t, c, scenario.Profile)
				d.atOnce = true
				if wrong, err := conformance.Play(t.Context(), d, scenario); err != nil || len(wrong) > 0 {
					t.Error(err, wrong)
				}
			})
		}
		count.report(t, "scenarios on an API server with the controller", len(corpus.Scenarios))
	})
	t.Run("lifecycle", func(t *testing.T) {
		var count tally
		for _, scenario := range corpus.LifecycleScenarios {
			t.Run(scenario.Name, func(t *testing.T) {
				wrong := newLife(t, c).play(scenario)
				count.judge(t, onAPIServer(scenario.Name, deviations), deviations, wrong)
			})
		}
		count.report(t, "lifecycleScenarios on an API server with the controller", len(corpus.LifecycleScenarios))
	})
	t.Run("health", func(t *testing.T) { testNotReady(t, c, corpus, deviations) })
	t.Run("vectors", func(t *testing.T) { testVectors(t, c, corpus, deviations) })
}
