//go:build unix

package main

import (
	"os/exec"
	"syscall"
)

// apart keeps the signals of this command's terminal from another.
func apart(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }
