package testbed

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/hack/dockerarchive"
	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/internal/testenv/binaries"
	"github.com/egressip-operator/egressip-operator/test/testbed/internal/node"
)

// ErrExists is the error of Up where a test bed of that prefix is in use.
var ErrExists = errors.New("a test bed of this prefix is up")

// Cluster is a test bed that is up.
type Cluster struct {
	options Options
	dir     string // all of its files
	tools   string // the directory of the pinned tools
	cniTool string // the CNI's program, if it has one
	begin   time.Time
}

// state is what is known of a test bed to other processes.
type state struct {
	Options Options
	// Owner is the process that made it, and must outlive it unless
	// Options.Detached.
	Owner process
	// Ready is true once Up has returned.
	Ready bool
}

func (c *Cluster) binDir() string        { return filepath.Join(c.dir, "bin") }
func (c *Cluster) pkiDir() string        { return filepath.Join(c.dir, "pki") }
func (c *Cluster) accessLogPath() string { return filepath.Join(c.dir, "access.log") }
func (c *Cluster) trafficImage() string  { return filepath.Join(c.dir, "traffic.tar") }

// Kubeconfig returns the path of the administrator's kubeconfig; it works from
// the machine's own network namespace.
func (c *Cluster) Kubeconfig() string { return filepath.Join(c.pkiDir(), "admin.conf") }

// ToolsDir returns the directory of the pinned tools.
func (c *Cluster) ToolsDir() string { return c.tools }

// Dir returns the directory of the test bed's files; logs/ holds what its
// daemons say, nodes/NAME/ what those of a node say.
func (c *Cluster) Dir() string { return c.dir }

func newCluster(o Options) (*Cluster, error) {
	base, err := Base()
	if err != nil {
		return nil, err
	}
	return &Cluster{options: o, dir: filepath.Join(base, o.Prefix), begin: time.Now()}, nil
}

// say writes a line of progress.
func (c *Cluster) say(format string, args ...any) {
	fmt.Fprintf(c.options.Progress, "testbed %s %6.1fs: %s\n", c.options.Prefix, time.Since(c.begin).Seconds(), fmt.Sprintf(format, args...))
}

// Up makes a test bed, and returns when its nodes are Ready and pods can be
// scheduled. Leftovers of a former one, whose process has ended, are removed
// first; ErrExists if it is in use. What Up made is removed again if it fails.
func Up(ctx context.Context, options Options) (_ *Cluster, err error) {
	options, err = options.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("test bed: %w", err)
	}
	if err := CheckPrerequisites(ctx, options); err != nil {
		return nil, err
	}
	c, err := newCluster(options)
	if err != nil {
		return nil, fmt.Errorf("test bed: %w", err)
	}
	if c.tools, err = binaries.Build(ctx, binaries.Options{Names: binaries.Cluster(), Progress: options.Progress}); err != nil {
		return nil, fmt.Errorf("test bed: %w", err)
	}
	if err := c.findCNI(ctx); err != nil {
		return nil, fmt.Errorf("test bed: %w", err)
	}
	unlock, err := c.lock()
	if err != nil {
		return nil, fmt.Errorf("test bed: %w", err)
	}
	defer unlock()
	if err := c.takeOver(ctx); err != nil {
		return nil, fmt.Errorf("test bed: %w", err)
	}
	defer func() {
		if err == nil {
			return
		}
		// A cancelled context must not keep it from cleaning up.
		cleanup, cancel := context.WithTimeout(context.WithoutCancel(ctx), testenv.Stretch(time.Minute))
		defer cancel()
		c.keepLogs()
		err = fmt.Errorf("test bed: %w", errors.Join(err, c.remove(cleanup)))
	}()
	return c, c.up(ctx)
}

