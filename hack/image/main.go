// Command image makes the operator's container image without Docker and
// without a registry, as a docker-archive:
//
//	image [-binary build/egressip-operator] [-tag egressip-operator:dev] [-o build/image.tar]
//
// Its contents are those that package imagefiles collects on this machine. With -tree DIRECTORY it
// writes these to a directory instead: that is how the Dockerfile has them.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"

	"github.com/egressip-operator/egressip-operator/hack/dockerarchive"
	"github.com/egressip-operator/egressip-operator/hack/imagefiles"
	"github.com/egressip-operator/egressip-operator/hack/modules"
)

func main() { os.Exit(run()) }

// options say what is made.
type options struct{ binary, tag, output, tree string }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var o options
	flag.StringVar(&o.binary, "binary", "build/egressip-operator", "the operator's static binary")
	flag.StringVar(&o.tag, "tag", "egressip-operator:dev", "the image's name")
	flag.StringVar(&o.output, "o", "build/image.tar", "the docker-archive to write")
	flag.StringVar(&o.tree, "tree", "", "write the image's files to this directory, and no archive")
	flag.Parse()
	made, err := o.write(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		return 1
	}
	fmt.Printf("%s: %s\n", made, o.tag)
	return 0
}

// write makes the image, and returns where it is.
func (o options) write(ctx context.Context) (string, error) {
	root, err := imagefiles.Machine(ctx, runtime.GOARCH)
	if err != nil {
		return "", err
	}
	licence, err := os.ReadFile("LICENSE")
	if err != nil {
		return "", fmt.Errorf("run this at the top of the repository: %w", err)
	}
	linked, err := modules.Of(ctx, o.binary)
	if err != nil {
		return "", err
	}
	image, err := imagefiles.Image(root, o.tag, o.binary, modules.Licences(licence, linked))
	if err != nil {
		return "", err
	}
	if o.tree != "" {
		return o.tree, imagefiles.Tree(o.tree, image)
	}
	return o.output, dockerarchive.Write(o.output, image)
}
