// Command mutants shows that tests can fail. It plants mistakes from a list, one at a
// time, and expects the test that is named for each to fail. A mutant that survives,
// does not compile, or no longer matches the code is an error.
//
// The working tree is not changed: the go command reads the mutated file from
// elsewhere (-overlay). Run the tests first: one that fails without a mutant would
// appear to notice all of its mutants.
//
//	go run ./hack/mutants [-only name] [-package ./pkg/egress] [-after name] [-jobs 2] [-checks 3000]
//
// All of them take hours: -package plants those of one package, -after goes on behind
// the one that was last, and -jobs plants several at the same time.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

func main() { os.Exit(status()) }

func status() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		return 1
	}
	return 0
}

// options are the flags.
type options struct {
	only string
	// pkg is the package whose mutants are planted, after the one that was planted last;
	// empty for all.
	pkg, after string
	// jobs is how many are planted at a time, each in a copy of its own.
	jobs int
	// checks is how many clusters each property draws; seed makes the draw the
	// same in each run.
	checks, seed int
}

func run(ctx context.Context, arguments []string, out io.Writer) error {
	var o options
	flags := flag.NewFlagSet("mutants", flag.ContinueOnError)
	flags.StringVar(&o.only, "only", "", "plant only the mutant of this name")
	flags.StringVar(&o.pkg, "package", "", "plant only the mutants of this package, such as ./pkg/egress")
	flags.StringVar(&o.after, "after", "", "begin behind the mutant of this name, to go on where a run ended")
	flags.IntVar(&o.jobs, "jobs", 1, "number of mutants that are planted at the same time")
	flags.IntVar(&o.checks, "checks", 3000, "number of clusters that each property draws")
	flags.IntVar(&o.seed, "seed", 1, "seed of the random clusters")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q: give -only with the name of a mutant", flags.Arg(0))
	}
	root, err := moduleRoot(ctx)
	if err != nil {
		return err
	}
	chosen, err := o.choose(mutants())
	if err != nil {
		return err
	}
	// Each line as soon as it is known: the whole takes hours.
	const line = "%-24s %-48s %-12s %s\n"
	fmt.Fprintf(out, line, "MUTANT", "TEST", "OUTCOME", "SECONDS")
	var mu sync.Mutex
	var errs []error
	var g errgroup.Group
	g.SetLimit(max(o.jobs, 1))
	for _, m := range chosen {
		g.Go(func() error {
			start := time.Now()
			err := kill(ctx, root, m, o)
			mu.Lock()
			defer mu.Unlock()
			outcome := "killed"
			if err != nil {
				outcome = "NOT KILLED"
				errs = append(errs, fmt.Errorf("%s: %w", m.name, err))
			}
			fmt.Fprintf(out, line, m.name, m.test, outcome, fmt.Sprintf("%.1f", time.Since(start).Seconds()))
			return nil
		})
	}
	_ = g.Wait() // the errors are in errs
	fmt.Fprintf(out, "%d planted, %d killed\n", len(chosen), len(chosen)-len(errs))
	return errors.Join(errs...)
}

// choose returns the mutants that the flags name.
func (o options) choose(all []mutant) ([]mutant, error) {
	if o.after != "" {
		last := slices.IndexFunc(all, func(m mutant) bool { return m.name == o.after })
		if last < 0 {
			return nil, fmt.Errorf("-after: no mutant is named %q", o.after)
		}
		all = all[last+1:]
	}
	chosen := slices.DeleteFunc(slices.Clone(all), func(m mutant) bool {
		return o.only != "" && o.only != m.name || o.pkg != "" && filepath.Clean(o.pkg) != filepath.Clean(m.pkg)
	})
	if len(chosen) == 0 {
		return nil, fmt.Errorf("no mutant has name %q and package %q, each if given, behind %q", o.only, o.pkg, o.after)
	}
	return chosen, nil
}

func moduleRoot(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOMOD: %w", err)
	}
	return filepath.Dir(strings.TrimSpace(string(out))), nil
}

// kill plants the mutant and returns an error unless the test fails.
func kill(ctx context.Context, root string, m mutant, o options) error {
	dir, err := os.MkdirTemp("", "mutant-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	overlay, err := m.plant(root, dir)
	if err != nil {
		return err
	}
	binary := filepath.Join(dir, "mutant.test")
	if out, err := command(ctx, root, "go", "test", "-c", "-overlay", overlay, "-o", binary, m.pkg); err != nil {
		return fmt.Errorf("does not compile: %w\n%s", err, out)
	}
	// The test runs where go test would run it, for its testdata.
	flags := []string{"-test.run", "^" + m.test + "$", "-test.timeout", "5m"}
	if !m.plain {
		flags = append(flags, fmt.Sprintf("-rapid.checks=%d", o.checks), fmt.Sprintf("-rapid.seed=%d", o.seed), "-rapid.nofailfile")
	}
	// A test that builds a program builds the mutated one.
	out, err := command(ctx, filepath.Join(root, m.pkg), "env", append([]string{"GOFLAGS=-overlay=" + overlay, binary}, flags...)...)
	var exit *exec.ExitError
	switch {
	case err == nil && bytes.Contains(out, []byte("no tests to run")):
		return fmt.Errorf("there is no test %s", m.test)
	case err == nil:
		return fmt.Errorf("%s does not notice it", m.test)
	case !errors.As(err, &exit):
		return err
	case !bytes.Contains(out, []byte("--- FAIL: "+m.test)):
		return fmt.Errorf("%s did not fail, the program did: %w\n%s", m.test, err, out)
	}
	return nil
}

func command(ctx context.Context, dir, name string, arguments ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, arguments...)
	cmd.Dir = dir
	return cmd.CombinedOutput()
}

// mutant is a mistake that a change might make.
type mutant struct {
	name string
	// pkg and test are the package, as a path below the module's root, and the
	// test that must notice.
	pkg, test string
	// plain: no test of the package draws at random, so that it knows no flags for that.
	plain bool
	// edits are made in files of the package.
	edits []edit
}

// edit replaces a piece of a file that occurs in it once.
type edit struct{ file, old, new string }

// plant writes the mutated files and an overlay for the go command.
func (m mutant) plant(root, dir string) (string, error) {
	contents := make(map[string]string)
	for _, e := range m.edits {
		path := filepath.Join(root, m.pkg, e.file)
		text, ok := contents[path]
		if !ok {
			data, err := os.ReadFile(path)
			if err != nil {
				return "", err
			}
			text = string(data)
		}
		if n := strings.Count(text, e.old); n != 1 {
			return "", fmt.Errorf("%s contains %d times, not once: %s", e.file, n, e.old)
		}
		contents[path] = strings.Replace(text, e.old, e.new, 1)
	}
	var overlay struct{ Replace map[string]string }
	overlay.Replace = make(map[string]string)
	for path, text := range contents {
		// Files of several directories may have one name.
		mutated := filepath.Join(dir, fmt.Sprintf("%d-%s", len(overlay.Replace), filepath.Base(path)))
		if err := os.WriteFile(mutated, []byte(text), 0o600); err != nil {
			return "", err
		}
		overlay.Replace[path] = mutated
	}
	data, err := json.Marshal(overlay)
	if err != nil {
		return "", err
	}
	name := filepath.Join(dir, "overlay.json")
	return name, os.WriteFile(name, data, 0o600)
}
