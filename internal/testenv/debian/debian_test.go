package debian

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What is in PATH is used; else what was unpacked before; and a package that cannot be had is
// named.
func TestProgram(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	if path, err := Program(t.Context(), "dash", "bin/sh"); err != nil || !filepath.IsAbs(path) {
		t.Errorf("a program in PATH: %q, %v", path, err)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	there := filepath.Join(cache, "egressip-operator", "debian", "some-package", "usr", "bin", "some-program")
	if err := os.MkdirAll(filepath.Dir(there), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(there, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if path, err := Program(t.Context(), "some-package", "usr/bin/some-program"); err != nil || path != there {
		t.Errorf("what was unpacked before: %q, %v", path, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // nothing is downloaded
	if _, err := Program(ctx, "other-package", "usr/bin/other-program"); err == nil || !strings.Contains(err.Error(), "other-package") {
		t.Errorf("a package that cannot be had: %v", err)
	}
}
