package conformance_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/pkg/probe"
	"github.com/egressip-operator/egressip-operator/test/conformance"
)

// The corpus has health in words of OpenShift SDN's probe, a TCP connection that a
// living host refuses. Ours is answered instead: "refused" and
// "connected" are an answer, "timeout" and "unreachable" are none.
func outcome(result string) (probe.Outcome, error) {
	switch {
	case result == "refused", result == "connected", strings.HasPrefix(result, "error:"):
		return probe.Ready, nil
	case result == "timeout", result == "unreachable":
		return probe.Missed, nil
	}
	return 0, fmt.Errorf("unknown probe result %q", result)
}

// notReady reports whether the scenario is about Nodes that are not Ready. No probe
// knows that: the controller judges them.
func notReady(s conformance.HealthScenario) bool {
	return s.Role == "controller" &&
		slices.ContainsFunc(s.Sequence, func(step conformance.HealthStep) bool { return step.Ready != nil && !*step.Ready })
}

func TestHealth(t *testing.T) {
	corpus, deviations := load(t)
	var count tally
	played := 0
	for _, scenario := range corpus.HealthScenarios {
		if notReady(scenario) {
			continue
		}
		played++
		t.Run(scenario.Name, func(t *testing.T) {
			count.judge(t, scenario.Name, deviations, playHealth(t, scenario))
		})
	}
	count.report(t, "healthScenarios on the tracker", played)
}

func playHealth(t *testing.T, scenario conformance.HealthScenario) (wrong []string) {
	t.Helper()
	if len(scenario.Problems) > 0 {
		return scenario.Problems
	}
	config := probe.DefaultConfig()
	tracker, err := probe.NewTracker(config)
	if err != nil {
		t.Fatal(err)
	}
	var hosts []string
	for _, step := range scenario.Sequence {
		if step.Node != "" && !slices.Contains(hosts, step.Node) {
			hosts = append(hosts, step.Node)
		}
	}
	now := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	tracker.SetHosts(hosts, now)
	for i, step := range scenario.Sequence {
		now = now.Add(config.Interval)
		switch {
		case step.Deleted:
			hosts = slices.DeleteFunc(hosts, func(name string) bool { return name == step.Node })
			tracker.SetHosts(hosts, now)
		case step.Probe != "":
			result, err := outcome(step.Probe)
			if err != nil {
				return append(wrong, fmt.Sprintf("scenario %s, step %d: %v", scenario.Name, i+1, err))
			}
			tracker.Observe(step.Node, probe.Observation{Outcome: result, Instance: 1}, now)
		}
		if step.Expect == "" {
			continue
		}
		got := "online"
		if tracker.View(now).Offline[step.Node] {
			got = "offline"
		}
		if got != step.Expect {
			wrong = append(wrong, fmt.Sprintf("after step %d, %s on %s: want %s, got %s", i+1, step.Probe, step.Node, step.Expect, got))
		}
	}
	return wrong
}

// testNotReady plays what a Node's condition Ready does to its HostSubnet.
func testNotReady(t *testing.T, c *cluster, corpus *conformance.Corpus, deviations map[string]string) {
	t.Helper()
	var count tally
	played := 0
	for _, scenario := range corpus.HealthScenarios {
		if !notReady(scenario) {
			continue
		}
		played++
		t.Run(scenario.Name, func(t *testing.T) {
			d := newDriver(t, c, "")
			ip, none := "192.168.7.10", []string{}
			wrong := scenario.Problems
			if len(wrong) > 0 {
				scenario.Sequence = nil
			}
			for i, step := range scenario.Sequence {
				ready := step.Ready == nil || *step.Ready
				var err error
				if i == 0 {
					err = d.createHost(t.Context(), conformance.Step{Name: step.Node, HostIP: &ip, EgressIPs: &none, EgressCIDRs: &none})
				}
				if err == nil {
					err = d.setReady(t.Context(), step.Node, ready)
				}
				if err != nil {
					t.Fatal(err)
				}
				if w := d.untilOnline(step.Node, step.Expect == "online"); w != "" {
					wrong = append(wrong, fmt.Sprintf("after step %d, ready %t: %s", i+1, ready, w))
				}
			}
			count.judge(t, onAPIServer(scenario.Name, deviations), deviations, wrong)
		})
	}
	count.report(t, "healthScenarios on an API server", played)
}

// untilOnline waits until the controller considers the host online, or not.
func (d *driver) untilOnline(name string, want bool) (wrong string) {
	d.eventually(d.t.Context(), "a judgement of "+name, func() (bool, error) {
		var h v1.HostSubnet
		if err := d.Get(d.t.Context(), types.NamespacedName{Name: name}, &h); err != nil {
			return false, err
		}
		online := condition(h.Status.Conditions, v1.ConditionOnline)
		wrong = fmt.Sprintf("want online %t, condition %v", want, online)
		if online != nil && (online.Status == metav1.ConditionTrue) == want {
			wrong = ""
		}
		return wrong == "", nil
	})
	return wrong
}
