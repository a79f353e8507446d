// Program smoke runs each fuzz test of the module for a short time, and each
// benchmark once, to see that they still work: "go test" alone runs neither.
//
//	smoke [-fuzztime 10s] [-benchmarks=false] [directory]...
//
// It finds them in the sources below the directories, those of the module by
// default, and runs each package that has some. A fuzz test that finds a failure
// leaves its input below testdata/fuzz, as "go test -fuzz" does.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"time"
)

func main() { os.Exit(status()) }

func status() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	fuzzTime := flag.Duration("fuzztime", 10*time.Second, "how long each fuzz test runs")
	benchmarks := flag.Bool("benchmarks", true, "run each benchmark once")
	flag.Parse()
	dirs := flag.Args()
	if len(dirs) == 0 {
		dirs = []string{"."}
	}
	packages, err := find(dirs...)
	if err == nil {
		err = run(ctx, os.Stdout, commands(packages, *fuzzTime, *benchmarks))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "smoke:", err)
		return 1
	}
	return 0
}

// commands returns the arguments of the go command, one list for each call: it
// fuzzes one test at a time.
func commands(packages []pkg, fuzzTime time.Duration, benchmarks bool) (calls [][]string) {
	var withBenchmarks []string
	for _, p := range packages {
		for _, name := range p.fuzz {
			calls = append(calls, []string{"test", "-run", "^$", "-fuzz", "^" + name + "$", "-fuzztime", fuzzTime.String(), p.dir})
		}
		if len(p.benchmarks) > 0 {
			withBenchmarks = append(withBenchmarks, p.dir)
		}
	}
	if benchmarks && len(withBenchmarks) > 0 {
		calls = append(calls, append([]string{"test", "-run", "^$", "-bench", ".", "-benchtime", "1x"}, withBenchmarks...))
	}
	return calls
}

// run runs all commands, also after one has failed.
func run(ctx context.Context, out io.Writer, calls [][]string) error {
	if len(calls) == 0 {
		return errors.New("there is neither a fuzz test nor a benchmark")
	}
	var errs []error
	for _, args := range calls {
		fmt.Fprintln(out, "go", strings.Join(args, " "))
		var said bytes.Buffer
		cmd := exec.CommandContext(ctx, "go", args...)
		cmd.Stdout = io.MultiWriter(out, &said)
		cmd.Stderr = cmd.Stdout
		if err := cmd.Run(); err != nil && !overtime(said.String()) {
			errs = append(errs, fmt.Errorf("go %s: %w", strings.Join(args, " "), err))
		}
	}
	return errors.Join(errs...)
}

// overtime reports whether a fuzz test failed only because its time was over: the go
// command now and then calls that a failure, where a worker is busy at that moment. It
// names the input of any other failure.
func overtime(said string) bool {
	return strings.Contains(said, "\n    context deadline exceeded\n") && strings.Count(said, "--- FAIL") == 1 &&
		!strings.Contains(said, "Failing input")
}
