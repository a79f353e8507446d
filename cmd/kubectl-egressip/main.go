// Command kubectl-egressip is a kubectl plugin that explains egress IPs. It
// reads the cluster's objects and decides with the same code as controller and
// agents, so that it also answers while those do not run.
//
// It changes nothing, and a command runs in one goroutine.
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
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/clientcmd"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	ctrl.SetLogger(logr.Discard()) // errors are returned, and printed once
	if err := rootCommand(os.Stdout, os.Stderr).ExecuteContext(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "error: %v\n", err)
		return 1
	}
	return 0
}

// rootCommand returns the command with its subcommands. Its flags choose a cluster,
// as those of kubectl do.
func rootCommand(out, errOut io.Writer) *cobra.Command {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	overrides := &clientcmd.ConfigOverrides{}
	config := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, overrides)
	root := &cobra.Command{
		Use:           "kubectl-egressip",
		Short:         "Explain egress IPs",
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
		&cobra.Command{
			Use:   "explain [namespace]",
			Short: "Explain why namespaces have or lack their egress IPs, and what to do",
			Example: `  kubectl egressip explain        # every namespace that requests egress IPs
  kubectl egressip explain shop   # one namespace`,
			Args: cobra.MaximumNArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				o, err := read(cmd.Context(), config)
				if err != nil {
					return err
				}
				namespace := ""
				if len(args) > 0 {
					namespace = args[0]
				}
				return explain(out, o, namespace)
			},
		},
		&cobra.Command{
			Use:   "status",
			Short: "Show each host with its egress IPs, and what is wrong",
			Args:  cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				o, err := read(cmd.Context(), config)
				if err != nil {
					return err
				}
				return status(out, o)
			},
		},
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

// read gets the objects that the decisions depend on from the API server.
func read(ctx context.Context, config clientcmd.ClientConfig) (egress.Objects, error) {
	o, _, err := connect(ctx, config)
	return o, err
}

// connect is read, and returns the client that it read with.
func connect(ctx context.Context, config clientcmd.ClientConfig) (egress.Objects, client.Reader, error) {
	cfg, err := config.ClientConfig()
	if err != nil {
		return egress.Objects{}, nil, err
	}
	scheme := runtime.NewScheme()
	if err := errors.Join(corev1.AddToScheme(scheme), networkingv1.AddToScheme(scheme), v1.AddToScheme(scheme)); err != nil {
		return egress.Objects{}, nil, err
	}
	c, err := client.New(cfg, client.Options{Scheme: scheme})
	if err != nil {
		return egress.Objects{}, nil, err
	}
	var netNamespaces v1.NetNamespaceList
	var hostSubnets v1.HostSubnetList
	if err := c.List(ctx, &netNamespaces); err != nil {
		return egress.Objects{}, nil, fmt.Errorf("list NetNamespaces: %w", err)
	}
	if err := c.List(ctx, &hostSubnets); err != nil {
		return egress.Objects{}, nil, fmt.Errorf("list HostSubnets: %w", err)
	}
	return egress.Objects{NetNamespaces: netNamespaces.Items, HostSubnets: hostSubnets.Items}, c, nil
}
