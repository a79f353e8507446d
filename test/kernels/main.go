// Command kernels runs the tests that ask a kernel in other kernels than this machine's:
// Debian's, each in a virtual machine that qemu emulates, with this machine's root
// read-only below an overlay in memory.
//
// It installs qemu, fetches the newest kernel package of each kind and unpacks it below
// the user's cache folder; kernels are never installed. The test programs are compiled
// here. A guest runs them one after the other, each with a time limit, and powers off.
// All that a guest is told is in its plan; see the package of that name.
//
// The suites "story" and "story ipvs" bring up a whole cluster in a guest. They run only where they
// are named.
//
// It prints a table of what passed, and fails if anything did not. The output of every
// program, and each console, stay in the output folder.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/internal/testenv/binaries"
	"github.com/egressip-operator/egressip-operator/test/kernels/internal/plan"
	"github.com/egressip-operator/egressip-operator/test/testbed"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM, unix.SIGHUP)
	o := options{}
	flag.StringVar(&o.kernels, "kernels", "", "which ones, by name, comma-separated; all by default")
	flag.StringVar(&o.variants, "variants", "", "which variants; all by default")
	flag.StringVar(&o.suites, "suites", "", "which suites; all but those of clusters by default; driver* stands for those whose names begin so")
	flag.StringVar(&o.tests, "run", "", "run the tests that match, instead of those that the suites name")
	flag.DurationVar(&o.limit, "limit", 0, "the time limit of each program, instead of that of its suite")
	flag.StringVar(&o.out, "out", "build/kernels", "the folder for outputs")
	flag.Float64Var(&o.patience, "patience", 10, "how many times slower than this machine the tests take the guest to be")
	flag.IntVar(&o.memory, "memory", 3072, "the memory of a guest, in MiB")
	flag.Parse()
	err := o.run(ctx, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "kernels:", err)
		os.Exit(1)
	}
}

type options struct {
	kernels, variants, suites, tests, out string
	patience                              float64
	memory                                int
	limit                                 time.Duration
}

// column is what ran in one kernel.
type column struct {
	title      string
	results    []result
	complaints []string
}

