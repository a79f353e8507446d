package command

import (
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/egressip-operator/egressip-operator/pkg/agent"
	"github.com/egressip-operator/egressip-operator/pkg/bootunit"
)

// lockFlags are what lock needs, and what "lock install" writes down for it.
type lockFlags struct {
	options                    agent.LockOptions
	clusterCIDRs, serviceCIDRs cidrsValue
}

func (l *lockFlags) add(f *pflag.FlagSet) {
	l.options.Kernel = agent.DefaultKernelOptions()
	addKernelFlags(f, &l.options.Kernel)
	addBackendFlag(f, &l.options.Kernel)
	f.Var(&l.clusterCIDRs, "cluster-cidrs", "pod networks of the cluster as IPv4 `CIDRs` with commas between: these are held back")
	f.Var(&l.serviceCIDRs, "service-cidrs", "service networks as IPv4 `CIDRs` with commas between: what goes there is let through")
	f.Var((*addressValue)(&l.options.HostIP), "host-ip", "`address` of this node; that of its default route by default")
	f.Uint16Var(&l.options.ProbePort, "probe-port", agent.DefaultProbePort,
		"UDP `port` on which hosts ask each other whether they are there; 0 for none")
}

// lockOptions returns what the flags say.
func (l *lockFlags) lockOptions() agent.LockOptions {
	o := l.options
	o.Pods, o.Services = l.clusterCIDRs, l.serviceCIDRs
	return o
}

func lockCommand() *cobra.Command {
	var logging loggingOptions
	var flags lockFlags
	cmd := &cobra.Command{
		Use:   "lock",
		Short: "Hold this node's pods back until the agent knows them",
		Long: `Keeps everything with an address of a pod network from leaving the cluster, until
the agent takes over, which lets each pod go its way. It is for a node that boots:
run before the kubelet, as "lock install" arranges it, it leaves no moment in which a
pod could leave with the node's address. It asks no API server, and needs root and
iptables. On a node that an agent has served since it booted it does nothing. Give
the flags that the agent gets.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, err := logging.start(cmd)
			if err != nil {
				return err
			}
			return agent.Lock(ctx, flags.lockOptions())
		},
	}
	logging.add(cmd.Flags())
	flags.add(cmd.Flags())
	cmd.AddCommand(lockInstallCommand(), lockUninstallCommand())
	return cmd
}

func lockInstallCommand() *cobra.Command {
	var flags lockFlags
	var unit bootunit.Unit
	cmd := &cobra.Command{
		Use:   "install",
		Short: "Have systemd lock this node each time that it boots",
		Long: `Writes a systemd unit that runs "lock" before the kubelet, and a copy of this
program for it to run:

  ` + strings.Join(bootunit.Paths(), "\n  ") + `

The kubelet requires the unit: should the lock fail, the node does not become Ready,
rather than let pods leave with its address. The node's own iptables is used. The
unit works from the next boot on. Give the flags that the agent gets.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := flags.lockOptions().Validate(); err != nil {
				return err
			}
			program, err := os.Executable()
			if err != nil {
				return err
			}
			unit.Args = []string{"lock"}
			cmd.Flags().Visit(func(f *pflag.Flag) {
				if !slices.Contains([]string{"root", "before"}, f.Name) {
					unit.Args = append(unit.Args, "--"+f.Name+"="+f.Value.String())
				}
			})
			return unit.Install(program)
		},
	}
	f := cmd.Flags()
	flags.add(f)
	addUnitFlags(f, &unit)
	return cmd
}

func lockUninstallCommand() *cobra.Command {
	var unit bootunit.Unit
	cmd := &cobra.Command{
		Use:   "uninstall",
		Short: "Take off what \"lock install\" wrote",
		Long: `Deletes the unit and the program that "lock install" wrote, and nothing else. A lock
that is in place stays until the agent, or "cleanup", takes it off.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return unit.Uninstall() },
	}
	addUnitFlags(cmd.Flags(), &unit)
	return cmd
}

func addUnitFlags(f *pflag.FlagSet, u *bootunit.Unit) {
	f.StringVar(&u.Root, "root", "/", "`directory` in which the node's file system is seen")
	f.StringSliceVar(&u.Before, "before", []string{"kubelet.service"},
		"`units` that start pods, such as k3s.service, with commas between: they start after the lock, and not without it")
}
