package install_test

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// rollout is how a Deployment replaces its pods where each needs a node of its own.
type rollout struct{ replicas, nodes, surge, unavailable int }

// ends reports whether all pods that a node has room for are new ones in the end. It makes
// the moves of the Deployment controller: it deletes former pods that do not run, adds new
// ones up to the surge, and deletes one that runs where enough others run.
func (r rollout) ends() bool {
	former, running, replaced := r.replicas, min(r.replicas, r.nodes), 0
	for {
		ready := min(replaced, r.nodes-running)
		switch {
		case former > running && ready+running >= r.replicas-r.unavailable:
			former-- // it waits for a node
		case replaced < r.replicas && former+replaced < r.replicas+r.surge:
			replaced++
		case running > 0 && ready+running-1 >= r.replicas-r.unavailable:
			former, running = former-1, running-1
		default:
			return running == 0
		}
	}
}

// TestSingleNodeRollsOut: on one node, with the one controller that the README asks for
// there, an upgrade ends: of the controller, the former pod goes before the new one needs
// its ports; of the agent, likewise. Nothing keeps the two apart, and their ports differ.
// With the defaults, an upgrade of two controllers does not wait for a third node.
func TestSingleNodeRollsOut(t *testing.T) {
	for _, c := range []struct {
		of   rollout
		ends bool
	}{
		{rollout{replicas: 1, nodes: 1, surge: 1, unavailable: 0}, false}, // waits for the port
		{rollout{replicas: 2, nodes: 1, surge: 0, unavailable: 1}, false}, // why the README asks for one
		{rollout{replicas: 2, nodes: 3, surge: 1, unavailable: 0}, true},
		{rollout{replicas: 2, nodes: 2, surge: 1, unavailable: 0}, false},
	} {
		if got := c.of.ends(); got != c.ends {
			t.Errorf("%+v ends: %t", c.of, got)
		}
	}
	for nodes, set := range map[int][]string{1: {"controller.replicas=1"}, 2: nil} {
		all, err := render(t, set...)
		if err != nil {
			t.Fatal(err)
		}
		deployment, agents := all["Deployment egressip-controller"], all["DaemonSet egressip-agent"]
		replicas, _, err := unstructured.NestedInt64(deployment, "spec", "replicas")
		if err != nil {
			t.Fatal(err)
		}
		r := rollout{
			replicas: int(replicas), nodes: nodes,
			surge:       atOnce(t, deployment, int(replicas), true, "spec", "strategy", "rollingUpdate", "maxSurge"),
			unavailable: atOnce(t, deployment, int(replicas), false, "spec", "strategy", "rollingUpdate", "maxUnavailable"),
		}
		if !r.ends() {
			t.Errorf("an upgrade on %d nodes does not end: %+v", nodes, r)
		}
		if surge := atOnce(t, agents, nodes, true, "spec", "updateStrategy", "rollingUpdate", "maxSurge"); surge != 0 {
			t.Errorf("%d agents more than nodes have room for", surge)
		}
		if at := atOnce(t, agents, nodes, true, "spec", "updateStrategy", "rollingUpdate", "maxUnavailable"); at < 1 {
			t.Errorf("%d agents are replaced at a time", at)
		}
		_, budget := all["PodDisruptionBudget egressip-controller"]
		if budget != (replicas > 1) {
			t.Errorf("%d controllers have a PodDisruptionBudget: %t", replicas, budget)
		}
		used := make(map[string]bool)
		for _, workload := range []map[string]any{deployment, agents} {
			sharesNodes(t, workload)
			for _, arg := range args(t, workload) {
				flag, value, _ := strings.Cut(arg, "=")
				if !strings.HasSuffix(flag, "-bind-address") {
					continue
				}
				port := value[strings.LastIndex(value, ":")+1:]
				if used[port] {
					t.Errorf("port %s is used twice on a node", port)
				}
				used[port] = true
			}
		}
		if len(used) != 4 {
			t.Errorf("ports %v, want those of metrics and health of both", used)
		}
	}
}

// sharesNodes fails if a pod must not share a node with others.
func sharesNodes(t *testing.T, workload map[string]any) {
	t.Helper()
	for _, kind := range []string{"podAntiAffinity", "podAffinity"} {
		if rules, found, _ := unstructured.NestedMap(workload, "spec", "template", "spec", "affinity", kind); found {
			t.Errorf("pods depend on where others run: %s %v", kind, rules)
		}
	}
	spread, _, err := unstructured.NestedSlice(workload, "spec", "template", "spec", "topologySpreadConstraints")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range spread {
		if c, ok := c.(map[string]any); !ok || c["whenUnsatisfiable"] != "ScheduleAnyway" {
			t.Errorf("pods wait for another node: %v", c)
		}
	}
}

// atOnce reads a number or a share of pods, as Kubernetes rounds it; 0 if there is none.
func atOnce(t *testing.T, workload map[string]any, of int, up bool, path ...string) int {
	t.Helper()
	value, found, err := unstructured.NestedFieldNoCopy(workload, path...)
	if err != nil || !found {
		return 0
	}
	var parsed intstr.IntOrString
	switch value := value.(type) {
	case int64:
		parsed = intstr.FromInt(int(value))
	case string:
		parsed = intstr.FromString(value)
	default:
		t.Fatalf("%v is %v", path, value)
	}
	number, err := intstr.GetScaledValueFromIntOrPercent(&parsed, of, up)
	if err != nil {
		t.Fatal(err)
	}
	return number
}
