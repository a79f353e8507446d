package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/test/testbed"
)

// Pods that testNewPods makes on each node, all of them at once.
const newPodsEach = 4

// testNewPods: a pod's first process sends to the world from its first moment
// on, over TCP and UDP. From the first packet on, none leaves with another
// address than the egress IP, and the pod is answered. With strict=false and
// agent.criSocket=none it fails.
func (b *bed) testNewPods(t *testing.T) {
	b.givenEgressIP(t)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), testenv.Stretch(settle))
		defer cancel()
		if _, err := b.Kubectl(ctx, "-n", egressNamespace, "delete", "pods", "-l", "app=new", "--wait", "--ignore-not-found"); err != nil {
			t.Error(err)
		}
	})
	verify := b.watchBastion(t, b.egressIP)
	names := b.newPods(t)
	// One kubectl that waits: polling would take processor time that the pods need.
	if out, err := b.Kubectl(t.Context(), "-n", egressNamespace, "wait", "pods", "-l", "app=new",
		"--for=jsonpath={.status.phase}=Succeeded", "--timeout="+(2*settle).String()); err != nil || strings.Count(out, "condition met") != len(names) {
		t.Fatalf("of %d new pods: %v\n%s", len(names), err, out)
	}
	verify()
	for _, name := range names {
		for _, container := range []string{"tcp", "udp"} {
			b.answered(t, name, container)
		}
	}
}

// newPods makes pods that ask the bastion every 20 ms for five seconds, and
// returns their names.
func (b *bed) newPods(t *testing.T) (names []string) {
	t.Helper()
	var manifest strings.Builder
	for _, node := range b.Nodes() {
		for i := range newPodsEach {
			name := fmt.Sprintf("new-%s-%d", node, i)
			names = append(names, name)
			fmt.Fprintf(&manifest, `---
apiVersion: v1
kind: Pod
metadata: {name: %s, namespace: %s, labels: {app: new}}
spec:
  nodeName: %s
  restartPolicy: Never
  terminationGracePeriodSeconds: 0
  containers:
`, name, egressNamespace, node)
			for network, server := range map[string]string{"tcp": b.echo(), "udp": b.server()} {
				fmt.Fprintf(&manifest, `  - name: %[1]s
    image: %[2]s
    imagePullPolicy: Never
    args: [watch, -every, 20ms, -for, 5s, -timeout, 2s, "%[1]s://%[3]s"]
`, network, testbed.TrafficImage, server)
			}
		}
	}
	if _, err := b.Apply(t.Context(), manifest.String()); err != nil {
		t.Fatal(err)
	}
	return names
}

// answered fails the test unless the bastion answered the container, and saw
// the egress IP each time. It reports how long the first answer took,
// which depends on how busy the machine is.
func (b *bed) answered(t *testing.T, pod, container string) {
	t.Helper()
	out, err := b.Kubectl(t.Context(), "-n", egressNamespace, "logs", pod, "-c", container)
	if err != nil {
		t.Fatal(err)
	}
	var began, first time.Time
	answers, failed := 0, make(map[string]int) // by error
	port := regexp.MustCompile(`:[0-9]+`)      // differs from one connection to the next
	for line := range strings.Lines(out) {
		var result struct {
			At    time.Time `json:"at"`
			Ms    float64   `json:"ms"`
			Saw   string    `json:"saw"`
			Error string    `json:"error"`
		}
		if err := json.Unmarshal([]byte(line), &result); err != nil {
			t.Fatalf("%s, %s: %q: %v", pod, container, line, err)
		}
		if began.IsZero() || result.At.Before(began) {
			began = result.At
		}
		if result.Error != "" {
			failed[port.ReplaceAllString(result.Error, "")]++
			continue
		}
		answers++
		if !b.isEgressIP(result.Saw) {
			t.Errorf("%s, %s: seen as %s", pod, container, result.Saw)
		}
		if end := result.At.Add(time.Duration(result.Ms * float64(time.Millisecond))); first.IsZero() || end.Before(first) {
			first = end
		}
	}
	if answers == 0 {
		t.Errorf("%s, %s: no answer in five seconds; errors: %v", pod, container, failed)
		return
	}
	t.Logf("%s, %s: %d answers, the first after %v; errors: %v", pod, container, answers, first.Sub(began).Round(time.Millisecond), failed)
}
