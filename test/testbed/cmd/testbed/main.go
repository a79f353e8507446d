// Command testbed brings a cluster on this machine up and down, for people.
//
//	testbed [flags] up             bring a cluster up and keep it running
//	testbed [flags] down           remove it, complete or not
//	testbed [flags] shell [PLACE]  open a shell with KUBECONFIG, in the network of
//	                               PLACE: node1, bastion, router, lanhost, ...
//	testbed [flags] status         list nodes and pods
//	testbed prerequisites          print the Debian packages that are missing
//	testbed install                install them
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/test/testbed"
)

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	o := testbed.Options{Detached: true, Progress: os.Stderr}
	flags := flag.NewFlagSet("testbed", flag.ContinueOnError)
	flags.StringVar(&o.Prefix, "prefix", "", "begins the names of everything that the test bed makes (default eip)")
	flags.IntVar(&o.Nodes, "nodes", 3, "number of nodes")
	flags.StringVar((*string)(&o.Backend), "backend", "nft", "iptables backend of the nodes' own rules: nft or legacy")
	flags.StringVar((*string)(&o.CNI), "cni", "bridge", "what connects pods: "+strings.Trim(fmt.Sprint(testbed.CNIs()), "[]"))
	flags.StringVar((*string)(&o.ProxyMode), "proxy", "iptables", "mode of kube-proxy: iptables, nftables, or ipvs where the kernel has it")
	flags.IntVar(&o.MTU, "mtu", 1500, "MTU of the LAN and of pods, in bytes")
	flags.BoolVar(&o.DualStack, "dual-stack", false, "addresses of IPv6 for nodes, pods, Services and the bastion, too")
	flags.BoolVar(&o.IPv6Only, "ipv6-only", false, "addresses of IPv6 for all of these, and none of IPv4")
	flags.Func("image", "docker-archive to load on every node; may be repeated", func(path string) error {
		o.Images = append(o.Images, path)
		return nil
	})
	if err := flags.Parse(args); err != nil {
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	var err error
	switch flags.Arg(0) {
	case "up":
		_, err = testbed.Up(ctx, o)
	case "down":
		err = testbed.Down(ctx, o.Prefix)
	case "shell":
		err = shell(ctx, o.Prefix, flags.Arg(1))
	case "status":
		err = status(ctx, o.Prefix)
	case "prerequisites":
		fmt.Println(strings.Join(testbed.MissingPackages(), " "))
	case "install":
		err = install(ctx)
	default:
		flags.Usage()
		fmt.Fprintln(os.Stderr, "commands: up, down, shell, status, prerequisites, install")
		return 2
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// shell runs an interactive shell that knows the cluster.
func shell(ctx context.Context, prefix, place string) error {
	c, err := testbed.Open(ctx, prefix)
	if err != nil {
		return err
	}
	name := os.Getenv("SHELL")
	if name == "" {
		name = "/bin/sh"
	}
	cmd, err := c.Interactive(ctx, place, name)
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "kubectl, helm and traffic are in PATH. Nodes: %s. Leave with \"exit\".\n", strings.Join(c.Nodes(), " "))
	err = cmd.Run()
	if _, exited := errors.AsType[*exec.ExitError](err); exited {
		return nil // how the shell's last command ended is its user's affair
	}
	return err
}

// status prints what runs.
func status(ctx context.Context, prefix string) error {
	c, err := testbed.Open(ctx, prefix)
	if err != nil {
		return err
	}
	fmt.Printf("export KUBECONFIG=%s\n", c.Kubeconfig())
	out, err := c.Kubectl(ctx, "get", "nodes,pods", "--all-namespaces", "-o", "wide")
	fmt.Print(out)
	return err
}

// install installs the Debian packages that are missing.
func install(ctx context.Context) error {
	missing := testbed.MissingPackages()
	if len(missing) == 0 {
		return nil
	}
	for _, args := range [][]string{{"update", "-q"}, append([]string{"install", "-q", "-y", "--no-install-recommends"}, missing...)} {
		cmd := exec.CommandContext(ctx, "apt-get", args...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("apt-get %s: %w", strings.Join(args, " "), err)
		}
	}
	return nil
}
