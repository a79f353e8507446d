// Package boot_test boots a machine in namespaces, with the systemd of this one, to
// show what the boot lock does there: only a real systemd orders its unit.
package boot_test

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/internal/testenv/isolated"
)

// kubeletScript is the machine's kubelet: it starts a pod that sends.
//
//go:embed testdata/kubelet.sh
var kubeletScript string

const (
	patience = 30 * time.Second
	// program is in the environment: where the operator's program was built.
	program = "EGRESSIP_TEST_PROGRAM"
	// unified is where version 2 of control groups is mounted, if it is.
	unified = "/sys/fs/cgroup"
	named   = "/run/cgroup"
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	// Before the test has no network: modules may have to be downloaded.
	if os.Getenv(program) == "" {
		dir, err := os.MkdirTemp("", "egressip-boot-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		built := filepath.Join(dir, "egressip-operator")
		if out, err := exec.CommandContext(context.Background(), "go", "build", "-o", built, "../..").CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build the operator: %v\n%s", err, out)
			return 1
		}
		if err := os.Setenv(program, built); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return isolated.Run(m, func() error {
		if hierarchy() == unified {
			return nil
		}
		if err := os.Mkdir(named, 0o755); err != nil {
			return err
		}
		if err := unix.Mount("cgroup", named, "cgroup", 0, "none,name=systemd"); err != nil {
			return fmt.Errorf("mount systemd's hierarchy of control groups: %w", err)
		}
		return nil
	})
}

// hierarchy is where the control groups of systemd's hierarchy are.
func hierarchy() string {
	var s unix.Statfs_t
	if err := unix.Statfs(unified, &s); err == nil && s.Type == unix.CGROUP2_SUPER_MAGIC {
		return unified
	}
	return named
}

// given: a node on which the lock is installed; when it boots, then systemd runs the
// lock before the kubelet, and nothing of a pod leaves. Without the lock, the same pod's
// packets leave.
//
// Mutants killed: unit-in-no-order, unit-not-required.
func TestSystemdLocksBeforeTheKubelet(t *testing.T) {
	m := newMachine(t)
	m.operator(t, "lock", "install", "--cluster-cidrs", "10.244.0.0/16")
	m.boot(t, "")
	m.await(t, "kubelet.service", "active")
	if state := m.state("egressip-lock.service"); state != "active" {
		t.Errorf("the lock is %s\n%s", state, m.log())
	}
	if n := m.left(t); n != 0 {
		t.Errorf("%d packets of a pod left", n)
	}
	m.off(t)

	m.operator(t, "lock", "uninstall")
	m.boot(t, "")
	m.await(t, "kubelet.service", "active")
	if n := m.left(t); n == 0 {
		t.Error("no packet left without the lock: the test shows nothing")
	}
}

// given: a node on which the lock cannot work; when it boots, then the kubelet does
// not start, and the lock's own state says that it failed.
//
// Mutant killed: unit-only-wanted.
func TestWithoutTheLockNoKubelet(t *testing.T) {
	m := newMachine(t)
	m.operator(t, "lock", "install", "--cluster-cidrs", "10.244.0.0/16", "--backend", "iptables")
	m.boot(t, "no iptables")
	m.eventually(t, "systemd has nothing left to start", func() bool {
		state := m.show("SystemState")
		return state == "running" || state == "degraded"
	})
	if state := m.state("egressip-lock.service"); state != "failed" {
		t.Errorf("the lock is %s\n%s", state, m.log())
	}
	if state := m.state("kubelet.service"); state != "inactive" {
		t.Errorf("the kubelet is %s\n%s", state, m.log())
	}
	if _, err := os.Stat(m.inside("/run/left")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the kubelet has started a pod: %v", err)
	}
}

// machine is a node: a directory with its own files, and what runs from it.
type machine struct {
	root, console string
	// group is the control group of all that runs there.
	group string
	init  *exec.Cmd
	// ended is closed when init has ended; out is what it said before it was systemd.
	ended chan struct{}
	out   *bytes.Buffer
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	dir := t.TempDir()
	m := &machine{root: filepath.Join(dir, "root"), console: filepath.Join(dir, "console")}
	target := "[Unit]\nDefaultDependencies=no\n"
	for path, content := range map[string]string{
		"etc/machine-id":                           strings.Repeat("0123456789abcdef", 2) + "\n",
		"etc/kubelet.sh":                           kubeletScript,
		"etc/systemd/system/sysinit.target":        target,
		"etc/systemd/system/basic.target":          target,
		"etc/systemd/system/shutdown.target":       target,
		"etc/systemd/system/network-online.target": "[Unit]\n",
		"etc/systemd/system/node.target":           "[Unit]\nRequires=kubelet.service\nAfter=kubelet.service\n",
		"etc/systemd/system/kubelet.service":       "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/sh -e /etc/kubelet.sh\n",
		// For "lock install"; a machine that runs has this one's /usr.
		"usr/sbin/iptables-nft": "",
		"var/empty/none":        "",
	} {
		write(t, filepath.Join(m.root, path), content)
	}
	return m
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o600)); err != nil {
		t.Fatal(err)
	}
}

