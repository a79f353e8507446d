package isolated

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// RunApart is Run for tests that take long: each top-level test runs in a process and
// in namespaces of its own, as many at the same time as -parallel says: by default, one for
// each processor.
//
// The output of a test is printed as a whole when it ends. What cannot be shared out,
// such as benchmarks, fuzzing and profiles, runs as with Run.
func RunApart(m *testing.M, prepare func() error) int {
	if !flag.Parsed() {
		flag.Parse()
	}
	if value("test.list") != "" {
		return m.Run() // nothing runs: nothing has to be isolated
	}
	if os.Getenv(inside) != "" || !divisible() {
		return Run(m, prepare)
	}
	tests, err := list()
	if err == nil && len(tests) == 0 {
		return Run(m, prepare) // which says that there are none
	}
	status := 1
	if err == nil {
		status, err = shareOut(tests)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "run each test in a process of its own:", err)
	}
	return status
}

// value returns what a flag of the test program is set to.
func value(name string) string {
	if f := flag.Lookup(name); f != nil {
		return f.Value.String()
	}
	return ""
}

// divisible reports whether each test can have a process of its own: whether all flags
// that are set mean the same then. -run does if it names top-level tests alone.
func divisible() bool {
	keeps := []string{
		"test.run", "test.v", "test.timeout", "test.count", "test.short", "test.parallel", "test.failfast", "test.paniconexit0",
		"test.coverprofile", "test.gocoverdir", "test.outputdir", "test.testlogfile", "test.fullpath",
	}
	all := !strings.Contains(value("test.run"), "/")
	flag.Visit(func(f *flag.Flag) {
		all = all && (slices.Contains(keeps, f.Name) || f.Value.String() == f.DefValue)
	})
	return all
}

// shareOut runs the tests and returns the exit status for the whole program.
func shareOut(tests []string) (int, error) {
	scratch, err := os.MkdirTemp("", "egressip-tests-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(scratch)
	limit, err := time.ParseDuration(value("test.timeout"))
	if err != nil {
		return 1, fmt.Errorf("read -test.timeout: %w", err)
	}
	workers, err := strconv.Atoi(value("test.parallel"))
	if err != nil {
		return 1, fmt.Errorf("read -test.parallel: %w", err)
	}
	r := &run{scratch: scratch, out: os.Stdout, began: time.Now(), limit: limit}
	queue := make(chan string)
	var all sync.WaitGroup
	for range workers {
		all.Go(func() {
			runtime.LockOSThread() // a process dies with the thread that started it
			for test := range queue {
				r.one(test)
			}
		})
	}
	for _, test := range tests {
		if r.stopped() {
			break
		}
		queue <- test
	}
	close(queue)
	all.Wait()
	return r.finish(tests)
}

// list returns the names of the tests that are asked for, in the order of the sources.
func list() ([]string, error) {
	pattern := value("test.run")
	if pattern == "" {
		pattern = "."
	}
	out, err := exec.Command("/proc/self/exe", "-test.list", pattern).Output() //nolint:gosec // this program itself
	if err != nil {
		return nil, fmt.Errorf("list the tests: %w", err)
	}
	names := strings.Fields(string(out))
	return slices.DeleteFunc(names, func(name string) bool { return strings.HasPrefix(name, "Benchmark") }), nil
}

// run is one run of all tests.
type run struct {
	scratch string
	began   time.Time
	limit   time.Duration

	mu     sync.Mutex
	out    io.Writer
	failed bool
}

// stopped reports whether no more tests are to start.
func (r *run) stopped() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failed && value("test.failfast") == "true"
}

// one runs one test and prints its output.
func (r *run) one(test string) {
	cmd := exec.Command("/proc/self/exe", append(os.Args[1:], r.flags(test)...)...) //nolint:gosec // this program itself
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	out, err := cmd.CombinedOutput()
	r.mu.Lock()
	defer r.mu.Unlock()
	_, _ = r.out.Write(withoutEnd(out))
	if err != nil {
		r.failed = true
		if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) {
			fmt.Fprintf(r.out, "start the process of %s (needs root): %v\n", test, err)
		} else if !exit.Exited() {
			fmt.Fprintf(r.out, "the process of %s: %v\n", test, err)
		}
	}
}

// flags are those that a test's process has beside those of this one; the last one of a
// name counts.
func (r *run) flags(test string) []string {
	flags := []string{"-test.run=^" + regexp.QuoteMeta(test) + "$"}
	if r.limit > 0 {
		// The time-out is one for all: what is left of it, and never 0, which is none.
		flags = append(flags, "-test.timeout="+max(time.Millisecond, r.limit-time.Since(r.began)).String())
	}
	for _, name := range []string{"test.coverprofile", "test.testlogfile"} {
		if value(name) != "" {
			flags = append(flags, "-"+name+"="+r.file(name, test))
		}
	}
	return flags
}

func (r *run) file(flag, test string) string { return filepath.Join(r.scratch, flag+"-"+test) }

// end is what a test program prints after its tests.
var end = regexp.MustCompile(`(?m)^\x16?(PASS|FAIL|coverage: .*)\n`)

// withoutEnd removes the verdict over one test, which is not that over all of them.
func withoutEnd(out []byte) []byte { return end.ReplaceAll(out, nil) }

// finish joins the files that the tests wrote, and prints the verdict over all of them.
func (r *run) finish(tests []string) (int, error) {
	for _, name := range []string{"test.coverprofile", "test.testlogfile"} {
		if to := value(name); to != "" {
			if err := r.join(name, to, tests); err != nil {
				return 1, err
			}
		}
	}
	if r.failed {
		fmt.Fprintln(r.out, "FAIL")
		return 1, nil
	}
	fmt.Fprintln(r.out, "PASS")
	return 0, nil
}

// join writes the files of all tests into one, whose first line they have in common. A
// test that was ended by a signal has none.
func (r *run) join(name, to string, tests []string) error {
	var whole bytes.Buffer
	for _, test := range tests {
		b, err := os.ReadFile(r.file(name, test))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("read what %s wrote for -%s: %w", test, name, err)
		}
		first, rest, _ := bytes.Cut(b, []byte("\n"))
		if whole.Len() == 0 {
			whole.Write(append(first, '\n'))
		}
		whole.Write(rest)
	}
	if dir := value("test.outputdir"); dir != "" && !filepath.IsAbs(to) {
		to = filepath.Join(dir, to)
	}
	if err := os.WriteFile(to, whole.Bytes(), 0o644); err != nil { //nolint:gosec // as the Go tool writes it
		return fmt.Errorf("write -%s: %w", name, err)
	}
	return nil
}