// up makes everything, in a directory that is there and empty.
func (c *Cluster) up(ctx context.Context) error {
	for _, dir := range []string{"logs", "processes", "pki", "nodes", "bin"} {
		if err := os.Mkdir(filepath.Join(c.dir, dir), 0o755); err != nil {
			return err
		}
	}
	listener, port, err := listenLocal()
	if err != nil {
		return err
	}
	defer listener.Close()
	if err := c.buildPrograms(ctx); err != nil {
		return err
	}
	c.say("programs and image built")
	if err := errors.Join(c.makePKI(port), c.makeNetworks(ctx)); err != nil {
		return err
	}
	if err := c.startControlPlane(ctx, listener); err != nil {
		return err
	}
	if err := c.startNodes(ctx); err != nil {
		return err
	}
	c.say("networks made, control plane and %d nodes started", c.options.Nodes)
	if err := c.awaitAPI(ctx); err != nil {
		return err
	}
	c.say("API server ready")
	// They give up if they do not find an API server at once.
	if err := errors.Join(c.StartDaemon(ctx, ControllerManager), c.StartDaemon(ctx, Scheduler)); err != nil {
		return err
	}
	for _, name := range c.Nodes() {
		if err := c.setPodCIDR(ctx, name); err != nil {
			return err
		}
	}
	for _, name := range c.Nodes() {
		if err := c.awaitNode(ctx, name); err != nil {
			return err
		}
		c.say("%s Ready", name)
	}
	if err := c.awaitServiceAccount(ctx); err != nil {
		return err
	}
	c.say("up: export KUBECONFIG=%s", c.Kubeconfig())
	return c.writeState(true)
}

// startNodes boots all nodes at once.
func (c *Cluster) startNodes(ctx context.Context) error {
	var nodes errgroup.Group
	for i := 1; i <= c.options.Nodes; i++ {
		nodes.Go(func() error {
			if err := c.makeNodeNetwork(ctx, i); err != nil {
				return err
			}
			return c.startNode(ctx, nodeName(i))
		})
	}
	return nodes.Wait()
}

// awaitServiceAccount waits for what the first pod needs.
func (c *Cluster) awaitServiceAccount(ctx context.Context) error {
	return Poll(ctx, 30*time.Second, func() error {
		_, err := c.Kubectl(ctx, "-n", "default", "get", "serviceaccount/default", "configmap/kube-root-ca.crt")
		return err
	})
}

// Open returns a test bed that another process has brought up.
func Open(ctx context.Context, prefix string) (*Cluster, error) {
	options, err := Options{Prefix: prefix}.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("test bed: %w", err)
	}
	c, err := newCluster(options)
	if err != nil {
		return nil, fmt.Errorf("test bed: %w", err)
	}
	s, err := c.readState()
	if err != nil {
		return nil, fmt.Errorf("test bed %s is not up: %w", options.Prefix, err)
	}
	if !s.Ready {
		return nil, fmt.Errorf("test bed %s is not up: it was not finished", options.Prefix)
	}
	s.Options.Progress = options.Progress
	c.options = s.Options
	c.tools, err = binaries.Dir(ctx)
	return c, errors.Join(err, c.findCNI(ctx))
}

// Down removes the test bed with everything that it made.
func (c *Cluster) Down(ctx context.Context) error {
	unlock, err := c.lock()
	if err != nil {
		return fmt.Errorf("test bed: %w", err)
	}
	defer unlock()
	return c.remove(ctx)
}

// Down removes the test bed of a prefix, complete or not, no matter which process
// made it.
func Down(ctx context.Context, prefix string) error {
	options, err := Options{Prefix: prefix}.withDefaults()
	if err != nil {
		return fmt.Errorf("test bed: %w", err)
	}
	c, err := newCluster(options)
	if err != nil {
		return fmt.Errorf("test bed: %w", err)
	}
	return c.Down(ctx)
}

// takeOver removes what a former test bed of this prefix has left, and puts
// this process's name on the prefix.
func (c *Cluster) takeOver(ctx context.Context) error {
	s, err := c.readState()
	if err == nil && (s.Owner.alive() || s.Options.Detached && s.Ready) {
		return fmt.Errorf("%w: %s (remove it by \"go run ./test/testbed/cmd/testbed -prefix %s down\")", ErrExists, c.dir, c.options.Prefix)
	}
	if err := c.remove(ctx); err != nil {
		return err
	}
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return err
	}
	return c.writeState(false)
}

