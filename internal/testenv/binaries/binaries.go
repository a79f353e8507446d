package binaries

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

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

// CNI returns the names of the daemons of CNI plugins. Each is of a module of its own.
func CNI() []string { return []string{"flannel", "kube-router"} }

// Lint returns the names of the generators and checkers of source code.
func Lint() []string { return []string{"controller-gen", "golangci-lint", "govulncheck"} }

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
	// Names of the programs, as Cluster, APIServer, Lint and CNI give them, all of one
	// module.
	Names []string
	// Module is the directory of the module that pins them, relative to the repository,
	// if it is not the usual one.
	Module string
	// Progress takes a line when a build begins, one every 20 seconds while it goes on, and
	// one when it is done; nil discards them.
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
	module, err := moduleOf(o.Names)
	if err != nil {
		return "", fmt.Errorf("build tools: %w", err)
	}
	b, err := newBuilder(root, cmp.Or(o.Module, module))
	if err != nil {
		return "", err
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
	if missing := b.missing(o.Names); len(missing) > 0 {
		if err := b.build(ctx, missing, o.Progress); err != nil {
			return "", fmt.Errorf("build tools: %w", err)
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

func newBuilder(root, module string) (*builder, error) {
	b := &builder{
		module: filepath.Join(root, module),
		// VCS stamps would change with every commit, and the binaries with them.
		env: []string{"CGO_ENABLED=0", "GOFLAGS=-buildvcs=false", "GOWORK=off"},
	}
	if module == flannelDir {
		// Its backend "udp", which nothing here uses, is in C.
		b.env[0] = "CGO_ENABLED=1"
	}
	mod, err := os.ReadFile(filepath.Join(b.module, "go.mod"))
	if err != nil {
		return nil, fmt.Errorf("read the pinned tools: %w", err)
	}
	sum, err := os.ReadFile(filepath.Join(b.module, "go.sum"))
	if err != nil {
		return nil, fmt.Errorf("read the pinned tools: %w", err)
	}
	b.flags = []string{"-trimpath", "-ldflags", "-s -w" + kubernetesFlags(mod)}

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

// kubernetesFlags are the linker's flags that give Kubernetes its version, if a go.mod
// requires it: without them, kubelet and API server report v0.0.0 and kubectl complains of
// the skew.
func kubernetesFlags(mod []byte) string {
	version, err := versionIn(mod, "k8s.io/kubernetes")
	if err != nil {
		return ""
	}
	major, minor, _ := strings.Cut(strings.TrimPrefix(version, "v"), ".")
	minor, _, _ = strings.Cut(minor, ".")
	const in = " -X k8s.io/component-base/version."
	return in + "gitVersion=" + version + in + "gitMajor=" + major + in + "gitMinor=" + minor +
		in + "gitTreeState=clean -X k8s.io/client-go/pkg/version.gitVersion=" + version
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

// build makes programs and renames them into place. The go command gets all of them at once:
// it compiles one while it links another, which takes one processor only.
func (b *builder) build(ctx context.Context, names []string, progress io.Writer) error {
	scratch, err := os.MkdirTemp(b.out, scratchPrefix)
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	args := append(append([]string{"build"}, b.flags...), "-o", scratch+string(filepath.Separator))
	for _, name := range names {
		args = append(args, toolPackage(name))
	}
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = b.module
	cmd.Env = append(os.Environ(), b.env...)
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	what := strings.Join(names, ", ")
	fmt.Fprintf(progress, "tools: building %s\n", what)
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
			fmt.Fprintf(progress, "tools: %s so far\n", time.Since(start).Round(time.Second))
			continue
		case err = <-done:
		}
		break
	}
	if err != nil {
		return fmt.Errorf("go build %s: %w\n%s", what, err, output.String())
	}
	fmt.Fprintf(progress, "tools: built in %s\n", time.Since(start).Round(time.Second))
	for _, name := range names {
		if err := os.Rename(filepath.Join(scratch, executable(toolPackage(name))), filepath.Join(b.out, name)); err != nil {
			return err
		}
	}
	return nil
}

// toolPackage is the main package of a program that is there.
func toolPackage(name string) string {
	t, _ := toolOf(name)
	return t.pkg
}

// executable is the name that the go command gives the program of a package: the last
// part of its path that is no major version.
func executable(pkg string) string {
	base := path.Base(pkg)
	if number, ok := strings.CutPrefix(base, "v"); ok {
		if _, err := strconv.Atoi(number); err == nil {
			return path.Base(path.Dir(pkg))
		}
	}
	return base
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