// operator runs the program on the machine's files.
func (m *machine) operator(t *testing.T, arguments ...string) {
	t.Helper()
	arguments = append(arguments, "--root", m.root)
	if out, err := exec.CommandContext(t.Context(), os.Getenv(program), arguments...).CombinedOutput(); err != nil {
		t.Fatalf("egressip-operator %s: %v\n%s", strings.Join(arguments, " "), err, out)
	}
}

// boot starts the machine's systemd, in namespaces that end with it.
func (m *machine) boot(t *testing.T, fault string) {
	t.Helper()
	write(t, m.console, "")
	m.group = filepath.Join(hierarchy(), fmt.Sprintf("egressip-boot-%d", os.Getpid()))
	if err := os.Mkdir(m.group, 0o755); err != nil {
		t.Fatal(err)
	}
	m.out, m.ended = &bytes.Buffer{}, make(chan struct{})
	// It outlives the test's context, to be ended by off.
	m.init = exec.CommandContext(context.WithoutCancel(t.Context()), "sh", "-e", "testdata/machine.sh", m.root, m.group, m.console, fault)
	m.init.Stdout, m.init.Stderr = m.out, m.out
	m.init.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
		Pdeathsig:  syscall.SIGKILL,
	}
	t.Cleanup(func() { m.off(t) })
	if err := m.init.Start(); err != nil {
		close(m.ended)
		t.Fatal(err)
	}
	go func() {
		defer close(m.ended)
		_ = m.init.Wait() // it is killed
	}()
	m.eventually(t, "systemd runs", func() bool {
		name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", m.init.Process.Pid))
		return err == nil && strings.TrimSpace(string(name)) == "systemd"
	})
}

// off cuts the machine's power.
func (m *machine) off(t *testing.T) {
	t.Helper()
	if m.init != nil {
		if m.init.Process != nil {
			_ = m.init.Process.Kill() // it may have ended
		}
		<-m.ended
		m.init = nil
	}
	if m.group == "" {
		return
	}
	var groups []string
	err := filepath.WalkDir(m.group, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			groups = append(groups, path)
		}
		return err
	})
	for _, g := range slices.Backward(groups) {
		err = errors.Join(err, os.Remove(g))
	}
	if err != nil {
		t.Errorf("take the machine's control groups away: %v", err)
	}
	m.group = ""
}

// state is that of a unit.
func (m *machine) state(unit string) string { return m.show("ActiveState", unit) }

// show asks the machine's systemd for a property of its own, or of a unit.
func (m *machine) show(property string, unit ...string) string {
	arguments := append([]string{"-t", strconv.Itoa(m.init.Process.Pid), "-a", "--root", "--wd=/", "systemctl", "show", "-P", property}, unit...)
	out, err := exec.Command("nsenter", arguments...).CombinedOutput()
	if err != nil {
		return fmt.Sprintf("%s: %v", bytes.TrimSpace(out), err)
	}
	return string(bytes.TrimSpace(out))
}

// await waits until a unit of the machine is in a state.
func (m *machine) await(t *testing.T, unit, want string) {
	t.Helper()
	m.eventually(t, unit+" is "+want, func() bool { return m.state(unit) == want })
}

// left is how many packets of the machine's pod left it.
func (m *machine) left(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile(m.inside("/run/left"))
	if err != nil {
		t.Fatalf("%v\n%s", err, m.log())
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// inside is a path of the machine that runs.
func (m *machine) inside(path string) string {
	return fmt.Sprintf("/proc/%d/root%s", m.init.Process.Pid, path)
}

// log is what the machine's systemd said.
func (m *machine) log() string {
	text, err := os.ReadFile(m.console)
	return fmt.Sprintf("console: %s (%v)", text, err)
}

func (m *machine) eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !holds(); <-tick.C {
		select {
		case <-m.ended:
			t.Fatalf("the machine has ended before %s\n%s\n%s", what, m.log(), m.out)
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited %s in vain: %s\n%s", patience, what, m.log())
		}
	}
}
