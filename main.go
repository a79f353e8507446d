// Command egressip-operator gives the namespaces of a Kubernetes cluster egress
// IPs, configured by the objects of OpenShift SDN. It is one program with a
// subcommand for each place where it runs.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/egressip-operator/egressip-operator/internal/command"
)

// version is stamped by the linker: -X main.version=v1.2.3.
var version string

func main() { os.Exit(run()) }

// run is main with an exit code, so that deferred calls run before the program exits.
func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	// A second signal ends the program at once.
	context.AfterFunc(ctx, stop)

	cmd := command.New(version)
	if err := cmd.ExecuteContext(ctx); err != nil {
		fmt.Fprintf(cmd.ErrOrStderr(), "error: %v\n", err)
		return 1
	}
	return 0
}
