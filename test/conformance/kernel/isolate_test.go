package kernel

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// isolated is set in the environment of the process that runs the tests.
const isolated = "EGRESSIP_TEST_ISOLATED"

func TestMain(m *testing.M) {
	if os.Getenv(isolated) != "" {
		if err := makeRoom(); err != nil {
			fmt.Fprintln(os.Stderr, "prepare namespaces of the test process:", err)
			os.Exit(1)
		}
		os.Exit(m.Run())
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), isolated+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	runtime.LockOSThread() // the child dies with the thread that started it
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		os.Exit(exit.ExitCode())
	case err != nil:
		fmt.Fprintln(os.Stderr, "start the test process in namespaces of its own (needs root):", err)
		os.Exit(1)
	}
}

// makeRoom keeps mounts, pinned maps and the lock of iptables from the machine.
func makeRoom() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	for dir, kind := range map[string]string{"/run": "tmpfs", "/sys/fs/bpf": "bpf"} {
		if err := unix.Mount(kind, dir, kind, 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", dir, err)
		}
	}
	return nil
}
