package binaries

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// Every name that a group gives has a package, and that package is a tool of
// its module, which has its version: otherwise its version would not be pinned.
func TestEveryToolIsPinned(t *testing.T) {
	root, err := Repository()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range slices.Concat(Cluster(), APIServer(), Lint(), CNI()) {
		tool, ok := toolOf(name)
		if !ok {
			t.Errorf("%s is no tool", name)
			continue
		}
		mod, err := os.ReadFile(filepath.Join(root, tool.dir, "go.mod"))
		if err != nil {
			t.Error(err)
		}
		if !strings.Contains(string(mod), "\t"+tool.pkg+"\n") && !strings.Contains(string(mod), "tool "+tool.pkg+"\n") {
			t.Errorf("%s: package %q is no tool of %s/go.mod", name, tool.pkg, tool.dir)
		}
		if version, err := Version(name); err != nil {
			t.Errorf("%s: version %q, %v", name, version, err)
		}
	}
}

func TestVersionComesFromTheModule(t *testing.T) {
	for _, c := range []struct{ mod, want string }{
		{"require (\n\tk8s.io/kubernetes v1.37.2 // indirect\n)\n", "v1.37.2"},
		{"require k8s.io/kubernetes v1.2.3\n", "v1.2.3"},
		{"tool k8s.io/kubernetes/cmd/kubectl\n", ""},
	} {
		got, err := versionIn([]byte(c.mod), "k8s.io/kubernetes")
		if got != c.want || (err != nil) != (c.want == "") {
			t.Errorf("versionIn(%q) = %q, %v; want %q", c.mod, got, err, c.want)
		}
	}
}

// The module and that of the tools use the same versions of what both require. Then packages
// are compiled once for both, and what is tested is what Kubernetes itself is built from.
func TestModulesAgree(t *testing.T) {
	root, err := Repository()
	if err != nil {
		t.Fatal(err)
	}
	var mods [2][]byte
	for i, dir := range []string{".", moduleDir} {
		if mods[i], err = os.ReadFile(filepath.Join(root, dir, "go.mod")); err != nil {
			t.Fatal(err)
		}
	}
	common := 0
	for line := range strings.Lines(string(mods[0])) {
		f := strings.Fields(line)
		if len(f) < 2 || !strings.HasPrefix(f[1], "v") {
			continue
		}
		other, err := versionIn(mods[1], f[0])
		if err != nil {
			continue // the tools do without it
		}
		common++
		if other != f[1] {
			t.Errorf("%s is %s in go.mod and %s in %s/go.mod: go get %[1]s@<the later one>, and go mod tidy, in both", f[0], f[1], other, moduleDir)
		}
	}
	if common == 0 {
		t.Error("no module is required by both")
	}
}

// Programs of two modules lie in two directories: one cannot be returned for both.
func TestToolsOfOneModule(t *testing.T) {
	if _, err := moduleOf([]string{"kubectl", "flannel"}); err == nil {
		t.Error("kubectl and flannel are of one module")
	}
	if m, err := moduleOf([]string{"kubectl", "helm"}); err != nil || m != moduleDir {
		t.Errorf("kubectl and helm: %q, %v", m, err)
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

// The go command names the programs of one call itself.
func TestNamesOfExecutables(t *testing.T) {
	for name, want := range map[string]string{"etcd": "server", "helm": "helm", "kube-apiserver": "kube-apiserver", "golangci-lint": "golangci-lint", "flannel": "flannel"} {
		if got := executable(toolPackage(name)); got != want {
			t.Errorf("%s is made as %q, want %q", name, got, want)
		}
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
