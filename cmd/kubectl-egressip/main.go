// Command kubectl-egressip is a kubectl plugin that explains egress IPs. It
// reads the cluster's objects and decides with the same code as controller and
// agents, so that it also answers while those do not run.
//
// It changes nothing but one annotation of a Node (evacuate, restore), and a command
// runs in one goroutine.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"k8s.io/client-go/tools/clientcmd"
	ctrl "sigs.k8s.io/controller-runtime"
)

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	ctrl.SetLogger(logr.Discard()) // errors are returned, and printed once
	return exitCode(rootCommand(os.Stdout, os.Stderr).ExecuteContext(ctx), os.Stderr)
}

// exitCode returns the program's, and prints an error, unless that only says the code.
func exitCode(err error, errOut io.Writer) int {
	var exit exitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.code
	}
	fmt.Fprintf(errOut, "error: %v\n", err)
	return 1
}

// rootCommand returns the command with its subcommands. Its flags choose a cluster,
// as those of kubectl do.
func rootCommand(out, errOut io.Writer) *cobra.Command {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	overrides := &clientcmd.ConfigOverrides{}
	config := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, overrides)
	root := &cobra.Command{
		Use:           "kubectl-egressip",
		Short:         "Explain egress IPs, and work with them day by day",
		Annotations:   map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl egressip"},
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetOut(out)
	root.SetErr(errOut)
	flags := root.PersistentFlags()
	flags.StringVar(&rules.ExplicitPath, clientcmd.RecommendedConfigPathFlag, "", "`file` with clusters and credentials; KUBECONFIG by default")
	names := clientcmd.RecommendedConfigOverrideFlags("")
	names.ContextOverrideFlags.Namespace = clientcmd.FlagInfo{} // NetNamespaces and HostSubnets have none
	clientcmd.BindOverrideFlags(overrides, flags, names)
	root.AddCommand(
		convertCommand(out, errOut, config),
		explainCommand(out, config),
		planCommand(out, config),
		evacuateCommand(out, errOut, config),
		restoreCommand(out, errOut, config),
		bundleCommand(out, config),
		checkCommand(out, config),
		statusCommand(out, config),
		historyCommand(out, errOut, config),
		versionCommand(out),
		hostsCommand(out, config),
		pageCommand(out, errOut, config),
		&cobra.Command{
			Use:   "networks",
			Short: "Show which networks are inside the cluster, and where each is from",
			Args:  cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				o, c, err := connect(cmd.Context(), config)
				if err != nil {
					return err
				}
				return networks(out, o, readFacts(cmd.Context(), c))
			},
		},
	)
	return root
}
