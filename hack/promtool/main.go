// Command promtool prints the path of Prometheus' promtool, which it takes out of Debian's package
// if it is not installed.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/egressip-operator/egressip-operator/internal/testenv/debian"
)

func main() {
	path, err := debian.Program(context.Background(), "prometheus", "usr/bin/promtool")
	if err != nil {
		fmt.Fprintln(os.Stderr, "promtool:", err)
		os.Exit(1)
	}
	fmt.Println(path)
}
