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
		Short: "Egress IPs for any Kubernetes cluster, with the objects of OpenShift SDN",
		Long: `Gives a namespace's traffic out of the cluster a source address of its own:
NetNamespace objects request egress IPs, HostSubnet objects claim them for nodes.

The controller runs once in the cluster, the agent on every node.`,
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(controllerCommand(version), agentCommand(version), lockCommand(), cleanupCommand(), versionCommand(version))
	return root
}
