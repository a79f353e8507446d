package command

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/egressip-operator/egressip-operator/pkg/agent"
)

func cleanupCommand() *cobra.Command {
	o := agent.DefaultKernelOptions()
	var logging loggingOptions
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "cleanup",
		Short: "Remove everything that an agent configured on this node",
		Long: `Removes everything that an agent configured on this node: egress IPs, the overlay
device, tc programs and maps, policy routes, sets, and rules in nftables and in both iptables backends.
Nothing else is touched. Stop the agent first, and use the flags that it ran with.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, err := logging.start(cmd)
			if err != nil {
				return err
			}
			if !dryRun {
				return agent.Cleanup(ctx, o)
			}
			leftovers, err := agent.Leftovers(ctx, o)
			for _, line := range leftovers {
				fmt.Fprintln(cmd.OutOrStdout(), line)
			}
			return err
		},
	}
	f := cmd.Flags()
	logging.add(f)
	addKernelFlags(f, &o)
	f.BoolVar(&dryRun, "dry-run", false, "list what would be removed, one object per line, and remove nothing")
	return cmd
}
