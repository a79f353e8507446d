// Program guest is the first process of the virtual machines of test/kernels. It loads
// modules, mounts the host's root read-only under an overlay, runs what its plan says,
// one after the other, and powers the machine off, whatever happened.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/test/kernels/internal/plan"
)

func main() {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "guest: the first process of a virtual machine, and nothing else")
		os.Exit(2)
	}
	if err := work(); err != nil {
		say("FAILED: %v", err)
	}
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

// say writes a line to the console, which the host reads.
func say(format string, args ...any) {
	fmt.Fprintf(os.Stdout, "[guest] "+format+"\n", args...)
}

func work() error {
	early := []mount{
		{"proc", "/proc", "proc", 0, ""},
		{"sysfs", "/sys", "sysfs", 0, ""},
		{"devtmpfs", "/dev", "devtmpfs", 0, ""},
	}
	if err := mountAll(early); err != nil {
		return err
	}
	b, err := os.ReadFile("/" + plan.File)
	if err != nil {
		return err
	}
	var p plan.Plan
	if err := json.Unmarshal(b, &p); err != nil {
		return fmt.Errorf("read the plan: %w", err)
	}
	for _, m := range p.Modules {
		// Whether one was needed is seen by what does not work without it.
		if err := load(filepath.Join("/", plan.ModuleDir, m)); err != nil {
			say("%v", err)
		}
	}
	if err := enterRoot(p); err != nil {
		return err
	}
	if err := loopbackUp(); err != nil {
		return err
	}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return err
	}
	say("up: %s", unix.ByteSliceToString(u.Release[:]))
	for _, r := range p.Runs {
		began := time.Now()
		end := run(r)
		say("%s: %s after %v", r.Name, end, time.Since(began).Round(time.Second))
		if err := keep(r); err != nil {
			say("%s: keep what it left: %v", r.Name, err)
		}
		if err := os.WriteFile(filepath.Join("/", plan.OutTag, r.Status()), []byte(end), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// load loads a module from a file. One that is built in, or there already, is fine.
func load(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("load module %s: %w", filepath.Base(path), err)
	}
	return nil
}

type mount struct {
	source, target, kind string
	flags                uintptr
	data                 string
}

func mountAll(list []mount) error {
	for _, m := range list {
		if err := os.MkdirAll(m.target, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.source, m.target, m.kind, m.flags, m.data); err != nil {
			return fmt.Errorf("mount %s at %s: %w", m.kind, m.target, err)
		}
	}
	return nil
}

// modprobe is what the kernel runs when it needs a module, in the new root.
const modprobe = "/usr/local/sbin/modprobe-of-guest"

// kmodAsModprobe is kmod by the name by which it knows what to do.
const kmodAsModprobe = "/usr/local/lib/guest/modprobe"

// enterRoot makes the host's root, read-only under an overlay in memory, the guest's.
func enterRoot(p plan.Plan) error {
	const root = "/new"
	share := "trans=virtio,version=9p2000.L,msize=512000,cache="
	if err := mountAll([]mount{
		{plan.RootTag, "/lower", "9p", unix.MS_RDONLY, share + "loose"},
		{"tmpfs", "/memory", "tmpfs", 0, "size=60%"},
	}); err != nil {
		return err
	}
	for _, dir := range []string{"/memory/upper", "/memory/work"} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	if err := mountAll([]mount{
		{"overlay", root, "overlay", 0, "lowerdir=/lower,upperdir=/memory/upper,workdir=/memory/work"},
		{"/lower", root + plan.HostRoot, "", unix.MS_BIND, ""},
		{plan.OutTag, root + "/" + plan.OutTag, "9p", 0, share + "none"},
		{"tmpfs", root + "/tmp", "tmpfs", 0, ""},
		{"tmpfs", root + "/run", "tmpfs", 0, ""},
		{"proc", root + "/proc", "proc", 0, ""},
		{"sysfs", root + "/sys", "sysfs", 0, ""},
		{"bpf", root + "/sys/fs/bpf", "bpf", 0, ""},
		{"cgroup2", root + "/sys/fs/cgroup", "cgroup2", 0, ""},
		{"devtmpfs", root + "/dev", "devtmpfs", 0, ""},
		{"devpts", root + "/dev/pts", "devpts", 0, ""},
		{"tmpfs", root + "/dev/shm", "tmpfs", 0, ""},
		{"/lower" + p.Tree + "/lib/modules", root + "/lib/modules", "", unix.MS_BIND, ""},
	}); err != nil {
		return err
	}
	for _, dir := range p.Scratch {
		if err := mountAll([]mount{{"tmpfs", root + dir, "tmpfs", 0, ""}}); err != nil {
			return err
		}
	}
	if err := os.Chdir(root); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("make %s the root: %w", root, err)
	}
	if err := errors.Join(unix.Chroot("."), os.Chdir("/"), unix.Sethostname([]byte("guest"))); err != nil {
		return err
	}
	return prepareModules(p)
}

