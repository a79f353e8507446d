package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// testHistory: the plugin reads from the controllers, by kubelets that forward their ports, who has the
// egress IP.
func (b *bed) testHistory(t *testing.T) {
	b.givenEgressIP(t)
	b.eventually(t, func() error {
		cmd := exec.CommandContext(t.Context(), filepath.Join(b.root, "build", "kubectl-egressip"), "history", b.egressIP)
		cmd.Env = append(os.Environ(), "KUBECONFIG="+b.Kubeconfig())
		out, err := cmd.CombinedOutput()
		said := strings.Join(strings.Fields(string(out)), " ")
		if err == nil && (!strings.Contains(said, " now "+b.egressIP+" "+egressNamespace+" ") || !strings.Contains(said, " "+b.host)) {
			err = fmt.Errorf("it does not say that %s on %s has %s", egressNamespace, b.host, b.egressIP)
		}
		if err != nil {
			return fmt.Errorf("kubectl egressip history: %w:\n%s", err, out)
		}
		return nil
	})
}
