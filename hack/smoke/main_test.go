package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// module writes a module with two fuzz tests, a benchmark, and much that only looks
// like them, and makes it the working directory.
func module(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	for path, text := range map[string]string{
		"go.mod":        "module example.com/m\n\ngo 1.26\n",
		"a/a.go":        "package a\n\nfunc FuzzNot() {}\n",
		"a/a_test.go":   "package a\n\nimport \"testing\"\n\nfunc FuzzOne(f *testing.F) { f.Fuzz(func(t *testing.T, b []byte) {}) }\n\nfunc fuzzHelper(f *testing.F) {}\n",
		"a/b_test.go":   "package a\n\nimport \"testing\"\n\nfunc FuzzTwo(f *testing.F) { f.Fuzz(func(t *testing.T, b []byte) {}) }\n\nfunc Fuzzy(t *testing.T, x int) {}\n",
		"b/b_test.go":   "package b\n\nimport \"testing\"\n\nfunc BenchmarkOne(b *testing.B) {}\n\nfunc TestOne(t *testing.T) {}\n",
		"c/c_test.go":   "package c\n\nimport \"testing\"\n\nfunc TestOne(t *testing.T) {}\n",
		"d/go.mod":      "module example.com/d\n",
		"d/d_test.go":   "package d\n\nimport \"testing\"\n\nfunc BenchmarkOther(b *testing.B) {}\n",
		"_x/x_test.go":  "package x\n\nthis is not Go\n",
		".y/y_test.go":  "package y\n\nthis is not Go\n",
		"testdata/z.go": "this is not Go\n",
	} {
		full := filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
}

// given: a module; then each of its fuzz tests gets a call of its own, and all
// packages with benchmarks get one.
func TestCommands(t *testing.T) {
	module(t)
	packages, err := find(".")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"test -run ^$ -fuzz ^FuzzOne$ -fuzztime 10s ./a",
		"test -run ^$ -fuzz ^FuzzTwo$ -fuzztime 10s ./a",
		"test -run ^$ -bench . -benchtime 1x ./b",
	}
	var got []string
	for _, args := range commands(packages, 10*time.Second, true) {
		got = append(got, strings.Join(args, " "))
	}
	if !slices.Equal(got, want) {
		t.Errorf("commands %q, want %q", got, want)
	}
	if without := commands(packages, time.Second, false); len(without) != 2 {
		t.Errorf("without benchmarks: %q", without)
	}
	if none, err := find("c"); err != nil || len(none) != 0 {
		t.Errorf("a directory without any: %v, %v", none, err)
	}
}

// given: a call that fails; then the error names it, and the others have run too.
func TestRunReportsAFailure(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	err := run(t.Context(), &out, [][]string{{"env", "-planted"}, {"env", "GOOS"}})
	if err == nil || !strings.Contains(err.Error(), "go env -planted") || strings.Contains(err.Error(), "GOOS") {
		t.Errorf("error %v, want one of the first call alone", err)
	}
	if !strings.Contains(out.String(), "go env GOOS\nlinux\n") {
		t.Errorf("the second call did not run:\n%s", &out)
	}
	if err := run(t.Context(), &out, nil); err == nil {
		t.Error("no error where there is nothing to run")
	}
}

func TestTimeThatIsOverIsNoFailure(t *testing.T) {
	const over = "fuzz: elapsed: 10s, execs: 125586 (11980/sec)\n--- FAIL: FuzzOne (10.12s)\n    context deadline exceeded\nFAIL\nexit status 1\n"
	for said, want := range map[string]bool{
		over: true,
		"--- FAIL: FuzzOne (1.00s)\n    --- FAIL: FuzzOne (0.00s)\n        a_test.go:5: wrong\n    Failing input written to testdata/fuzz/FuzzOne/1\nFAIL\n": false,
		over + "    Failing input written to testdata/fuzz/FuzzOne/1\n":                                                                                      false,
		"--- FAIL: FuzzTwo (1.00s)\n    context deadline exceeded\n" + over:                                                                                  false,
		"a_test.go:5: undefined: x\n": false,
	} {
		if overtime(said) != want {
			t.Errorf("want %v of:\n%s", want, said)
		}
	}
}