// prepareModules has the kernel load modules on demand, but for those that it must do
// without.
func prepareModules(p plan.Plan) error {
	kmod := plan.HostRoot + p.Kmod
	script := fmt.Sprintf("#!/bin/sh\nLD_LIBRARY_PATH=%s/lib/x86_64-linux-gnu exec %s \"$@\"\n", kmod, kmodAsModprobe)
	var refused strings.Builder
	for _, m := range p.Refuse {
		fmt.Fprintf(&refused, "install %s /bin/false\n", m)
	}
	return errors.Join(
		os.MkdirAll("/etc/modprobe.d", 0o755),
		os.WriteFile("/etc/modprobe.d/refused.conf", []byte(refused.String()), 0o644),
		os.MkdirAll(filepath.Dir(modprobe), 0o755),
		os.MkdirAll(filepath.Dir(kmodAsModprobe), 0o755),
		os.Symlink(kmod+"/bin/kmod", kmodAsModprobe),
		os.WriteFile(modprobe, []byte(script), 0o755),
		os.WriteFile("/proc/sys/kernel/modprobe", []byte(modprobe), 0o644),
	)
}

// loopbackUp is for programs that talk to each other in the guest's own network.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	lo.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo); err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	return nil
}

// keep copies folders that a program has left to the output.
func keep(r plan.Run) error {
	var errs []error
	for _, pattern := range r.Keep {
		dirs, err := filepath.Glob(pattern)
		errs = append(errs, err)
		for _, dir := range dirs {
			errs = append(errs, os.CopyFS(filepath.Join("/", plan.OutTag, r.Name+"-"+filepath.Base(dir)), os.DirFS(dir)))
		}
	}
	return errors.Join(errs...)
}

// run runs a program to its end, or to that of its time, and says how it ended.
func run(r plan.Run) (end string) {
	log, err := os.Create(filepath.Join("/", plan.OutTag, r.Log()))
	if err != nil {
		return err.Error()
	}
	defer func() {
		if err := log.Close(); err != nil {
			end += ", " + err.Error()
		}
	}()
	ctx, cancel := context.WithTimeout(context.Background(), r.Limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, plan.HostRoot+r.Program, r.Args...)
	cmd.Dir = plan.HostRoot + r.Dir
	cmd.Env = append([]string{
		"HOME=/root", "LANG=C.UTF-8", "PATH=/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
	}, r.Env...)
	cmd.Stdout, cmd.Stderr = io.Writer(log), log
	// All that it started ends with it, or the next one would run beside it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	cmd.WaitDelay = 10 * time.Second
	err = cmd.Run()
	switch {
	case ctx.Err() != nil:
		return fmt.Sprintf("cut off after %v", r.Limit)
	case err != nil:
		return err.Error()
	}
	return "0"
}
