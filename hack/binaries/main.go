// Command binaries builds the pinned programs that are missing and prints the
// directory that holds them.
//
//	go run ./hack/binaries [-module DIR] [cluster | apiserver | lint | NAME]...
//
// Without arguments it builds all of them. -module names another module that pins them:
// hack/kubernetes-1.31 has the oldest API server that is supported.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/internal/testenv/binaries"
)

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	flags := flag.NewFlagSet("binaries", flag.ContinueOnError)
	module := flags.String("module", "", "directory of the module that pins the programs")
	if flags.Parse(args) != nil {
		return 2
	}
	args = flags.Args()
	if len(args) == 0 {
		args = []string{"cluster", "lint"}
	}
	var names []string
	for _, arg := range args {
		switch arg {
		case "cluster":
			names = append(names, binaries.Cluster()...)
		case "apiserver":
			names = append(names, binaries.APIServer()...)
		case "lint":
			names = append(names, binaries.Lint()...)
		default:
			names = append(names, arg)
		}
	}
	dir, err := binaries.Build(ctx, binaries.Options{Names: names, Module: *module, Progress: os.Stderr})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println(dir)
	return 0
}
