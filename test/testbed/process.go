package testbed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
)

// process is one process for all time: ids are used again, but not with the
// same start time.
type process struct {
	PID int
	// Start is the start time in clock ticks since boot, field 22 of
	// /proc/PID/stat.
	Start uint64
}

// identify returns the process that has a process id now. It fails for
// zombies: they run no more, and only await their parent.
func identify(pid int) (process, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return process{}, err
	}
	// The name in parentheses may hold anything, parentheses too.
	_, rest, _ := strings.Cut(string(stat[strings.LastIndexByte(string(stat), ')'):]), " ")
	fields := strings.Fields(rest)
	if len(fields) < 20 {
		return process{}, fmt.Errorf("process %d: cannot read %q", pid, stat)
	}
	if fields[0] == "Z" || fields[0] == "X" {
		return process{}, fmt.Errorf("process %d: %w", pid, fs.ErrNotExist)
	}
	start, err := strconv.ParseUint(fields[19], 10, 64)
	return process{PID: pid, Start: start}, err
}

// alive reports whether this very process still runs.
func (p process) alive() bool {
	now, err := identify(p.PID)
	return err == nil && now == p
}

// signal sends a signal to the process, and to nothing that has its number by now.
func (p process) signal(signal unix.Signal) error {
	// The descriptor pins the process: what is checked is what gets the signal.
	fd, err := unix.PidfdOpen(p.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("send %s to process %d: %w", signal, p.PID, err)
	}
	defer unix.Close(fd)
	if !p.alive() {
		return nil
	}
	if err := unix.PidfdSendSignal(fd, signal, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("send %s to process %d: %w", signal, p.PID, err)
	}
	return nil
}

// kill kills the process, and waits until it has ended.
func (p process) kill(ctx context.Context) error {
	if err := p.signal(unix.SIGKILL); err != nil {
		return err
	}
	return Poll(ctx, 20*time.Second, func() error {
		if p.alive() {
			return fmt.Errorf("process %d does not end", p.PID)
		}
		return nil
	})
}

// start runs a daemon in the network namespace of a place; its output goes to
// logs/NAME.log. It is not bound to this process's life: Down ends it.
func (c *Cluster) start(ctx context.Context, place, name string, extra []*os.File, args ...string) error {
	cmd, err := c.spawn(ctx, place, name, extra, args...)
	if err != nil {
		return err
	}
	go func() {
		// Buries it, should it end while this process lives. How it ended is
		// in its log.
		_ = cmd.Wait()
	}()
	p, err := identify(cmd.Process.Pid)
	if err != nil {
		return fmt.Errorf("start %s: it ended at once, see logs/%s.log", name, name)
	}
	return c.record(name, p)
}

// runToEnd runs what ends by itself, as start runs a daemon, and waits for it.
func (c *Cluster) runToEnd(ctx context.Context, place, name string, args ...string) error {
	cmd, err := c.spawn(ctx, place, name, nil, args...)
	if err != nil {
		return err
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("run %s: %w, see logs/%s.log", name, err, name)
	}
	return nil
}

