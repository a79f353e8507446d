package command

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/egressip-operator/egressip-operator/internal/installcheck"
)

func checkCommand() *cobra.Command {
	var common commonOptions
	var namespace string
	var within time.Duration
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check that an install works, as \"helm test\" does",
		Long: `Waits until a controller leads, the agents of all nodes are ready, and no HostSubnet says
that its agent is not. Prints what is missing, and fails if that is so in the end.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if within <= 0 {
				return fmt.Errorf("--within %s: give a time greater than 0", within)
			}
			ctx, cfg, err := common.start(cmd)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(ctx, within)
			defer cancel()
			err = installcheck.Wait(ctx, cfg, namespace, func(missing error) { fmt.Fprintf(cmd.OutOrStdout(), "waiting:\n%v\n", missing) })
			if err != nil {
				return fmt.Errorf("the install in namespace %s does not work:\n%w", namespace, err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "the install in namespace %s works\n", namespace)
			return nil
		},
	}
	f := cmd.Flags()
	common.add(f)
	f.StringVar(&namespace, "namespace", "egressip-system", "`namespace` of the install")
	f.DurationVar(&within, "within", 2*time.Minute, "how long to wait for what is missing")
	return cmd
}
