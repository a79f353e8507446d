// Command displacement measures how long other software's rules come before ours.
//
// Software that puts its jump first, as kube-proxy and CNIs do when they start,
// displaces ours until the agent notices and puts ours first again. This command
// makes a host, a pod with an egress IP, and a server outside, each in a network
// namespace. It inserts a jump before ours again and again, and measures how long it
// stays first. Meanwhile the pod sends two packets each millisecond, one of
// a new connection and one of a lasting one. The server counts sources: one that is
// not the egress IP is a failure, and so is anything that is left at the end.
//
// There are two kinds of insertions, each as bad as can be: table nat, where every
// source becomes the host's (MASQUERADE), so that only the guard at the uplink stands
// between, and table mangle, where nothing gets a mark any more (ACCEPT), so that
// only the set of locked pods does.
//
// Then somebody fights for the first place: its jumps are put first in nat, mangle and filter
// at once, four times a second, while the agent puts ours first. How long others stood first
// in one of them, and how many passes the agent made, is printed.
//
// The window begins when the kernel has the foreign jump first, and ends when it has
// ours first again. The kernel is asked directly, not by iptables-save, so that the
// answers cost little; "gap" is the longest pause between two answers, by which the
// window may be off. What iptables-save prints is compared after each.
//
// The agent's loop needs an API server. Here pkg/dataplane runs at the pace of that
// loop (pkg/agent/loop.go), with a state that does not change.
//
//	go run ./test/bench/displacement [-n 20] [-fight 15s] [-rules 1000] [-seed 1]
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane"
)

// hostVariable is in the environment of all processes that are made here but the
// first: the first one's number, and the backend.
const hostVariable = "EGRESSIP_DISPLACEMENT_HOST"

// endIn is how long a host may take to end.
const endIn = 15 * time.Second

// options are the flags.
type options struct {
	n, rules int
	fight    time.Duration
	seed     uint64
}

// arguments are the options as flags.
func (o options) arguments() []string {
	return []string{fmt.Sprint("-n=", o.n), fmt.Sprint("-fight=", o.fight), fmt.Sprint("-rules=", o.rules), fmt.Sprint("-seed=", o.seed)}
}

func main() { os.Exit(run()) }

func run() int {
	var o options
	flag.IntVar(&o.n, "n", 20, "insertions of each kind, in each iptables backend")
	flag.DurationVar(&o.fight, "fight", 15*time.Second, "how long somebody fights for the first place, in each iptables backend")
	flag.IntVar(&o.rules, "rules", 1000, "rules of others in table nat, such as kube-proxy's")
	flag.Uint64Var(&o.seed, "seed", 1, "of the random pauses between insertions")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	var err error
	if _, backend, inside := strings.Cut(os.Getenv(hostVariable), "/"); inside {
		err = beHost(ctx, dataplane.Backend(backend), o, os.Stdout)
	} else {
		err = play(ctx, o, os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "displacement:", err)
		return 1
	}
	return 0
}

// play runs a host for each backend, one after the other.
func play(ctx context.Context, o options, out io.Writer) error {
	header(ctx, o, out)
	var errs []error
	for _, b := range []dataplane.Backend{dataplane.NFT, dataplane.Legacy} {
		if err := host(ctx, b, o, out); err != nil {
			errs = append(errs, fmt.Errorf("host with iptables-%s: %w", b, err))
		}
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(errs...)
}

// header says what the numbers belong to.
func header(ctx context.Context, o options, out io.Writer) {
	var name unix.Utsname
	release := "unknown"
	if unix.Uname(&name) == nil {
		release = unix.ByteSliceToString(name.Release[:])
	}
	commit := "unknown"
	if b, err := exec.CommandContext(ctx, "git", "describe", "--tags", "--always", "--dirty").Output(); err == nil {
		commit = strings.TrimSpace(string(b))
	}
	load, _, _ := strings.Cut(readOr("/proc/loadavg", "unknown"), " ")
	fmt.Fprintf(out, "# %s, kernel %s, %d processors, commit %s; load of the machine before: %s\n# %s\n", time.Now().UTC().Format("2006-01-02 15:04 UTC"),
		release, runtime.NumCPU(), commit, load, strings.Join(append([]string{"go run ./test/bench/displacement"}, o.arguments()...), " "))
}

func readOr(path, otherwise string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return otherwise
	}
	return string(b)
}

// host runs this program again, with a network and a mount namespace of its own. All
// that it makes is in there, and goes with it however it ends.
func host(ctx context.Context, b dataplane.Backend, o options, out io.Writer) error {
	mark := fmt.Sprintf("%s=%d/%s", hostVariable, os.Getpid(), b)
	cmd := exec.CommandContext(ctx, "/proc/self/exe", o.arguments()...)
	cmd.Env = append(os.Environ(), mark)
	cmd.Stdout, cmd.Stderr = out, os.Stderr
	cmd.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) }
	cmd.WaitDelay = endIn
	// The child dies with the thread that started it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := cmd.Run()
	return errors.Join(err, nobodyWith(mark))
}

// nobodyWith expects that no process has the variable in its environment. Without
// one, and without a mount, a network namespace is gone.
func nobodyWith(variable string) error {
	environs, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		return err
	}
	var errs []error
	for _, path := range environs {
		// Processes come and go: what cannot be read is not ours.
		if b, err := os.ReadFile(path); err == nil && strings.Contains("\x00"+string(b), "\x00"+variable+"\x00") {
			errs = append(errs, fmt.Errorf("process %s is left", filepath.Base(filepath.Dir(path))))
		}
	}
	return errors.Join(errs...)
}
