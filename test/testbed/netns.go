package testbed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

const netnsDir = "/run/netns"

// netns is the path of a place's network namespace.
func (c *Cluster) netns(place string) string {
	return filepath.Join(netnsDir, c.options.Prefix+"-"+place)
}

// enter runs f in the network namespace of a place; see inNetns.
func (c *Cluster) enter(place string, f func() error) error {
	node, ip, isPod := strings.Cut(place, "/")
	if !isPod {
		return inNetns(c.netns(place), f)
	}
	path, err := c.podNetns(node, ip)
	if err != nil {
		return err
	}
	return inNetns(path, f)
}

// podNetns is the path of the network namespace of the pod that has an address: the one
// among those of the node's container runtime, as the node's mounts have them.
func (c *Cluster) podNetns(node, ip string) (string, error) {
	p, err := c.nodeProcess(node)
	if err != nil {
		return "", err
	}
	paths, err := filepath.Glob(fmt.Sprintf("/proc/%d/root%s/*", p.PID, netnsDir))
	if err != nil {
		return "", fmt.Errorf("find the pod %s on %s: %w", ip, node, err)
	}
	errs := []error{fmt.Errorf("no pod on %s has the address %s", node, ip)}
	for _, path := range paths {
		has := false
		if err := inNetns(path, func() error {
			addresses, err := net.InterfaceAddrs()
			has = slices.ContainsFunc(addresses, func(a net.Addr) bool { return strings.HasPrefix(a.String(), ip+"/") })
			return err
		}); err != nil {
			errs = append(errs, err) // its pod may just have gone
		}
		if has {
			return path, nil
		}
	}
	return "", errors.Join(errs...)
}

// inNetns runs f on a thread that is in the network namespace of path:
// sockets that f opens and processes that it starts belong there. "ip netns
// exec" would do for processes, but it also replaces /sys, and with it the
// cgroups.
func inNetns(path string, f func() error) error {
	done := make(chan error, 1)
	go func() {
		// Never unlocked: the thread ends with the goroutine, so that no other
		// goroutine inherits its namespace.
		runtime.LockOSThread()
		done <- func() error {
			ns, err := os.Open(path)
			if err != nil {
				return fmt.Errorf("enter network namespace: %w", err)
			}
			defer ns.Close()
			if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("enter network namespace %s: %w", path, err)
			}
			return f()
		}()
	}()
	return <-done
}

// Exec runs a command in the network namespace of a place, a node, one of the
// other Places or a Pod.Place, and returns its standard output. The pinned tools
// and "traffic" are found by name.
func (c *Cluster) Exec(ctx context.Context, place string, args ...string) (string, error) {
	return c.exec(ctx, place, "", args...)
}

// ExecInput runs a command in the network namespace of a place, with a text as
// its standard input.
func (c *Cluster) ExecInput(ctx context.Context, place, input string, args ...string) error {
	_, err := c.exec(ctx, place, input, args...)
	return err
}

// NodeExec runs a command in a node's network namespace.
func (c *Cluster) NodeExec(ctx context.Context, node string, args ...string) (string, error) {
	return c.exec(ctx, node, "", args...)
}

// NodeShell runs a command on a node with all of its namespaces: with its
// mounts, its choice of iptables backend, its process ids.
func (c *Cluster) NodeShell(ctx context.Context, node string, args ...string) (string, error) {
	enter, err := c.enterNode(node)
	if err != nil {
		return "", err
	}
	return c.run(ctx, "", append(enter, args...)...)
}

// enterNode is the command that enters all namespaces of a node.
func (c *Cluster) enterNode(node string) ([]string, error) {
	p, err := c.nodeProcess(node)
	if err != nil {
		return nil, err
	}
	return []string{"nsenter", fmt.Sprintf("--target=%d", p.PID), "--mount", "--net", "--pid", "--uts", "--ipc", "--"}, nil
}

func (c *Cluster) exec(ctx context.Context, place, input string, args ...string) (string, error) {
	var out string
	err := c.enter(place, func() error {
		var err error
		out, err = c.run(ctx, input, args...)
		return err
	})
	if err != nil {
		return out, fmt.Errorf("on %s: %w", place, err)
	}
	return out, nil
}

// run runs a command where the caller's thread is. An error has the command's
// words.
func (c *Cluster) run(ctx context.Context, input string, args ...string) (string, error) {
	cmd, err := c.command(ctx, args...)
	if err != nil {
		return "", err
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

// command finds a program among the test bed's own and the pinned tools, then
// as usual.
func (c *Cluster) command(ctx context.Context, args ...string) (*exec.Cmd, error) {
	if len(args) == 0 {
		return nil, errors.New("no command")
	}
	name := args[0]
	for _, dir := range []string{c.binDir(), c.tools} {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err == nil && filepath.Base(name) == name {
			name = path
			break
		} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("find %s: %w", name, err)
		}
	}
	cmd := exec.CommandContext(ctx, name, args[1:]...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.Kubeconfig(), "PATH="+c.binDir()+":"+c.tools+":"+os.Getenv("PATH"))
	return cmd, nil
}

// ip runs iproute2's ip.
func (c *Cluster) ip(ctx context.Context, args ...string) error {
	_, err := c.run(ctx, "", append([]string{"ip"}, args...)...)
	return err
}

// sysctl writes settings, "name=value", of a place's network namespace.
func (c *Cluster) sysctl(place string, settings ...string) error {
	return inNetns(c.netns(place), func() error {
		var errs []error
		for _, s := range settings {
			name, value, _ := strings.Cut(s, "=")
			errs = append(errs, os.WriteFile(filepath.Join("/proc/sys", strings.ReplaceAll(name, ".", "/")), []byte(value), 0o644))
		}
		return errors.Join(errs...)
	})
}

// Interactive returns a command that uses this process's terminal, in the
// network of a place, or of the machine where place is empty.
func (c *Cluster) Interactive(ctx context.Context, place string, args ...string) (*exec.Cmd, error) {
	if place != "" {
		args = append([]string{"nsenter", "--net=" + c.netns(place), "--"}, args...)
	}
	if _, ok := c.nodeIndex(place); ok {
		enter, err := c.enterNode(place)
		if err != nil {
			return nil, err
		}
		args = append(enter, args[3:]...)
	}
	cmd, err := c.command(ctx, args...)
	if err != nil {
		return nil, err
	}
	if place != "" {
		// The other one's server is on the machine's 127.0.0.1.
		cmd.Env = append(cmd.Env, "KUBECONFIG="+filepath.Join(c.pkiDir(), lanAdmin+".conf"))
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return cmd, nil
}
