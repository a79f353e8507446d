// Command binaries builds the pinned programs that are missing and prints the
// directory that holds them.
//
//	go run ./hack/binaries [cluster | apiserver | lint | NAME]...
//
// Without arguments it builds all of them.
package main

import (
	"context"
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
	dir, err := binaries.Build(ctx, binaries.Options{Names: names, Progress: os.Stderr})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println(dir)
	return 0
}
