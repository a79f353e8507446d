package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const profile = `mode: atomic
example.com/m/main.go:1.1,2.2 12 0
example.com/m/pkg/a/a.go:1.1,2.2 10 1
example.com/m/pkg/a/a.go:3.1,4.2 10 0
example.com/m/pkg/a/b.go:1.1,2.2 30 7
example.com/m/pkg/a/small.go:1.1,2.2 9 0
example.com/m/pkg/a/zz_generated.deepcopy.go:1.1,2.2 500 0
example.com/m/test/demo/main.go:1.1,2.2 100 0
example.com/m/pkg/a/a.go:3.1,4.2 10 0
example.com/m/pkg/a/b.go:1.1,2.2 30 0
`

// given: a profile with blocks of two test programs; when it is reported, then each
// block counts once, and the least covered of the shipped files come first.
func TestReport(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "cover.out")
	if err := os.WriteFile(path, []byte(profile), 0o600); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := run(&out, path, "example.com/m", 2); err != nil {
		t.Fatal(err)
	}
	const want = `COVERED STATEMENTS PACKAGE
0.0% 12 .
67.8% 59 pkg/a
0.0% 100 test/demo
56.3% 71 all that is shipped

LEAST COVERED STATEMENTS FILE
0.0% 12 main.go
50.0% 20 pkg/a/a.go
`
	var got strings.Builder
	for line := range strings.Lines(out.String()) {
		got.WriteString(strings.Join(strings.Fields(line), " ") + "\n")
	}
	if got.String() != want {
		t.Errorf("printed:\n%s\nwant:\n%s", &got, want)
	}
}

// given: a profile that is none; then the error says so, and names the line.
func TestReadRefuses(t *testing.T) {
	t.Parallel()
	for _, line := range []string{"something else", "a.go:1.1,2.2 3", "a.go:1.1,2.2 x 0", "a.go:1.1,2.2 1 -1"} {
		if _, err := read(strings.NewReader("mode: set\n"+line+"\n"), "m"); err == nil || !strings.Contains(err.Error(), line) {
			t.Errorf("%q: error %v", line, err)
		}
	}
	if err := run(&strings.Builder{}, filepath.Join(t.TempDir(), "none"), "m", 1); err == nil || !strings.Contains(err.Error(), "make race") {
		t.Errorf("a missing file: %v", err)
	}
}
