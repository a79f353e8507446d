package conformance_test

import (
	"flag"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/egressip-operator/egressip-operator/test/conformance"
)

// tally counts what became of the scenarios of one section.
type tally struct{ same, deviating, failed atomic.Int64 }

func load(t *testing.T) (*conformance.Corpus, map[string]string) {
	t.Helper()
	corpus, err := conformance.Load(conformance.Path())
	if err != nil {
		t.Fatal(err)
	}
	document, err := os.ReadFile("../../docs/compatibility.md")
	if err != nil {
		t.Fatal(err)
	}
	return corpus, conformance.Deviations(string(document))
}

// judge fails the test unless all is well, or the scenario is a deviation. A
// listed deviation that is none any more fails too: the document would be wrong.
func (c *tally) judge(t *testing.T, name string, deviations map[string]string, wrong []string) {
	t.Helper()
	reason, deviates := deviations[name]
	switch {
	case deviates && len(wrong) > 0:
		c.deviating.Add(1)
		t.Logf("deviates on purpose: %s\n%s", reason, strings.Join(wrong, "\n"))
	case deviates:
		c.failed.Add(1)
		t.Errorf("listed as a deviation, but the answer is that of the corpus: remove it from docs/compatibility.md")
	case len(wrong) > 0:
		c.failed.Add(1)
		t.Error(strings.Join(wrong, "\n"))
	default:
		c.same.Add(1)
	}
}

// logNotHere reports what the player passed over.
func logNotHere(t *testing.T, out conformance.Outcome) {
	t.Helper()
	for _, sentence := range out.NotHere {
		t.Log(sentence)
	}
}

// onAPIServer is the name of a scenario in the list of deviations: one may
// differ there alone.
func onAPIServer(name string, deviations map[string]string) string {
	if _, ok := deviations["api/"+name]; ok {
		return "api/" + name
	}
	return name
}

func (c *tally) report(t *testing.T, section string, total int) {
	t.Helper()
	t.Logf("CONFORMANCE %s: %d in all, %d as the corpus says, %d otherwise on purpose, %d failed",
		section, total, c.same.Load(), c.deviating.Load(), c.failed.Load())
	// With -run, some are left out on purpose.
	all := flag.Lookup("test.run").Value.String() == ""
	if sum := c.same.Load() + c.deviating.Load() + c.failed.Load(); all && sum != int64(total) {
		t.Errorf("%s: %d scenarios, but %d were played", section, total, sum)
	}
}

func TestBrain(t *testing.T) {
	corpus, deviations := load(t)
	var count tally
	for _, scenario := range corpus.Scenarios {
		t.Run(scenario.Name, func(t *testing.T) {
			out := conformance.Play(t.Context(), conformance.NewBrain(scenario.Profile), scenario)
			logNotHere(t, out)
			count.judge(t, scenario.Name, deviations, out.Wrong)
		})
	}
	count.report(t, "scenarios on the brain", len(corpus.Scenarios))
}

// TestBrainInIPv6: each scenario has the same outcome where hosts and egress IPs have
// addresses of IPv6.
func TestBrainInIPv6(t *testing.T) {
	corpus, deviations := load(t)
	var count tally
	for _, scenario := range corpus.Scenarios {
		t.Run(scenario.Name, func(t *testing.T) {
			out := conformance.Play(t.Context(), conformance.InIPv6{Driver: conformance.NewBrain(scenario.Profile)}, scenario)
			logNotHere(t, out)
			count.judge(t, scenario.Name, deviations, out.Wrong)
		})
	}
	count.report(t, "scenarios on the brain, in IPv6", len(corpus.Scenarios))
}

func TestAgentOnTheBrain(t *testing.T) {
	corpus, deviations := load(t)
	var count tally
	var partly int
	for _, scenario := range corpus.AgentScenarios {
		t.Run(scenario.Name, func(t *testing.T) {
			out := conformance.PlayAgent(t.Context(), scenario)
			if len(out.NotHere) > 0 {
				partly++
			}
			logNotHere(t, out)
			count.judge(t, scenario.Name, deviations, out.Wrong)
		})
	}
	count.report(t, "agentScenarios on the brain", len(corpus.AgentScenarios))
	t.Logf("CONFORMANCE agentScenarios: of %d the brain shows a part only", partly)
}

// A deviation of something that the corpus does not have is a slip, and would
// stay in the document for ever.
func TestDeviationsAreOfTheCorpus(t *testing.T) {
	corpus, deviations := load(t)
	known := make(map[string]bool)
	for _, section := range [][]conformance.Scenario{corpus.Scenarios, corpus.AgentScenarios, corpus.LifecycleScenarios} {
		for _, s := range section {
			known[s.Name], known["api/"+s.Name], known["kernel/"+s.Name] = true, true, true
		}
	}
	for _, s := range corpus.HealthScenarios {
		known[s.Name], known["api/"+s.Name] = true, true
	}
	for _, c := range corpus.TrafficCases {
		known[c.Name] = true
	}
	for _, v := range corpus.Vectors.Validation {
		name := v.Field + "=" + word(v.Value)
		known["brain/"+name], known["schema/"+name] = true, true
	}
	for _, v := range corpus.Vectors.AddressLabel {
		known["kernel/label="+v.Interface] = true
	}
	for i, v := range corpus.Vectors.Objects {
		known[objectName(i, v.From)] = true
	}
	for name, reason := range deviations {
		if !known[name] && conformance.Path() == conformance.OwnCorpus {
			t.Errorf("docs/compatibility.md lists %q, which is not in the corpus", name)
		}
		if len(reason) < 20 {
			t.Errorf("docs/compatibility.md gives no reason for %q", name)
		}
	}
}
