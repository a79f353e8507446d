package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const root = "../.."

// What is generated is as it is checked in.
func TestFilesAreUpToDate(t *testing.T) {
	t.Parallel()
	files, err := generate(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		is, err := os.ReadFile(filepath.Join(root, f.path))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(f.content, string(is)); diff != "" {
			t.Errorf("%s: \"make generate\" was forgotten (-want +got):\n%s", f.path, diff)
		}
	}
}

// Parts are written where their comments are, and what is between them goes.
func TestParts(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const text = "a\n<!-- begin of x -->\nold\n<!-- end of x -->\nb\n"
	if err := os.WriteFile(filepath.Join(dir, "page.md"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := withParts(dir, "page.md", map[string]string{"x": "new\n"})
	if want := strings.Replace(text, "old", "new", 1); err != nil || f.content != want {
		t.Errorf("%q, %v, want %q", f.content, err, want)
	}
	if _, err := withParts(dir, "page.md", map[string]string{"y": "new\n"}); err == nil || !strings.Contains(err.Error(), "begin of y") {
		t.Errorf("a page without the part: %v", err)
	}
}
