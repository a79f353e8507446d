package command

import (
	"github.com/spf13/cobra"
)

// New returns the program's root command. version is the one that the linker
// stamped, or "" where it stamped none.
func New(version string) *cobra.Command {
	version = buildVersion(version)
	root := &cobra.Command{
		Use:   "egressip-operator",
		Short: "Egress IPs for any Kubernetes cluster, configured by the objects of OpenShift SDN",
		Long: `Gives the traffic that a namespace sends out of the cluster its own source address:
NetNamespace objects request egress IPs, and HostSubnet objects claim them for nodes.

One controller serves the cluster, and an agent runs on every node.`,
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(controllerCommand(version), agentCommand(version), lockCommand(), checkCommand(), cleanupCommand(), versionCommand(version))
	return root
}
