package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The report that is in the documentation is what was measured.
func TestReportIsWhatWasMeasured(t *testing.T) {
	files, err := render("../paths/results")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range files {
		got, err := os.ReadFile(filepath.Join("../../../docs", name))
		if err != nil {
			t.Error(err)
			continue
		}
		if string(got) != string(want) {
			t.Errorf("docs/%s is not what test/bench/paths/results gives: run go run ./test/bench/report", name)
		}
	}
	for _, part := range []string{"| local, nftables |", "remote, bare", "quartiles"} {
		if !strings.Contains(string(files["benchmarks.md"]), part) {
			t.Errorf("the report has no %q", part)
		}
	}
}
