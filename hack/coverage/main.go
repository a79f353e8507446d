// Program coverage prints how many of the statements of each package a coverage
// profile of the Go tool saw run, and the files of the shipped programs that it saw
// least of:
//
//	coverage [-least 5] [build/cover.out]
//
// Generated files are left out. Programs and packages below test/ and hack/ run
// outside of the unit tests or check the repository: they are in the table, but not
// among the least covered files, and neither are files of fewer than ten statements.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
)

func main() { os.Exit(status()) }

func status() int {
	least := flag.Int("least", 5, "how many of the least covered files to name")
	module := flag.String("module", "github.com/egressip-operator/egressip-operator", "path of the module")
	flag.Parse()
	path := "build/cover.out"
	if flag.NArg() > 0 {
		path = flag.Arg(0)
	}
	if err := run(os.Stdout, path, *module, *least); err != nil {
		fmt.Fprintln(os.Stderr, "coverage:", err)
		return 1
	}
	return 0
}

func run(out io.Writer, path, module string, least int) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("%w: \"make test-unit\" and \"make race\" write it", err)
	}
	defer f.Close()
	files, err := read(f, module)
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	return report(out, files, least)
}
