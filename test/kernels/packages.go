package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// archive is apt with lists of its own, so that packages of other releases of Debian can
// be fetched and the machine's apt stays as it is.
type archive struct {
	// dir has the lists, the packages and what is unpacked of them.
	dir string
}

// keyring is Debian's: it has the keys of all releases.
const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// openArchive reads the lists of some releases, from where the machine has its own from.
func openArchive(ctx context.Context, dir string, releases ...string) (archive, error) {
	a := archive{dir: dir}
	for _, sub := range []string{"state/lists/partial", "cache/archives/partial", "packages"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return a, err
		}
	}
	out, err := output(ctx, "", "apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(ORIGIN) $(COMPONENT)", "Created-By: Packages")
	if err != nil {
		return a, err
	}
	list := sources(out, releases)
	if list == "" {
		return a, errors.New("apt has no sources of Debian: see apt-get indextargets")
	}
	if err := os.WriteFile(a.sourceList(), []byte(list), 0o644); err != nil {
		return a, err
	}
	_, err = output(ctx, "", "apt-get", a.options("update", "-q")...)
	return a, err
}

// sources writes sources for releases of Debian: each source of the machine's own
// release, and of its security updates, with the release's name replaced. targets has a
// line for each of the machine's: address, release, origin, component.
func sources(targets string, releases []string) string {
	var list []string
	for line := range strings.Lines(targets) {
		f := strings.Fields(line)
		if len(f) != 4 || f[2] != "Debian" || f[3] != "main" {
			continue
		}
		name, part, _ := strings.Cut(f[1], "-")
		if part != "" && part != "security" {
			continue
		}
		for _, release := range releases {
			list = append(list, fmt.Sprintf("deb [signed-by=%s] %s %s main\n", keyring, f[0], strings.Replace(f[1], name, release, 1)))
		}
	}
	slices.Sort(list)
	return strings.Join(slices.Compact(list), "")
}

func (a archive) sourceList() string { return filepath.Join(a.dir, "sources.list") }

func (a archive) options(args ...string) []string {
	return append([]string{
		"-o", "Dir::Etc::sourcelist=" + a.sourceList(), "-o", "Dir::Etc::sourceparts=-",
		"-o", "Dir::State=" + filepath.Join(a.dir, "state"), "-o", "Dir::Cache=" + filepath.Join(a.dir, "cache"),
		"-o", "Dir::State::status=/dev/null", "-o", "APT::Sandbox::User=root",
		"-o", "Acquire::Languages=none", "-o", "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
	}, args...)
}

// newest finds the package with the highest version of those whose names match.
func (a archive) newest(ctx context.Context, pattern string) (string, error) {
	out, err := output(ctx, "", "apt-cache", a.options("search", "--names-only", pattern)...)
	if err != nil {
		return "", err
	}
	var names []string
	for line := range strings.Lines(out) {
		if name, _, ok := strings.Cut(line, " "); ok {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return "", fmt.Errorf("no package %s in Debian's archive", pattern)
	}
	return slices.MaxFunc(names, compareNumbers), nil
}

// compareNumbers compares names by the numbers in them.
func compareNumbers(a, b string) int {
	return slices.Compare(numbersIn(a), numbersIn(b))
}

func numbersIn(s string) (list []int) {
	for _, digits := range regexp.MustCompile(`[0-9]+`).FindAllString(s, -1) {
		n, _ := strconv.Atoi(digits)
		list = append(list, n)
	}
	return list
}

// unpack downloads packages and unpacks them into one folder, which it returns, unless
// that was done before. Nothing is installed.
func (a archive) unpack(ctx context.Context, names ...string) (string, error) {
	dir := filepath.Join(a.dir, "unpacked", names[0])
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	partial := dir + ".partial"
	if err := errors.Join(os.RemoveAll(partial), os.MkdirAll(partial, 0o755)); err != nil {
		return "", err
	}
	for _, name := range names {
		packages := filepath.Join(a.dir, "packages", name)
		if err := errors.Join(os.RemoveAll(packages), os.MkdirAll(packages, 0o755)); err != nil {
			return "", err
		}
		if _, err := output(ctx, packages, "apt-get", a.options("download", "-q", name)...); err != nil {
			return "", err
		}
		files, err := filepath.Glob(filepath.Join(packages, "*.deb"))
		if err != nil || len(files) != 1 {
			return "", fmt.Errorf("download of %s: files %v, %w", name, files, err)
		}
		if _, err := output(ctx, "", "dpkg-deb", "-x", files[0], partial); err != nil {
			return "", err
		}
		if err := os.RemoveAll(packages); err != nil {
			return "", err
		}
	}
	return dir, os.Rename(partial, dir)
}

// install installs Debian packages of the machine's own release if a program is missing.
func install(ctx context.Context, programs map[string]string) error {
	var missing []string
	for program, name := range programs {
		if _, err := exec.LookPath(program); err != nil {
			missing = append(missing, name)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	slices.Sort(missing)
	if _, err := output(ctx, "", "apt-get", "update", "-q"); err != nil {
		return err
	}
	_, err := output(ctx, "", "apt-get", append([]string{"install", "-q", "-y", "--no-install-recommends"}, slices.Compact(missing)...)...)
	return err
}

// output runs a command in a folder and returns what it prints. It ends with ctx and
// with this process.
func output(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "CGO_ENABLED=0")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s%s", name, strings.Join(args, " "), err, out, stderr.String())
	}
	return string(out), nil
}
