package walls

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestSourcesHaveTests: in the packages below, what a file decides is tested in the file of its
// name, where who changes it looks first. It may be tested elsewhere in addition.
func TestSourcesHaveTests(t *testing.T) {
	t.Parallel()
	for _, dir := range []string{"../../pkg/dataplane"} {
		sources, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil || len(sources) == 0 {
			t.Fatalf("no sources in %s: %v", dir, err)
		}
		for _, source := range sources {
			name := strings.TrimSuffix(source, ".go")
			if strings.HasSuffix(name, "_test") || filepath.Base(name) == "doc" {
				continue
			}
			if tests, err := os.ReadFile(name + "_test.go"); err != nil || !bytes.Contains(tests, []byte("\nfunc Test")) {
				t.Errorf("%s has no test in %s_test.go (%v)", source, filepath.Base(name), err)
			}
		}
	}
}
