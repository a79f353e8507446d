// Package debian has programs of Debian packages without installing these: an installation would
// start the services of some.
package debian

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Program returns the path of a program: that in PATH, or the one of a package of the machine's
// own release, which is downloaded and unpacked into the user's cache directory once. file is its
// path in the package, such as usr/bin/promtool.
func Program(ctx context.Context, pkg, file string) (string, error) {
	if path, err := exec.LookPath(filepath.Base(file)); err == nil {
		return path, nil
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find a place for package %s: %w", pkg, err)
	}
	dir := filepath.Join(cache, "egressip-operator", "debian", pkg)
	path := filepath.Join(dir, file)
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if err := unpack(ctx, pkg, dir); err != nil {
		return "", fmt.Errorf("get %s of Debian's package %s: %w", file, pkg, err)
	}
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("get %s of Debian's package %s: %w", file, pkg, err)
	}
	return path, nil
}

// unpack downloads a package and unpacks it into a directory. Several processes may do that at
// the same time.
func unpack(ctx context.Context, pkg, dir string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	partial, err := os.MkdirTemp(filepath.Dir(dir), pkg+".")
	if err != nil {
		return err
	}
	defer os.RemoveAll(partial)
	if err := run(ctx, partial, "apt-get", "download", "-q", pkg); err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(partial, "*.deb"))
	if err != nil || len(files) != 1 {
		return fmt.Errorf("apt-get download left files %v: %w", files, err)
	}
	unpacked := filepath.Join(partial, "unpacked")
	if err := run(ctx, partial, "dpkg-deb", "-x", files[0], unpacked); err != nil {
		return err
	}
	if err := os.Rename(unpacked, dir); err != nil && !errors.Is(err, os.ErrExist) {
		if _, there := os.Stat(dir); there != nil { // else another process was faster
			return err
		}
	}
	return nil
}

func run(ctx context.Context, dir, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out)
	}
	return nil
}
