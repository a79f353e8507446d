package binaries

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// moduleDir is the module of the pinned tools, relative to the repository.
const moduleDir = "hack/tools"

// scratchPrefix begins the names of the directories in which builds work.
const scratchPrefix = ".build-"

// reportEvery is how often a build that goes on says so.
const reportEvery = 20 * time.Second

// Cluster returns the names of the programs that a cluster is made of.
func Cluster() []string {
	return []string{
		"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler",
		"kubelet", "kube-proxy", "kubectl", "helm",
	}
}

// APIServer returns the names of the programs that an API server alone needs.
func APIServer() []string { return []string{"etcd", "kube-apiserver", "kubectl"} }

// Lint returns the names of the generators and checkers of source code.
func Lint() []string { return []string{"controller-gen", "golangci-lint", "govulncheck"} }

// packageOf returns the main package of a program, or "".
func packageOf(name string) string {
	switch name {
	case "etcd":
		return "go.etcd.io/etcd/server/v3"
	case "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl":
		return "k8s.io/kubernetes/cmd/" + name
	case "helm":
		return "helm.sh/helm/v3/cmd/helm"
	case "controller-gen":
		return "sigs.k8s.io/controller-tools/cmd/controller-gen"
	case "golangci-lint":
		return "github.com/golangci/golangci-lint/v2/cmd/golangci-lint"
	case "govulncheck":
		return "golang.org/x/vuln/cmd/govulncheck"
	}
	return ""
}

// Dir returns the directory that holds the named programs, or those of Cluster if
// none is named, and builds the ones that are missing. It reports the progress of a
// slow build on standard error: from cold caches the cluster's programs take 8 to 20
// minutes on two cores.
func Dir(ctx context.Context, names ...string) (string, error) {
	if len(names) == 0 {
		names = Cluster()
	}
	return Build(ctx, Options{Names: names, Progress: os.Stderr})
}

// Options say what Build makes.
type Options struct {
	// Names of the programs, as Cluster, APIServer and Lint give them.
	Names []string
	// Progress takes a line for each program that is built, and one every 20
	// seconds while it is; nil discards them.
	Progress io.Writer
}

// Build builds what is missing of the named programs and returns the directory
// that holds them.
func Build(ctx context.Context, o Options) (string, error) {
	if o.Progress == nil {
		o.Progress = io.Discard
	}
	root, err := Repository()
	if err != nil {
		return "", err
	}
	b, err := newBuilder(root)
	if err != nil {
		return "", err
	}
	for _, name := range o.Names {
		if packageOf(name) == "" {
			return "", fmt.Errorf("build tools: %q is none of them", name)
		}
	}
	if len(b.missing(o.Names)) == 0 {
		return b.out, nil
	}
	if err := os.MkdirAll(b.out, 0o755); err != nil {
		return "", fmt.Errorf("build tools: %w", err)
	}
	unlock, err := lock(ctx, filepath.Join(b.out, ".lock"))
	if err != nil {
		return "", fmt.Errorf("build tools: %w", err)
	}
	defer unlock()
	// A killed build leaves its scratch directory behind. No one else builds now.
	leftovers, err := filepath.Glob(filepath.Join(b.out, scratchPrefix+"*"))
	if err != nil {
		return "", fmt.Errorf("build tools: %w", err)
	}
	for _, dir := range leftovers {
		if err := os.RemoveAll(dir); err != nil {
			return "", fmt.Errorf("build tools: %w", err)
		}
	}
	// The former holder of the lock may have built some of them.
	missing := b.missing(o.Names)
	for i, name := range missing {
		fmt.Fprintf(o.Progress, "tools: building %s (%d of %d)\n", name, i+1, len(missing))
		if err := b.build(ctx, name, o.Progress); err != nil {
			return "", fmt.Errorf("build tool %s: %w", name, err)
		}
	}
	return b.out, nil
}

// builder knows the place and the flags of a build.
type builder struct {
	module string // the directory of the tools' module
	out    string // the directory of the finished programs
	flags  []string
	env    []string // in addition to the process's own
}

