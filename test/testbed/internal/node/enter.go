package node

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// Enter starts the node's first process, which runs Init, and returns. It is
// called by a short-lived process that is in the node's network namespace
// already: it moves that process into the node's cgroups, for the new cgroup
// namespace to begin there.
func Enter(configPath string) error {
	c, err := ReadConfig(configPath)
	if err != nil {
		return err
	}
	if err := joinCgroup(c.Prefix, c.Name); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("start node %s: %w", c.Name, err)
	}
	cmd := exec.Command(self, "init", configPath)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid:     true,
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWCGROUP,
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start node %s: %w", c.Name, err)
	}
	if err := os.WriteFile(c.PIDFile(), []byte(strconv.Itoa(cmd.Process.Pid)), 0o644); err != nil {
		return fmt.Errorf("start node %s: %w", c.Name, err)
	}
	return nil
}