// spawn starts a process in the network namespace of a place.
func (c *Cluster) spawn(ctx context.Context, place, name string, extra []*os.File, args ...string) (*exec.Cmd, error) {
	log, err := os.OpenFile(filepath.Join(c.dir, "logs", name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	defer log.Close()
	cmd, err := c.command(context.WithoutCancel(ctx), args...)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = log, log, extra
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := inNetns(c.netns(place), cmd.Start); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return cmd, nil
}

func (c *Cluster) processFile(name string) string { return filepath.Join(c.dir, "processes", name) }

// record writes down which process goes by a name.
func (c *Cluster) record(name string, p process) error {
	content := fmt.Sprintf("%d %d\n", p.PID, p.Start)
	if err := os.WriteFile(c.processFile(name), []byte(content), 0o644); err != nil {
		return fmt.Errorf("record process %s: %w", name, err)
	}
	return nil
}

// recorded returns the process that goes by a name, and whether there is one.
func (c *Cluster) recorded(name string) (process, bool) {
	var p process
	content, err := os.ReadFile(c.processFile(name))
	if err != nil {
		return p, false
	}
	if _, err := fmt.Sscanf(string(content), "%d %d", &p.PID, &p.Start); err != nil {
		return p, false
	}
	return p, p.alive()
}

// stop kills the process that goes by a name.
func (c *Cluster) stop(ctx context.Context, name string) error {
	p, ok := c.recorded(name)
	if !ok {
		return nil
	}
	return p.kill(ctx)
}

// PIDs returns the process ids of a place's processes whose command line
// matches. Pods on the host's network are in their node's; others are not.
func (c *Cluster) PIDs(place string, match func(args []string) bool) ([]int, error) {
	processes, err := c.find(place, match)
	pids := make([]int, len(processes))
	for i, p := range processes {
		pids[i] = p.PID
	}
	return pids, err
}

// Kill kills, at once and without warning, the processes that PIDs finds, and
// returns how many these were.
func (c *Cluster) Kill(ctx context.Context, place string, match func(args []string) bool) (int, error) {
	processes, err := c.find(place, match)
	if err != nil {
		return 0, err
	}
	for i, p := range processes {
		if err := p.kill(ctx); err != nil {
			return i, err
		}
	}
	return len(processes), nil
}

// Freeze stops, as a machine that is paused does, the processes that PIDs finds, and
// returns how many these were. They continue with Thaw.
func (c *Cluster) Freeze(place string, match func(args []string) bool) (int, error) {
	return c.signal(place, match, unix.SIGSTOP)
}

// Thaw has processes continue that Freeze stopped.
func (c *Cluster) Thaw(place string, match func(args []string) bool) (int, error) {
	return c.signal(place, match, unix.SIGCONT)
}

func (c *Cluster) signal(place string, match func(args []string) bool, signal unix.Signal) (int, error) {
	processes, err := c.find(place, match)
	if err != nil {
		return 0, err
	}
	for i, p := range processes {
		if err := p.signal(signal); err != nil {
			return i, err
		}
	}
	return len(processes), nil
}

func (c *Cluster) find(place string, match func(args []string) bool) ([]process, error) {
	processes, err := inside(c.netns(place))
	if err != nil {
		return nil, fmt.Errorf("look for processes on %s: %w", place, err)
	}
	var found []process
	for _, p := range processes {
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.PID))
		if err == nil && match(strings.Split(strings.TrimSuffix(string(line), "\x00"), "\x00")) {
			found = append(found, p)
		}
	}
	return found, nil
}

// Background starts a command in a place; the function that it returns waits
// for its end, after a SIGTERM if at once is true, and returns its output. ctx
// ends it too.
func (c *Cluster) Background(ctx context.Context, place string, args ...string) (wait func(atOnce bool) (string, error), err error) {
	cmd, err := c.command(ctx, args...)
	if err != nil {
		return nil, err
	}
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if place == "" {
		err = cmd.Start()
	} else {
		err = c.enter(place, cmd.Start)
	}
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", args[0], err)
	}
	return func(atOnce bool) (string, error) {
		if atOnce {
			// If it has ended already, Wait says so.
			_ = cmd.Process.Signal(unix.SIGTERM)
		}
		if err := cmd.Wait(); err != nil {
			return output.String(), fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, output.String())
		}
		return output.String(), nil
	}, nil
}

// inside lists the processes whose main thread is in a network namespace.
func inside(netns string) ([]process, error) {
	want, err := os.Stat(netns)
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var found []process
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		is, err := os.Stat(filepath.Join("/proc", entry.Name(), "ns/net"))
		if err != nil || !os.SameFile(want, is) {
			continue
		}
		if p, err := identify(pid); err == nil {
			found = append(found, p)
		}
	}
	return found, nil
}

// Poll calls f until it returns nil. It pauses for 50 ms between two calls, or for as
// long as the last call took, and three times as long on a slow machine: f often starts kubectl,
// whose processor time the cluster would lack. After limit, stretched as the machine needs it (testenv.Stretch), or when ctx
// ends, it returns f's last error.
func Poll(ctx context.Context, limit time.Duration, f func() error) error {
	limit = testenv.Stretch(limit)
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		began := time.Now()
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("after %s: %w", limit, err)
		case <-time.After(pauseAfter(time.Since(began))):
		}
	}
}

// pauseAfter is the pause after a call that took some time.
func pauseAfter(took time.Duration) time.Duration {
	if testenv.Stretch(took) > took {
		took *= 3
	}
	return max(50*time.Millisecond, took)
}
