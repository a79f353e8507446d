// Package isolated runs the tests of a package where they cannot touch the
// machine: in a process with a network and a mount namespace of its own.
//
// What a test makes is not on the machine, and the kernel removes all of it with
// the process, however that ends. It needs root.
//
// Tests use it from their TestMain:
//
//	func TestMain(m *testing.M) { os.Exit(isolated.Run(m, nil)) }
package isolated

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

// inside is set in the environment of the process that runs the tests.
const inside = "EGRESSIP_TEST_ISOLATED"

// Run runs the tests of m in namespaces of their own and returns the exit code
// for the process: that of the tests, or 1 if they could not start, with the reason
// on standard error.
//
// The process starts itself again for that, with the same arguments and
// environment; the second one makes its mounts private, gets an empty /run, and
// with that a lock of iptables of its own. Then it calls prepare, which may be
// nil, and runs the tests. The second process dies with the first.
func Run(m *testing.M, prepare func() error) int {
	if os.Getenv(inside) == "" {
		return restart()
	}
	if err := makeRoom(prepare); err != nil {
		fmt.Fprintln(os.Stderr, "prepare namespaces of the test process:", err)
		return 1
	}
	return m.Run()
}

// restart starts this program inside new namespaces and waits for its end.
func restart() int {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	runtime.LockOSThread() // the child dies with the thread that started it
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		return exit.ExitCode()
	case err != nil:
		fmt.Fprintln(os.Stderr, "start the test process in namespaces of its own (needs root):", err)
		return 1
	}
	return 0
}

// makeRoom keeps mounts of the tests off the machine, and prepares the rest.
func makeRoom(prepare func() error) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := Mount("tmpfs", "/run"); err != nil {
		return err
	}
	if prepare == nil {
		return nil
	}
	return prepare()
}

// Mount covers a directory by a new file system of a kind, such as tmpfs or
// bpf. It is for the function that Run calls: elsewhere it changes the machine.
func Mount(kind, dir string) error {
	if err := unix.Mount(kind, dir, kind, 0, ""); err != nil {
		return fmt.Errorf("mount %s: %w", dir, err)
	}
	return nil
}