func newBuilder(root string) (*builder, error) {
	b := &builder{
		module: filepath.Join(root, moduleDir),
		// VCS stamps would change with every commit, and the binaries with them.
		env: []string{"CGO_ENABLED=0", "GOFLAGS=-buildvcs=false", "GOWORK=off"},
	}
	mod, err := os.ReadFile(filepath.Join(b.module, "go.mod"))
	if err != nil {
		return nil, fmt.Errorf("read the pinned tools: %w", err)
	}
	sum, err := os.ReadFile(filepath.Join(b.module, "go.sum"))
	if err != nil {
		return nil, fmt.Errorf("read the pinned tools: %w", err)
	}
	version, err := kubernetesVersion(mod)
	if err != nil {
		return nil, err
	}
	major, minor, _ := strings.Cut(strings.TrimPrefix(version, "v"), ".")
	minor, _, _ = strings.Cut(minor, ".")
	// Without these, kubelet and API server report v0.0.0 and kubectl
	// complains of the skew.
	const in = "-X k8s.io/component-base/version."
	ld := "-s -w " + in + "gitVersion=" + version + " " + in + "gitMajor=" + major + " " + in + "gitMinor=" + minor +
		" " + in + "gitTreeState=clean -X k8s.io/client-go/pkg/version.gitVersion=" + version
	b.flags = []string{"-trimpath", "-ldflags", ld}

	h := sha256.New()
	for _, part := range [][]byte{mod, sum, []byte(strings.Join(b.flags, "\n")), []byte(runtime.Version() + runtime.GOARCH)} {
		fmt.Fprintf(h, "%d:", len(part))
		h.Write(part)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return nil, fmt.Errorf("find the cache directory: %w", err)
	}
	b.out = filepath.Join(cache, "egressip-operator", "tools-"+hex.EncodeToString(h.Sum(nil))[:16])
	return b, nil
}

// missing returns those of names that have yet to be built, in order.
func (b *builder) missing(names []string) []string {
	var absent []string
	for _, name := range names {
		if info, err := os.Stat(filepath.Join(b.out, name)); err != nil || !info.Mode().IsRegular() {
			absent = append(absent, name)
		}
	}
	return absent
}

// build makes one program and renames it into place.
func (b *builder) build(ctx context.Context, name string, progress io.Writer) error {
	scratch, err := os.MkdirTemp(b.out, scratchPrefix)
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	target := filepath.Join(scratch, name)
	args := append([]string{"build"}, b.flags...)
	cmd := exec.CommandContext(ctx, "go", append(args, "-o", target, packageOf(name))...)
	cmd.Dir = b.module
	cmd.Env = append(os.Environ(), b.env...)
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	tick := time.NewTicker(reportEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			fmt.Fprintf(progress, "tools: building %s, %s so far\n", name, time.Since(start).Round(time.Second))
			continue
		case err = <-done:
		}
		break
	}
	if err != nil {
		return fmt.Errorf("go build %s: %w\n%s", packageOf(name), err, output.String())
	}
	fmt.Fprintf(progress, "tools: %s built in %s\n", name, time.Since(start).Round(time.Second))
	return os.Rename(target, filepath.Join(b.out, name))
}

// kubernetesVersion finds the version of k8s.io/kubernetes in a go.mod.
func kubernetesVersion(mod []byte) (string, error) {
	lines := bufio.NewScanner(bytes.NewReader(mod))
	for lines.Scan() {
		f := strings.Fields(strings.TrimPrefix(strings.TrimSpace(lines.Text()), "require "))
		if len(f) >= 2 && f[0] == "k8s.io/kubernetes" && strings.HasPrefix(f[1], "v") {
			return f[1], nil
		}
	}
	return "", errors.New("read the pinned tools: go.mod requires no k8s.io/kubernetes")
}

// Repository returns the root of this repository: the closest directory above
// the working directory that has the tools' module. Tests run in the directory
// of their package, so that they find it too.
func Repository() (string, error) {
	wd, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find the repository: %w", err)
	}
	for dir := wd; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, moduleDir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("find the repository: no directory above %s holds %s/go.mod", wd, moduleDir)
		}
	}
}

// lock takes an exclusive lock on a file, which it creates, and returns what
// gives it back. The kernel gives it back too when the process ends.
func lock(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return nil, err
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, ctx.Err())
		case <-tick.C:
		}
	}
}
