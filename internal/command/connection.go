package command

import (
	"context"
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/egressip-operator/egressip-operator/internal/apiconn"
)

// commonOptions are the flags of commands that talk to the API server.
type commonOptions struct {
	loggingOptions
	kubeconfig string
}

func (o *commonOptions) add(f *pflag.FlagSet) {
	o.loggingOptions.add(f)
	f.StringVar(&o.kubeconfig, "kubeconfig", os.Getenv("KUBECONFIG"),
		"`file` with the address of the API server and credentials; KUBECONFIG by default, or else the pod's service account")
}

func (o *commonOptions) start(cmd *cobra.Command) (context.Context, *rest.Config, error) {
	ctx, err := o.loggingOptions.start(cmd)
	if err != nil {
		return nil, nil, err
	}
	if err := apiconn.CheckHealth(); err != nil {
		return nil, nil, err
	}
	if o.kubeconfig != "" {
		cfg, err := clientcmd.BuildConfigFromFlags("", o.kubeconfig)
		if err != nil {
			return nil, nil, fmt.Errorf("--kubeconfig %s: %w", o.kubeconfig, err)
		}
		return ctx, cfg, nil
	}
	cfg, err := rest.InClusterConfig()
	if err != nil {
		return nil, nil, fmt.Errorf("--kubeconfig is empty, and this is not a pod with a service account: give a kubeconfig: %w", err)
	}
	return ctx, cfg, nil
}
