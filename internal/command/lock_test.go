package command

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestLockInstallKeepsTheBackend: the unit runs with the backend that was asked for, by
// either name of the flag, and iptables is asked for only where it is needed.
func TestLockInstallKeepsTheBackend(t *testing.T) {
	t.Parallel()
	for flag, want := range map[string]struct{ runs, refused string }{
		"":                          {runs: " lock --cluster-cidrs=10.244.0.0/16\n"},
		"--backend=nftables":        {runs: " --backend=nftables "},
		"--iptables-backend=auto":   {runs: " --backend=auto\n"},
		"--backend=iptables-legacy": {refused: "no iptables"},
		"--iptables-backend=legacy": {refused: "no iptables"},
	} {
		t.Run(flag, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			if err := os.MkdirAll(filepath.Join(root, "etc/systemd/system"), 0o755); err != nil {
				t.Fatal(err)
			}
			args := []string{"lock", "install", "--cluster-cidrs", "10.244.0.0/16", "--root", root}
			if flag != "" {
				args = append(args, flag)
			}
			_, err := execute(t, args...)
			if want.refused != "" {
				if err == nil || !strings.Contains(err.Error(), want.refused) {
					t.Errorf("error %v, want %q", err, want.refused)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			unit, err := os.ReadFile(filepath.Join(root, "etc/systemd/system/egressip-lock.service"))
			if err != nil || !strings.Contains(string(unit), want.runs) {
				t.Errorf("%v; want %q in\n%s", err, want.runs, unit)
			}
		})
	}
}
