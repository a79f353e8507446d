package binaries

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Every name that a group gives has a package, and that package is a tool of
// the pinned module: otherwise its version would not be pinned.
func TestEveryToolIsPinned(t *testing.T) {
	root, err := Repository()
	if err != nil {
		t.Fatal(err)
	}
	mod, err := os.ReadFile(filepath.Join(root, moduleDir, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	names := append(append(Cluster(), APIServer()...), Lint()...)
	for _, name := range names {
		if p := packageOf(name); p == "" || !strings.Contains(string(mod), "\t"+p+"\n") {
			t.Errorf("%s: package %q is no tool of %s/go.mod", name, p, moduleDir)
		}
	}
}

func TestVersionComesFromTheModule(t *testing.T) {
	for _, c := range []struct{ mod, want string }{
		{"require (\n\tk8s.io/kubernetes v1.37.2 // indirect\n)\n", "v1.37.2"},
		{"require k8s.io/kubernetes v1.2.3\n", "v1.2.3"},
		{"tool k8s.io/kubernetes/cmd/kubectl\n", ""},
	} {
		got, err := kubernetesVersion([]byte(c.mod))
		if got != c.want || (err != nil) != (c.want == "") {
			t.Errorf("kubernetesVersion(%q) = %q, %v; want %q", c.mod, got, err, c.want)
		}
	}
}

// A second process must wait, and not build into the same directory.
func TestLockExcludesAndEndsWithItsContext(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	unlock, err := lock(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := lock(ctx, path); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("second lock: got %v, want the deadline", err)
	}
	unlock()
	again, err := lock(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	again()
}

func TestUnknownToolIsRefused(t *testing.T) {
	if _, err := Build(t.Context(), Options{Names: []string{"kube-everything"}}); err == nil || !strings.Contains(err.Error(), "kube-everything") {
		t.Fatalf("got %v", err)
	}
}

// What Build returns holds working programs, and a second call builds nothing.
func TestBuildOnceThenReuse(t *testing.T) {
	dir, err := Build(t.Context(), Options{Names: []string{"kubectl"}, Progress: os.Stderr})
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(filepath.Join(dir, "kubectl"), "version", "--client").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "Client Version: v1.") {
		t.Fatalf("kubectl version: %v\n%s", err, out)
	}
	var progress strings.Builder
	again, err := Build(t.Context(), Options{Names: []string{"kubectl"}, Progress: &progress})
	if err != nil || again != dir || progress.Len() != 0 {
		t.Fatalf("second Build: %q, %v, said %q", again, err, progress.String())
	}
}
