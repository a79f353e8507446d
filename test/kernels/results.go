package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/egressip-operator/egressip-operator/test/kernels/internal/plan"
)

// result is how a suite ended in a kernel.
type result struct {
	suite string
	// end is "0", or why the program did not end well; "did not run" where it did not.
	end string
	// passed and skipped are numbers of tests, without subtests; failed names those that
	// failed, and the subtests that did.
	passed, skipped int
	failed          []string
}

func (r result) good() bool { return r.end == "0" && len(r.failed) == 0 && r.passed > 0 }

// String is a cell of the table.
func (r result) String() string {
	s := fmt.Sprintf("%d passed", r.passed)
	if r.skipped > 0 {
		s += fmt.Sprintf(", %d skipped", r.skipped)
	}
	if len(r.failed) > 0 {
		s += fmt.Sprintf(", failed: %s", strings.Join(r.failed, ", "))
	}
	if r.end != "0" && len(r.failed) == 0 {
		s += ", " + r.end
	}
	return s
}

// readResult reads what a run left in a folder.
func readResult(dir string, s suite) (result, error) {
	run := plan.Run{Name: s.file()}
	r := result{suite: s.name, end: "did not run"}
	end, err := os.ReadFile(filepath.Join(dir, run.Status()))
	if err == nil {
		r.end = string(end)
	} else if !os.IsNotExist(err) {
		return r, err
	}
	log, err := os.ReadFile(filepath.Join(dir, run.Log()))
	if err != nil && !os.IsNotExist(err) {
		return r, err
	}
	r.count(string(log))
	return r, nil
}

// count counts the tests in the output of a test program with -test.v.
func (r *result) count(log string) {
	line := regexp.MustCompile(`(?m)^( *)--- (PASS|FAIL|SKIP): (\S+)`)
	for _, m := range line.FindAllStringSubmatch(log, -1) {
		top := m[1] == ""
		switch {
		case m[2] == "FAIL":
			r.failed = append(r.failed, m[3])
		case m[2] == "SKIP" && top:
			r.skipped++
		case m[2] == "PASS" && top:
			r.passed++
		}
	}
	// A test whose subtests are named adds nothing.
	r.failed = slices.DeleteFunc(r.failed, func(name string) bool {
		return slices.ContainsFunc(r.failed, func(other string) bool { return strings.HasPrefix(other, name+"/") })
	})
}

// complaints returns the lines of a console in which the kernel complains about itself.
func complaints(console []byte) (lines []string) {
	complaint := regexp.MustCompile(`\bBUG:|\bWARNING: CPU|\bOops\b|Kernel panic|soft lockup|rcu.*detected stall`)
	for line := range bytes.Lines(console) {
		if complaint.Match(line) {
			lines = append(lines, strings.TrimSpace(string(line)))
		}
	}
	return lines
}
