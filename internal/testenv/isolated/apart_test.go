package isolated

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
)

// meetVariable is set where this program is the one under test: TestInner... do
// something then, and meet in the directory that it names.
const meetVariable = "EGRESSIP_TEST_MEET"

func TestMain(m *testing.M) {
	if os.Getenv(meetVariable) != "" {
		os.Exit(RunApart(m, nil))
	}
	if err := flag.Set("test.skip", "^TestInner"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// given: tests of which one fails, one panics and two wait for each other; when they run
// apart; then the status is that of a failure, each output is there as a whole with one
// verdict below, and the profile has what each of them covered. When those that pass run
// alone, then the verdict is that they pass.
func TestRunApart(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, run string
		fails     bool
		prints    []string
		// profiles is how many tests ended by themselves, and wrote what they covered.
		profiles int
	}{
		{"all", "^TestInner", true, []string{
			"--- PASS: TestInnerMeetsOne", "--- PASS: TestInnerMeetsTwo", "--- FAIL: TestInnerFails", "panic: as asked", "a word of its own\n", "\nFAIL\n",
		}, 3},
		{"one that fails", "TestInnerFails", true, []string{"a word of its own\n", "\nFAIL\n"}, 1},
		{"none", "TestInnerNone", false, []string{"testing: warning: no tests to run\nPASS\n"}, 1},
		{"those that pass", "TestInnerMeets", false, []string{"--- PASS: TestInnerMeetsOne", "\nPASS\n"}, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			profile := filepath.Join(t.TempDir(), "cover.out")
			args := []string{"-test.v", "-test.parallel=2", "-test.run=" + c.run}
			if testing.CoverMode() != "" {
				args = append(args, "-test.coverprofile="+profile)
			}
			cmd := exec.CommandContext(t.Context(), "/proc/self/exe", args...)
			cmd.Env = append(os.Environ(), meetVariable+"="+t.TempDir())
			out, err := cmd.CombinedOutput()
			if exit := (*exec.ExitError)(nil); errors.As(err, &exit) != c.fails {
				t.Errorf("ended with %v", err)
			}
			for _, want := range c.prints {
				if !strings.Contains(string(out), want) {
					t.Errorf("does not print %q", want)
				}
			}
			if n := strings.Count(string(out), "\nPASS\n") + strings.Count(string(out), "\nFAIL\n"); n != 1 {
				t.Errorf("prints %d verdicts", n)
			}
			if t.Failed() {
				t.Logf("printed:\n%s", out)
			}
			if testing.CoverMode() == "" {
				return
			}
			covered, err := os.ReadFile(profile)
			if err != nil {
				t.Fatal(err)
			}
			lines := bytes.Split(covered, []byte("\n"))
			if n := bytes.Count(covered, []byte("mode:")); n != 1 || !bytes.HasPrefix(lines[0], []byte("mode:")) || len(lines) < 2 {
				t.Fatalf("the profile has %d heads, and %d lines", n, len(lines))
			}
			block, _, _ := bytes.Cut(lines[1], []byte(" "))
			if n := bytes.Count(covered, block); n != c.profiles {
				t.Errorf("the profile is of %d tests, want %d", n, c.profiles)
			}
		})
	}
}

func TestInnerMeetsOne(t *testing.T) { meet(t, "one", "two") }

func TestInnerMeetsTwo(t *testing.T) { meet(t, "two", "one") }

// meet waits for another test, and expects to be in a network namespace that it is not in.
func meet(t *testing.T, me, other string) {
	t.Helper()
	dir := inner(t)
	here, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	// Written aside first: a reader must not meet half of it.
	if err := errors.Join(os.WriteFile(filepath.Join(dir, me+".new"), []byte(here), 0o600), os.Rename(filepath.Join(dir, me+".new"), filepath.Join(dir, me))); err != nil {
		t.Fatal(err)
	}
	testenv.Until(t, "the other test is here, too", func() bool {
		there, err := os.ReadFile(filepath.Join(dir, other))
		if err == nil && string(there) == here {
			t.Error("both are in one network namespace")
		}
		return err == nil
	})
}

func TestInnerFails(t *testing.T) {
	inner(t)
	os.Stdout.WriteString("a word of its own\n")
	t.Error("fails as asked")
}

func TestInnerPanics(t *testing.T) {
	inner(t)
	panic("as asked")
}

func inner(t *testing.T) string {
	t.Helper()
	dir := os.Getenv(meetVariable)
	if dir == "" {
		t.Fatal("part of TestRunApart alone")
	}
	return dir
}
