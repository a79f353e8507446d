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

// lockFlags are the flags of "lock", which "lock install" writes into the unit.
type lockFlags struct {
	options                                  agent.LockOptions
	clusterCIDRs, serviceCIDRs, excludeCIDRs cidrsValue
}

func (l *lockFlags) add(f *pflag.FlagSet) {
	l.options.Kernel = agent.DefaultKernelOptions()
	addKernelFlags(f, &l.options.Kernel)
	addBackendFlag(f, &l.options.Kernel)
	f.Var(&l.clusterCIDRs, "cluster-cidrs", "pod networks of the cluster as comma-separated `CIDRs`: their traffic to the outside is dropped")
	f.Var(&l.serviceCIDRs, "service-cidrs", "service networks as comma-separated `CIDRs`: traffic to them is let through")
	f.Var(&l.excludeCIDRs, "exclude-cidrs", "further networks as comma-separated `CIDRs` that pods may send to")
	f.Var((*addressValue)(&l.options.HostIP), "host-ip", "`address` of this node; by default the one that its default route uses")
	f.Uint16Var(&l.options.ProbePort, "probe-port", agent.DefaultProbePort,
		"UDP `port` on which hosts health-check each other; 0 for none")
}

// lockOptions returns what the flags say.
func (l *lockFlags) lockOptions() agent.LockOptions {
	o := l.options
	o.Pods, o.Services = l.clusterCIDRs, slices.Concat(l.serviceCIDRs, l.excludeCIDRs)
	return o
}

func lockCommand() *cobra.Command {
	var logging loggingOptions
	var flags lockFlags
	cmd := &cobra.Command{
		Use:   "lock",
		Short: "Drop the egress traffic of this node's pods until the agent knows them",
		Long: `Drops all traffic that leaves the cluster from an address of a pod network, until the
agent takes over and lets each pod send. It is for a node that boots: if it runs before
the kubelet, as "lock install" arranges, no pod can ever send with the node's address.
It contacts no API server, and needs root, and iptables where --backend says so. It does nothing on a node that
an agent has served since the node booted. Use the flags that the agent runs with.`,
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
		Short: "Let systemd lock this node each time it boots",
		Long: `Writes a systemd unit that runs "lock" before the kubelet, and a copy of this
program for it to run:

  ` + strings.Join(bootunit.Paths(), "\n  ") + `

The kubelet requires the unit: if the lock fails, the node does not become Ready, so
that no pod sends with the node's address. Where --backend is iptables, the unit uses the node's
own. It takes effect at the next boot. Use the flags that the agent runs with.`,
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
				switch {
				case slices.Contains([]string{"root", "before"}, f.Name):
				case f.Name == formerBackendFlag:
					unit.Args = append(unit.Args, "--backend="+flags.options.Kernel.Backend)
				default:
					unit.Args = append(unit.Args, "--"+f.Name+"="+f.Value.String())
				}
			})
			unit.IPTables = strings.HasPrefix(flags.options.Kernel.Backend, "iptables")
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
		Short: "Remove what \"lock install\" wrote",
		Long: `Deletes the unit and the program that "lock install" wrote, and nothing else. A lock
that is in place stays until the agent or "cleanup" removes it.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return unit.Uninstall() },
	}
	addUnitFlags(cmd.Flags(), &unit)
	return cmd
}

func addUnitFlags(f *pflag.FlagSet, u *bootunit.Unit) {
	f.StringVar(&u.Root, "root", "/", "`directory` where the node's file system is mounted")
	f.StringSliceVar(&u.Before, "before", []string{"kubelet.service"},
		"comma-separated `units` that start pods, such as k3s.service: they start after the lock, and only if it succeeds")
}
