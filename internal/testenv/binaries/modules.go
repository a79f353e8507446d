package binaries

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// The modules of the pinned tools, relative to the repository. Programs of CNI plugins have
// modules of their own: their requirements do not go together with those of Kubernetes, and
// few people need them.
const (
	moduleDir     = "hack/tools"
	flannelDir    = "hack/cni/flannel"
	kubeRouterDir = "hack/cni/kube-router"
)

// OldestDir is the module of the oldest API server that is supported.
const OldestDir = "hack/kubernetes-1.31"

// tool is a program.
type tool struct {
	// dir is the directory of the module that pins it.
	dir string
	// pkg is its main package, path the module that has it.
	pkg, path string
}

// toolOf returns a program by its name, and whether there is one.
func toolOf(name string) (tool, bool) {
	t, ok := map[string]tool{
		"etcd":           {moduleDir, "go.etcd.io/etcd/server/v3", "go.etcd.io/etcd/server/v3"},
		"helm":           {moduleDir, "helm.sh/helm/v3/cmd/helm", "helm.sh/helm/v3"},
		"controller-gen": {moduleDir, "sigs.k8s.io/controller-tools/cmd/controller-gen", "sigs.k8s.io/controller-tools"},
		"golangci-lint":  {moduleDir, "github.com/golangci/golangci-lint/v2/cmd/golangci-lint", "github.com/golangci/golangci-lint/v2"},
		"govulncheck":    {moduleDir, "golang.org/x/vuln/cmd/govulncheck", "golang.org/x/vuln"},
		"flannel":        {flannelDir, "github.com/flannel-io/flannel", "github.com/flannel-io/flannel"},
		"kube-router":    {kubeRouterDir, "github.com/cloudnativelabs/kube-router/v2/cmd/kube-router", "github.com/cloudnativelabs/kube-router/v2"},
	}[name]
	if !ok && slices.Contains([]string{"kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl"}, name) {
		return tool{moduleDir, "k8s.io/kubernetes/cmd/" + name, "k8s.io/kubernetes"}, true
	}
	return t, ok
}

// moduleOf returns the directory of the one module that has several programs.
func moduleOf(names []string) (string, error) {
	common := ""
	for _, name := range names {
		t, ok := toolOf(name)
		if !ok {
			return "", fmt.Errorf("%q is none of them", name)
		}
		if common != "" && t.dir != common {
			return "", fmt.Errorf("%s and %s are not of the same module", names[0], name)
		}
		common = t.dir
	}
	return common, nil
}

// Version returns the version that is pinned of the module that has a program.
func Version(name string) (string, error) {
	t, ok := toolOf(name)
	if !ok {
		return "", fmt.Errorf("version of %q: there is no such tool", name)
	}
	root, err := Repository()
	if err != nil {
		return "", err
	}
	mod, err := os.ReadFile(filepath.Join(root, t.dir, "go.mod"))
	if err != nil {
		return "", fmt.Errorf("version of %s: %w", name, err)
	}
	return versionIn(mod, t.path)
}

// versionIn finds the version of a module in a go.mod.
func versionIn(mod []byte, path string) (string, error) {
	lines := bufio.NewScanner(bytes.NewReader(mod))
	for lines.Scan() {
		f := strings.Fields(strings.TrimPrefix(strings.TrimSpace(lines.Text()), "require "))
		if len(f) >= 2 && f[0] == path && strings.HasPrefix(f[1], "v") {
			return f[1], nil
		}
	}
	return "", fmt.Errorf("read the pinned tools: go.mod requires no %s", path)
}
