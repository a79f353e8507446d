package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/egressip-operator/egressip-operator/pkg/live"
	"github.com/egressip-operator/egressip-operator/test/testbed"
)

// testLive: while pods leave with the egress IP, the kernels of all hosts that they pass are as
// meant, by the plugin and through the API server; a policy rule of others at a pod's host is named,
// and the program says so by its exit code.
func (b *bed) testLive(t *testing.T) {
	b.givenEgressIP(t)
	for _, p := range b.egress {
		b.eventually(t, func() error {
			differ, code, err := b.explainLive(t.Context(), p)
			if err == nil && (code != 0 || len(differ) > 0) {
				err = fmt.Errorf("%s on %s: exit code %d, differs in %+v", p.Name, p.Node, code, differ)
			}
			return err
		})
	}
	p := b.egress[0]
	rule := []string{"priority", "60", "from", p.IP.String(), "table", "main"}
	family := "-4"
	if p.IP.Is6() {
		family = "-6"
	}
	if _, err := b.NodeExec(t.Context(), p.Node, append([]string{"ip", family, "rule", "add"}, rule...)...); err != nil {
		t.Fatal(err)
	}
	differ, code, err := b.explainLive(t.Context(), p)
	if _, err := b.NodeExec(context.WithoutCancel(t.Context()), p.Node, append([]string{"ip", family, "rule", "del"}, rule...)...); err != nil {
		t.Fatal(err)
	}
	// Of the egress host's own pods, a rule of others that leads to the main table changes nothing.
	if remote := p.Node != b.host; err != nil || remote && (code != 3 || len(differ) != 1 || differ[0].Verdict != live.Foreign || differ[0].Host != p.Node) {
		t.Errorf("beside a rule of others on %s, exit code %d, %+v, %v", p.Node, code, differ, err)
	}
}

// explainLive runs the plugin for a pod, and returns what differs, and the exit code.
func (b *bed) explainLive(ctx context.Context, p testbed.Pod) (differ []live.Check, code int, err error) {
	cmd := exec.CommandContext(ctx, filepath.Join(b.root, "build", "kubectl-egressip"), "explain", "pod/"+p.Name, "-n", p.Namespace, "--live", "-o", "json")
	cmd.Env = append(os.Environ(), "KUBECONFIG="+b.Kubeconfig())
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if exit := (&exec.ExitError{}); errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		return nil, 0, err
	}
	var explained struct {
		Routes []struct {
			Live []live.Check `json:"live"`
		} `json:"routes"`
	}
	if err := json.Unmarshal(out, &explained); err != nil {
		return nil, code, fmt.Errorf("the plugin says %s: %w", said.String(), err)
	}
	checks := 0
	for _, r := range explained.Routes {
		checks += len(r.Live)
		differ = append(differ, live.Differ(r.Live)...)
	}
	if checks == 0 {
		return nil, code, errors.New("the plugin has looked at nothing")
	}
	return differ, code, nil
}
