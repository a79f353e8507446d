// Package steps counts what a piece of code does, in executed statements. Unlike time,
// the count is the same in each run and on each machine, so that a test can compare the
// work for two sizes of one problem: a loop in a loop shows.
//
// The test runs itself in a copy of its program that the go command has instrumented for
// coverage. Only statements of the package under test count, not those of what it calls.
package steps

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// variable tells the copy what to do.
const variable = "EGRESSIP_TEST_STEPS"

// Case prepares a problem of a size, and returns what is counted.
type Case func(size int) (work func())

// Counter returns a function that counts the statements of a case's work. ok is false in
// the copy of the program, where the test must return at once. The test is skipped where
// there is no go command.
func Counter(t *testing.T, cases map[string]Case) (count func(name string, size int) int, ok bool) {
	t.Helper()
	if what := os.Getenv(variable); what != "" {
		var name string
		var size int
		var whole bool
		if _, err := fmt.Sscanf(what, "%s %d %t", &name, &size, &whole); err != nil {
			t.Fatalf("%s=%q: %v", variable, what, err)
		}
		if work := cases[name](size); whole {
			work()
		}
		return nil, false
	}
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("there is no go command to instrument the program with")
	}
	dir := t.TempDir()
	program := filepath.Join(dir, "steps.test")
	// Without symbols for debuggers, linking takes half of the time.
	run(t, nil, "go", "test", "-c", "-vet=off", "-ldflags=-s -w", "-covermode=count", "-o", program, ".")
	return func(name string, size int) int {
		t.Helper()
		executed := func(whole bool) int {
			profile := filepath.Join(dir, "profile")
			what := fmt.Sprintf("%s=%s %d %t", variable, name, size, whole)
			run(t, []string{what}, program, "-test.run=^"+t.Name()+"$", "-test.coverprofile="+profile)
			return sum(t, profile)
		}
		return executed(true) - executed(false)
	}, true
}

func run(t *testing.T, environment []string, program string, arguments ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, arguments...)
	cmd.Env = append(os.Environ(), environment...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", program, arguments, err, out)
	}
}

// sum reads a profile: "<file>:<from>,<to> <statements> <times>" on each line but the
// first.
func sum(t *testing.T, profile string) (total int) {
	t.Helper()
	text, err := os.ReadFile(profile)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) != 3 {
			continue
		}
		statements, err := strconv.Atoi(fields[1])
		if err != nil {
			t.Fatalf("profile: %q: %v", line, err)
		}
		times, err := strconv.Atoi(fields[2])
		if err != nil {
			t.Fatalf("profile: %q: %v", line, err)
		}
		total += statements * times
	}
	return total
}
