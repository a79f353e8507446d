package bootunit

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// plain are the characters that have no special meaning in a unit.
const plain = `-_.:/,=@+~abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789`

// temporary is the pattern for the names of files that are being written.
const temporary = ".egressip-*"

const (
	unitName   = "egressip-lock.service"
	unitDir    = "/etc/systemd/system"
	programDir = "/opt/egressip"
	// SELinux policies let systemd run programs that are in a directory bin.
	program = programDir + "/bin/egressip-operator"
)

// Paths returns the files that Install writes on the node, without the links by
// which other units require this one.
func Paths() []string { return []string{program, unitDir + "/" + unitName} }

// Unit is a systemd unit that runs a program when the node boots.
type Unit struct {
	// Root is the directory where the node's file system is mounted.
	Root string
	// Before are units that start pods: they start after this one, and only if it
	// succeeds.
	Before []string
	// Args are the program's arguments.
	Args []string
	// IPTables: the program needs the node's iptables.
	IPTables bool
}

// iptables returns the programs of which such a node needs at least one.
func iptables() []string {
	return []string{"usr/sbin/iptables-nft", "usr/sbin/iptables-legacy", "sbin/iptables-nft", "sbin/iptables-legacy", "usr/bin/iptables-nft", "usr/bin/iptables-legacy"}
}

// Install writes the unit, the links by which others require it, and a copy of the
// program from that it runs. It replaces existing files, each in one step.
func (u Unit) Install(from string) error {
	if err := u.validate(); err != nil {
		return err
	}
	if u.IPTables && !u.has(iptables()...) {
		return fmt.Errorf("install %s: the node has no iptables-nft and no iptables-legacy, which the lock needs with --backend=iptables: "+
			"install the package iptables on it, or choose another backend", unitName)
	}
	if err := u.copyProgram(from); err != nil {
		return err
	}
	if err := u.replace(filepath.Join(unitDir, unitName), 0o644, strings.NewReader(u.text())); err != nil {
		return err
	}
	// Links of an earlier installation with other units.
	errs := u.unlink(u.Before)
	for _, before := range u.Before {
		link := u.path(unitDir, before+".requires", unitName)
		if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
			errs = append(errs, fmt.Errorf("have %s require %s: %w", before, unitName, err))
			continue
		}
		err := os.Symlink(filepath.Join("..", unitName), link)
		if err != nil && !errors.Is(err, fs.ErrExist) {
			errs = append(errs, fmt.Errorf("have %s require %s: %w", before, unitName, err))
		}
	}
	return errors.Join(errs...)
}

// Uninstall deletes what Install wrote. A missing file is not an error.
func (u Unit) Uninstall() error {
	if err := u.validate(); err != nil {
		return err
	}
	errs := u.unlink(nil)
	for _, path := range Paths() {
		errs = append(errs, remove(u.path(path)), u.sweep(path))
	}
	// They stay if they hold other files.
	_ = os.Remove(u.path(programDir, "bin"))
	_ = os.Remove(u.path(programDir))
	return errors.Join(errs...)
}

// unlink deletes the links by which others require the unit, except those in but.
func (u Unit) unlink(but []string) []error {
	links, err := filepath.Glob(u.path(unitDir, "*.requires", unitName))
	errs := []error{err}
	for _, link := range links {
		if slices.Contains(but, strings.TrimSuffix(filepath.Base(filepath.Dir(link)), ".requires")) {
			continue
		}
		errs = append(errs, remove(link))
		// It stays if it holds other links.
		_ = os.Remove(filepath.Dir(link))
	}
	return errs
}

// sweep deletes the temporary files that an interrupted Install left next to a file.
func (u Unit) sweep(path string) error {
	left, err := filepath.Glob(filepath.Join(filepath.Dir(u.path(path)), temporary))
	errs := []error{err}
	for _, file := range left {
		errs = append(errs, remove(file))
	}
	return errors.Join(errs...)
}

func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove %s from the node: %w", unitName, err)
	}
	return nil
}

func (u Unit) validate() error {
	for _, word := range slices.Concat(u.Before, u.Args) {
		// systemd would split others into words, or replace them.
		if i := strings.IndexFunc(word, func(r rune) bool { return !strings.ContainsRune(plain, r) }); i >= 0 {
			return fmt.Errorf("%q cannot stand in a systemd unit: use letters, digits and any of %s", word, plain[:10])
		}
	}
	for _, before := range u.Before {
		if before != filepath.Base(before) || !strings.Contains(before, ".") {
			return fmt.Errorf("%q is not the name of a systemd unit: give one such as kubelet.service", before)
		}
	}
	return nil
}

func (u Unit) path(elements ...string) string {
	return filepath.Join(append([]string{u.Root}, elements...)...)
}

func (u Unit) has(paths ...string) bool {
	for _, path := range paths {
		// Lstat, because a link with an absolute target does not resolve below Root.
		if _, err := os.Lstat(u.path(path)); err == nil {
			return true
		}
	}
	return false
}

// text returns the content of the unit file.
func (u Unit) text() string {
	return fmt.Sprintf(`# Written by "egressip-operator lock install"; "lock uninstall" deletes it.
[Unit]
Description=Hold pods back until the egress IP agent knows them
Wants=network-online.target
After=network-online.target sys-fs-bpf.mount
Before=%s

[Service]
Type=oneshot
RemainAfterExit=yes
TimeoutStartSec=2min
ExecStart=%s %s

[Install]
RequiredBy=%s
`, strings.Join(u.Before, " "), program, strings.Join(u.Args, " "), strings.Join(u.Before, " "))
}

func (u Unit) copyProgram(from string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("copy %s to the node: %w", from, err)
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	return u.replace(program, 0o755, in)
}

// replace writes a file on the node in one step: a boot in between finds either the
// old or the new one.
func (u Unit) replace(path string, mode fs.FileMode, content io.Reader) error {
	full := u.path(path)
	fail := func(err error) error { return fmt.Errorf("write %s on the node: %w", path, err) }
	if err := u.sweep(path); err != nil {
		return fail(err)
	}
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		return fail(err)
	}
	f, err := os.CreateTemp(filepath.Dir(full), temporary)
	if err != nil {
		return fail(err)
	}
	_, err = io.Copy(f, content)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), full)
	}
	if err != nil {
		return fail(errors.Join(err, os.Remove(f.Name())))
	}
	return nil
}
