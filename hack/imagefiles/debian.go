package imagefiles

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Package is a Debian package in the image.
type Package struct {
	Name, Version, Arch string
	// Source and SourceVersion name the source package.
	Source, SourceVersion string
	// Control is what Debian says of it, as dpkg writes it.
	Control string
}

// Root is a file system with Debian packages.
type Root struct {
	// Dir is where it is: / for that of this machine.
	Dir string
	// Arch is that of the packages, as Go and Debian name it.
	Arch     string
	Packages []Package
}

// packageNames are the packages whose files the image has.
func packageNames() []string {
	return []string{
		"base-files", "iptables", "libc6", "libip4tc2", "libip6tc2", "libmnl0",
		"libnetfilter-conntrack3", "libnfnetlink0", "libnftnl11", "libxtables12",
	}
}

// control is what dpkg prints of a package: first what Package has, then what goes into the image.
const control = `${Package}\t${Version}\t${Architecture}\t${source:Package}\t${source:Version}\n` +
	`Package: ${Package}\nStatus: install ok installed\nVersion: ${Version}\nArchitecture: ${Architecture}\n` +
	`Source: ${source:Package} (${source:Version})\nMaintainer: ${Maintainer}\nDescription: ${binary:Summary}\n`

// readPackage reads what dpkg printed.
func readPackage(text string) (Package, error) {
	first, rest, _ := strings.Cut(text, "\n")
	f := strings.Split(first, "\t")
	if len(f) != 5 || f[0] == "" || f[1] == "" {
		return Package{}, fmt.Errorf("dpkg says %q of a package", first)
	}
	return Package{Name: f[0], Version: f[1], Arch: f[2], Source: f[3], SourceVersion: f[4], Control: rest}, nil
}

// Machine is this machine's own file system.
func Machine(ctx context.Context, arch string) (Root, error) {
	r := Root{Dir: "/", Arch: arch}
	for _, name := range packageNames() {
		text, err := output(ctx, "", "dpkg-query", "--show", "--showformat="+control, name+":"+arch)
		if err != nil {
			return r, fmt.Errorf("look for package %s (apt-get install iptables): %w", name, err)
		}
		p, err := readPackage(text)
		if err != nil {
			return r, err
		}
		r.Packages = append(r.Packages, p)
	}
	return r, nil
}

// Download unpacks the packages of an architecture below a directory, from where this machine's
// apt has its own; the machine's apt stays as it is.
func Download(ctx context.Context, dir, arch string) (Root, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return Root{}, err
	}
	r := Root{Dir: filepath.Join(dir, "root"), Arch: arch}
	apt := filepath.Join(dir, "apt")
	for _, sub := range []string{"state/lists/partial", "cache/archives/partial", "packages"} {
		if err := os.MkdirAll(filepath.Join(apt, sub), 0o755); err != nil {
			return r, err
		}
	}
	options := []string{
		"-o", "Dir::State=" + filepath.Join(apt, "state"), "-o", "Dir::Cache=" + filepath.Join(apt, "cache"),
		"-o", "Dir::State::status=/dev/null", "-o", "APT::Sandbox::User=root",
		"-o", "APT::Architecture=" + arch, "-o", "APT::Architectures=" + arch, "-o", "Acquire::Languages=none",
	}
	if _, err := output(ctx, "", "apt-get", append(options, "update", "-q")...); err != nil {
		return r, err
	}
	packages := filepath.Join(apt, "packages")
	for _, name := range packageNames() {
		if _, err := output(ctx, packages, "apt-get", append(options, "download", "-q", name)...); err != nil {
			return r, err
		}
		files, err := filepath.Glob(filepath.Join(packages, name+"_*.deb"))
		if err != nil || len(files) != 1 {
			return r, fmt.Errorf("apt-get download %s left files %v: %w", name, files, err)
		}
		text, err := output(ctx, "", "dpkg-deb", "--show", "--showformat="+control, files[0])
		if err != nil {
			return r, err
		}
		p, err := readPackage(text)
		if err != nil {
			return r, err
		}
		r.Packages = append(r.Packages, p)
		if _, err := output(ctx, "", "dpkg-deb", "--extract", files[0], r.Dir); err != nil {
			return r, err
		}
	}
	return r, nil
}

// resolve follows the symbolic links of a path in the root, and returns where the file is on this
// machine. Absolute links lead to the root, not to this machine's own files.
func (r Root) resolve(path string) (string, error) {
	const most = 40 // links, as the kernel allows
	left := strings.Split(strings.Trim(filepath.Clean(path), "/"), "/")
	at := "/"
	for links := 0; len(left) > 0; {
		next := filepath.Join(at, left[0])
		left = left[1:]
		target, err := os.Readlink(filepath.Join(r.Dir, next))
		switch {
		case err == nil:
			if links++; links > most {
				return "", fmt.Errorf("%s: too many symbolic links", path)
			}
			if filepath.IsAbs(target) {
				at = "/"
			}
			left = append(strings.Split(strings.Trim(filepath.Clean(target), "/"), "/"), left...)
		case errors.Is(err, os.ErrNotExist):
			return "", fmt.Errorf("%s: %w", path, os.ErrNotExist)
		default: // no link
			at = next
		}
	}
	return filepath.Join(r.Dir, at), nil
}

// output runs a program and returns what it prints.
func output(ctx context.Context, dir, name string, args ...string) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, args[len(args)-1], err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}