// remove deletes all that has the test bed's prefix, in whatever state it is.
func (c *Cluster) remove(ctx context.Context) error {
	var errs []error
	// The recorded processes first: nodes take their pods with them.
	files, err := filepath.Glob(c.processFile("*"))
	errs = append(errs, err)
	var kills errgroup.Group
	for _, file := range files {
		kills.Go(func() error { return c.stop(ctx, filepath.Base(file)) })
	}
	errs = append(errs, kills.Wait())
	places, err := c.places()
	errs = append(errs, err)
	for _, place := range places {
		errs = append(errs, c.removePlace(ctx, place))
	}
	errs = append(errs, node.RemoveCgroups(c.options.Prefix))
	if err := errors.Join(errs...); err != nil {
		// The records stay, for the next attempt.
		return fmt.Errorf("remove test bed %s: %w", c.options.Prefix, err)
	}
	if err := os.RemoveAll(c.dir); err != nil {
		return fmt.Errorf("remove test bed %s: %w", c.options.Prefix, err)
	}
	return nil
}

// keepLogs puts the logs of a test bed that failed aside, in place of former
// ones.
func (c *Cluster) keepLogs() {
	kept := c.dir + ".failed"
	if os.RemoveAll(kept) != nil || os.Mkdir(kept, 0o755) != nil {
		return
	}
	paths, _ := filepath.Glob(filepath.Join(c.dir, "logs", "*.log"))
	more, _ := filepath.Glob(filepath.Join(c.dir, "nodes", "*", "*.log"))
	for _, path := range append(paths, more...) {
		relative, err := filepath.Rel(c.dir, path)
		if err != nil {
			continue
		}
		target := filepath.Join(kept, relative)
		if os.MkdirAll(filepath.Dir(target), 0o755) == nil {
			_ = os.Rename(path, target)
		}
	}
	c.say("failed: its logs are in %s", kept)
}

func (c *Cluster) statePath() string { return filepath.Join(c.dir, "state.json") }

func (c *Cluster) writeState(ready bool) error {
	self, err := identify(os.Getpid())
	if err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	data, err := json.MarshalIndent(state{Options: c.options, Owner: self, Ready: ready}, "", "  ")
	if err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	if err := os.WriteFile(c.statePath(), data, 0o644); err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	return nil
}

func (c *Cluster) readState() (state, error) {
	var s state
	data, err := os.ReadFile(c.statePath())
	if err != nil {
		return s, err
	}
	return s, json.Unmarshal(data, &s)
}

// lock keeps two processes from making or removing the same test bed at once.
func (c *Cluster) lock() (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Dir(c.dir), 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(c.dir+".lock", os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, fs.FileMode(0o644))
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = fmt.Errorf("%w: another process is at it", ErrExists)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return func() { f.Close() }, nil
}

// ProgramsVariable names the environment variable with the folder of the test bed's own programs,
// if they were built before: for machines on which that would take long.
const ProgramsVariable = "EGRESSIP_TESTBED_PROGRAMS"

// Programs are their packages, relative to the repository.
func Programs() []string { return []string{"./test/testbed/cmd/traffic", "./test/testbed/cmd/node"} }

// buildPrograms builds the test bed's own programs, or takes them from where they are, and
// their image.
func (c *Cluster) buildPrograms(ctx context.Context) error {
	if built := os.Getenv(ProgramsVariable); built != "" {
		if err := os.CopyFS(c.binDir(), os.DirFS(built)); err != nil {
			return fmt.Errorf("take programs: %w", err)
		}
	} else if err := c.compilePrograms(ctx); err != nil {
		return err
	}
	return dockerarchive.Write(c.trafficImage(), dockerarchive.Image{
		Tag:        TrafficImage,
		Files:      []dockerarchive.File{{Path: "/traffic", Source: filepath.Join(c.binDir(), "traffic")}, {Path: "/tmp", Mode: 0o1777}},
		Entrypoint: []string{"/traffic"},
		Cmd:        []string{"pause"},
		Env:        []string{"PATH=/"},
	})
}

func (c *Cluster) compilePrograms(ctx context.Context) error {
	root, err := binaries.Repository()
	if err != nil {
		return err
	}
	cmd, err := c.command(ctx, append([]string{"go", "build", "-trimpath", "-ldflags=-s -w", "-o", c.binDir() + "/"}, Programs()...)...)
	if err != nil {
		return err
	}
	cmd.Dir = root
	cmd.Env = append(cmd.Env, "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build programs: %w: %s", err, out)
	}
	return nil
}
