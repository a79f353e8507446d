package bootunit

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// node is a directory that stands for a node's file system.
func node(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	write(t, root, "usr/sbin/iptables-nft", "")
	write(t, root, "etc/systemd/system/kubelet.service.requires/other.service", "")
	write(t, root, "program", "the program")
	return root
}

func write(t *testing.T, root, path, content string) {
	t.Helper()
	full := filepath.Join(root, path)
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(full, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func files(t *testing.T, root string) (list []string) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			list = append(list, strings.TrimPrefix(path, root))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// given: a node; when the unit is installed, twice, then what it needs is there, its
// links lead to it, and what it runs is what was asked for; when it is uninstalled,
// then the node is as before.
func TestInstallAndUninstall(t *testing.T) {
	root := node(t)
	before := files(t, root)
	u := Unit{Root: root, Before: []string{"kubelet.service", "k3s.service"}, Args: []string{"lock", "--cluster-cidrs=10.244.0.0/16"}}
	for range 2 {
		if err := u.Install(filepath.Join(root, "program")); err != nil {
			t.Fatal(err)
		}
	}
	// Other units than before.
	u.Before = []string{"kubelet.service", "rke2-agent.service"}
	write(t, root, "opt/egressip/bin/.egressip-123", "half of a program")
	if err := u.Install(filepath.Join(root, "program")); err != nil {
		t.Fatal(err)
	}
	want := append(slices.Clone(before), Paths()...)
	for _, b := range u.Before {
		link := filepath.Join(unitDir, b+".requires", unitName)
		want = append(want, link)
		text, err := os.ReadFile(root + link)
		if err != nil || !strings.Contains(string(text), "\nExecStart="+program+" lock --cluster-cidrs=10.244.0.0/16\n") ||
			!strings.Contains(string(text), "\nBefore=kubelet.service rke2-agent.service\n") {
			t.Errorf("%s: %v\n%s", link, err, text)
		}
	}
	slices.Sort(want)
	if got := files(t, root); !slices.Equal(got, want) {
		t.Errorf("installed %q, want %q", got, want)
	}
	info, err := os.Stat(root + program)
	if err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("the program: %v, %v", info, err)
	}
	for range 2 {
		if err := u.Uninstall(); err != nil {
			t.Fatal(err)
		}
	}
	if got := files(t, root); !slices.Equal(got, before) {
		t.Errorf("left over: %q, want %q", got, before)
	}
}

// given: what cannot work; when it is installed, then it is refused, and nothing is
// written.
func TestInstallRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		change func(t *testing.T, u *Unit)
		want   string
	}{
		"a node without iptables": {func(t *testing.T, u *Unit) {
			t.Helper()
			u.IPTables = true
			if err := os.Remove(filepath.Join(u.Root, "usr/sbin/iptables-nft")); err != nil {
				t.Fatal(err)
			}
		}, "install the package iptables"},
		"a unit's name with a path":    {func(_ *testing.T, u *Unit) { u.Before = []string{"../kubelet.service"} }, "not the name of a systemd unit"},
		"an argument with a space":     {func(_ *testing.T, u *Unit) { u.Args = []string{"lock", "--pin-dir=/a b"} }, "cannot stand in a systemd unit"},
		"an argument with a specifier": {func(_ *testing.T, u *Unit) { u.Args = []string{"lock", "--pin-dir=/a%i"} }, "cannot stand in a systemd unit"},
		"a unit's name without a kind": {func(_ *testing.T, u *Unit) { u.Before = []string{"kubelet"} }, "not the name of a systemd unit"},
	} {
		t.Run(name, func(t *testing.T) {
			u := Unit{Root: node(t), Before: []string{"kubelet.service"}}
			c.change(t, &u)
			before := files(t, u.Root)
			if err := u.Install(filepath.Join(u.Root, "program")); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
			if got := files(t, u.Root); !slices.Equal(got, before) {
				t.Errorf("written: %q", got)
			}
		})
	}
}
