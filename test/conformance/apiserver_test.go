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
				out := conformance.Play(t.Context(), newDriver(t, c, scenario.Profile), scenario)
				logNotHere(t, out)
				count.judge(t, onAPIServer(scenario.Name, deviations), deviations, out.Wrong)
			})
			if _, ok := deviations["api/"+scenario.Name]; !ok {
				continue
			}
			// What differs because the controller is quick must not differ
			// where it finds everything at once.
			t.Run(scenario.Name+" at once", func(t *testing.T) {
				d := newDriver(t, c, scenario.Profile)
				d.atOnce = true
				if out := conformance.Play(t.Context(), d, scenario); len(out.Wrong) > 0 {
					t.Error(out.Wrong)
				}
			})
		}
		count.report(t, "scenarios on an API server with the controller", len(corpus.Scenarios))
	})
	t.Run("lifecycle", func(t *testing.T) {
		var count tally
		for _, scenario := range corpus.LifecycleScenarios {
			t.Run(scenario.Name, func(t *testing.T) {
				out := newLife(t, c).play(scenario)
				logNotHere(t, out)
				count.judge(t, onAPIServer(scenario.Name, deviations), deviations, out.Wrong)
			})
		}
		count.report(t, "lifecycleScenarios on an API server with the controller", len(corpus.LifecycleScenarios))
	})
	t.Run("health", func(t *testing.T) { testNotReady(t, c, corpus, deviations) })
	t.Run("vectors", func(t *testing.T) { testVectors(t, c, corpus, deviations) })
	t.Run("every word", func(t *testing.T) { testEveryWord(t, c) })
}

// TestAPIServerInIPv6 plays the scenarios where hosts and egress IPs have addresses of IPv6, on
// an API server of its own. The controller's metrics are those of its process, so that two
// controllers in one do not run side by side.
func TestAPIServerInIPv6(t *testing.T) {
	corpus, deviations := load(t)
	c := startCluster(t)
	var count tally
	for _, scenario := range corpus.Scenarios {
		t.Run(scenario.Name, func(t *testing.T) {
			out := conformance.Play(t.Context(), conformance.InIPv6{Driver: newDriver(t, c, scenario.Profile)}, scenario)
			logNotHere(t, out)
			count.judge(t, onAPIServer(scenario.Name, deviations), deviations, out.Wrong)
		})
	}
	count.report(t, "scenarios on an API server with the controller, in IPv6", len(corpus.Scenarios))
}