func (o options) run(ctx context.Context, w io.Writer) (err error) {
	chosen, errKernels := choose(kernels(), func(k kernel) string { return k.name }, o.kernels)
	kinds, errVariants := choose(variants(), func(v variant) string { return v.name }, o.variants)
	tests, errSuites := choose(suites(), func(s suite) string { return s.name }, o.suites)
	if err := errors.Join(errKernels, errVariants, errSuites); err != nil {
		return err
	}
	if o.suites == "" {
		tests = slices.DeleteFunc(tests, suite.isCluster)
	}
	work, err := os.MkdirTemp("", "kernels-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	b, err := prepareBench(ctx, work, chosen)
	if err != nil {
		return err
	}
	if err := b.compile(ctx, tests); err != nil {
		return err
	}
	if err := b.prepareClusters(ctx, tests); err != nil {
		return err
	}
	var columns []column
	var errs []error
	for _, k := range chosen {
		for _, v := range kinds {
			c, err := o.boot(ctx, w, b, k, v, tests)
			if err != nil {
				errs = append(errs, fmt.Errorf("%s, %s: %w", k.name, v.name, err))
			}
			columns = append(columns, c)
			if ctx.Err() != nil {
				return errors.Join(append(errs, ctx.Err())...)
			}
		}
	}
	writeTable(w, columns)
	for _, c := range columns {
		for _, r := range c.results {
			if !r.good() {
				errs = append(errs, fmt.Errorf("%s: %s: %s", c.title, r.suite, r))
			}
		}
		if len(c.complaints) > 0 {
			errs = append(errs, fmt.Errorf("%s: the kernel complains: %s", c.title, strings.Join(c.complaints, "; ")))
		}
	}
	return errors.Join(errs...)
}

// bench is what all guests need.
type bench struct {
	repository, work string
	archive          archive
	// testbeds is the folder in which test beds have their files.
	testbeds    string
	kmod, first string
}

func prepareBench(ctx context.Context, work string, chosen []kernel) (b bench, err error) {
	b = bench{work: work, first: filepath.Join(work, "init")}
	if b.repository, err = binaries.Repository(); err != nil {
		return b, err
	}
	if err := install(ctx, map[string]string{"qemu-system-x86_64": "qemu-system-x86", "xz": "xz-utils", "dpkg-deb": "dpkg"}); err != nil {
		return b, err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return b, err
	}
	if b.testbeds, err = testbed.Base(); err != nil {
		return b, err
	}
	releases := []string{"bookworm"}
	for _, k := range chosen {
		releases = append(releases, k.release)
	}
	slices.Sort(releases)
	if b.archive, err = openArchive(ctx, filepath.Join(cache, "egressip-operator", "kernels"), slices.Compact(releases)...); err != nil {
		return b, err
	}
	if b.kmod, err = b.archive.unpack(ctx, "kmod", "libkmod2"); err != nil {
		return b, err
	}
	_, err = output(ctx, b.repository, "go", "build", "-o", b.first, "./test/kernels/guest")
	return b, err
}

// program is where the compiled tests of a package are.
func (b bench) program(pkg string) string {
	return filepath.Join(b.work, strings.ReplaceAll(pkg, "/", "-")+".test")
}

func (b bench) compile(ctx context.Context, list []suite) error {
	for _, s := range list {
		if _, err := os.Stat(b.program(s.pkg)); err == nil {
			continue
		}
		if _, err := output(ctx, b.repository, "go", "test", "-c", "-o", b.program(s.pkg), "./"+s.pkg); err != nil {
			return err
		}
	}
	return nil
}

// boot runs suites in a kernel.
func (o options) boot(ctx context.Context, w io.Writer, b bench, k kernel, v variant, list []suite) (c column, err error) {
	c.title = k.name
	if v.refuse != nil {
		c.title += ", " + v.name
	}
	name, err := b.archive.newest(ctx, k.pattern)
	if err != nil {
		return c, err
	}
	g := guest{guestProgram: b.first, kmod: b.kmod, work: b.work, memory: o.memory}
	if g.tree, err = b.archive.unpack(ctx, name); err != nil {
		return c, err
	}
	if g.release, err = release(g.tree); err != nil {
		return c, err
	}
	if err := b.depmod(ctx, g); err != nil {
		return c, err
	}
	out, err := filepath.Abs(o.out)
	if err != nil {
		return c, err
	}
	if g.out, err = emptied(out, strings.ReplaceAll(k.name+" "+v.name, " ", "-")); err != nil {
		return c, err
	}
	p := plan.Plan{Refuse: v.refuse, Scratch: []string{b.testbeds}}
	list = slices.DeleteFunc(slices.Clone(list), func(s suite) bool { return !s.in(v) })
	for _, s := range list {
		g.memory = max(g.memory, s.memory)
		p.Runs = append(p.Runs, o.planned(b, s))
	}
	if len(list) == 0 {
		return c, nil
	}
	fmt.Fprintf(w, "%s (%s): %d programs\n", c.title, name, len(list))
	began := time.Now()
	errRun := g.run(ctx, p, w)
	fmt.Fprintf(w, "%s: over after %v\n", c.title, time.Since(began).Round(time.Second))
	for _, s := range list {
		r, err := readResult(g.out, s)
		errRun = errors.Join(errRun, err)
		c.results = append(c.results, r)
	}
	console, err := os.ReadFile(filepath.Join(g.out, "console.log"))
	c.complaints = complaints(console)
	c.title += " (" + g.release + ")"
	return c, errors.Join(errRun, err)
}

func (o options) planned(b bench, s suite) plan.Run {
	if o.limit > 0 {
		s.limit = o.limit
	}
	// A test program that ends by itself says where it stands.
	// It runs one test at a time: on an emulated machine, each is slow enough alone.
	args := []string{"-test.v", "-test.parallel", "1", "-test.timeout", (s.limit * 9 / 10).String()}
	if tests := s.tests; tests != "" || o.tests != "" {
		if o.tests != "" {
			tests = o.tests
		}
		args = append(args, "-test.run", tests)
	}
	if s.checks > 0 {
		args = append(args, fmt.Sprintf("-rapid.checks=%d", s.checks))
	}
	if s.skip != "" {
		args = append(args, "-test.skip", s.skip)
	}
	r := plan.Run{
		Name: s.file(), Program: b.program(s.pkg), Dir: filepath.Join(b.repository, s.pkg), Args: args,
		Env: []string{fmt.Sprintf("EGRESSIP_TEST_PATIENCE=%g", o.patience), "EGRESSIP_TEST_MATRIX=" + s.matrix}, Limit: s.limit,
	}
	b.inCluster(s, &r)
	return r
}

// depmod writes what modprobe reads, which the installation of a kernel would have done.
func (b bench) depmod(ctx context.Context, g guest) error {
	if _, err := os.Stat(filepath.Join(g.tree, "lib/modules", g.release, "modules.dep")); err == nil {
		return nil
	}
	depmod := filepath.Join(b.kmod, "depmod")
	if err := os.Symlink("bin/kmod", depmod); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	_, err := output(ctx, "", "env", "LD_LIBRARY_PATH="+filepath.Join(b.kmod, "lib/x86_64-linux-gnu"), depmod, "-b", g.tree, g.release)
	return err
}

// writeTable writes the results, a row for each suite.
func writeTable(w io.Writer, columns []column) {
	head, line := "| suite |", "|---|"
	var names []string
	for _, c := range columns {
		head, line = head+" "+c.title+" |", line+"---|"
		for _, r := range c.results {
			if !slices.Contains(names, r.suite) {
				names = append(names, r.suite)
			}
		}
	}
	fmt.Fprintf(w, "\n%s, patience as given\n\n%s\n%s\n", time.Now().UTC().Format(time.DateOnly), head, line)
	for _, name := range names {
		cells := []string{name}
		for _, c := range columns {
			cell := "-"
			if at := slices.IndexFunc(c.results, func(r result) bool { return r.suite == name }); at >= 0 {
				cell = c.results[at].String()
			}
			cells = append(cells, cell)
		}
		fmt.Fprintf(w, "| %s |\n", strings.Join(cells, " | "))
	}
}
