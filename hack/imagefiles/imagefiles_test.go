package imagefiles

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/egressip-operator/egressip-operator/hack/dockerarchive"
)

// image is that of this machine, with an empty file as binary.
func image(t *testing.T) dockerarchive.Image {
	t.Helper()
	root, err := Machine(t.Context(), runtime.GOARCH)
	if err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(t.TempDir(), "binary")
	if err := os.WriteFile(binary, []byte("binary"), 0o755); err != nil {
		t.Fatal(err)
	}
	i, err := Image(root, "example:dev", binary, []byte("licences"))
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// TestImageWorksByItself: iptables of both backends run in the image, without any file of the
// machine; and it says which packages it has, under which licences.
func TestImageWorksByItself(t *testing.T) {
	dir := t.TempDir()
	i := image(t)
	if err := Tree(dir, i); err != nil {
		t.Fatal(err)
	}
	for _, backend := range []string{"nft", "legacy"} {
		for _, family := range []string{"iptables", "ip6tables"} {
			// The help of an extension is that of a library that the program loads.
			out, err := exec.CommandContext(t.Context(), "chroot", dir, "/usr/sbin/"+family+"-"+backend, "-m", "set", "--help").CombinedOutput()
			if err != nil || !strings.Contains(string(out), "set match options") {
				t.Errorf("%s-%s: %v: %s", family, backend, err, out)
			}
		}
	}
	release, err := os.ReadFile(filepath.Join(dir, "etc/os-release"))
	if err != nil || !strings.Contains(string(release), "ID=debian") {
		t.Errorf("os-release: %v: %s", err, release)
	}
	for _, name := range packageNames() {
		status, err := os.ReadFile(filepath.Join(dir, "var/lib/dpkg/status.d", name))
		if err != nil || !bytes.HasPrefix(status, []byte("Package: "+name+"\nStatus: install ok installed\nVersion: ")) || bytes.Contains(status, []byte("\n\n")) {
			t.Errorf("status of %s: %v: %s", name, err, status)
		}
		if copyright, err := os.ReadFile(filepath.Join(dir, "usr/share/doc", name, "copyright")); err != nil || len(copyright) < 500 {
			t.Errorf("copyright of %s: %v, %d bytes", name, err, len(copyright))
		}
	}
	if tmp, err := os.Stat(filepath.Join(dir, "tmp")); err != nil || tmp.Mode()&os.ModeSticky == 0 || tmp.Mode().Perm() != 0o777 {
		t.Errorf("/tmp: %v, %v", tmp, err)
	}
}

// TestLinksStayInTheRoot: an absolute link in a root leads to the root's file, not to the
// machine's; and one that leads to itself is an error.
func TestLinksStayInTheRoot(t *testing.T) {
	dir := t.TempDir()
	r := Root{Dir: dir}
	if err := os.MkdirAll(filepath.Join(dir, "usr/lib"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "usr/lib/passwd"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{"lib": "usr/lib", "absolute": "/lib/passwd", "up": "../../../lib/passwd", "loop": "loop", "out": "/etc/passwd"} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{"/lib/passwd", "/absolute", "/up", "/usr/lib/passwd"} {
		if got, err := r.resolve(path); err != nil || got != filepath.Join(dir, "usr/lib/passwd") {
			t.Errorf("%s leads to %s, %v", path, got, err)
		}
	}
	if got, err := r.resolve("/out"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("/out leads to %s, %v", got, err)
	}
	if got, err := r.resolve("/loop"); err == nil || !strings.Contains(err.Error(), "too many") {
		t.Errorf("/loop leads to %s, %v", got, err)
	}
}

// TestMissingPackageIsNamed: what dpkg cannot say is an error that says what to install.
func TestMissingPackageIsNamed(t *testing.T) {
	if _, err := Machine(t.Context(), "s390x"); err == nil || !strings.Contains(err.Error(), "apt-get install iptables") {
		t.Errorf("packages of another architecture: %v", err)
	}
	if _, err := (Root{Dir: t.TempDir(), Arch: "s390x"}).iptables(); err == nil || !strings.Contains(err.Error(), "s390x") {
		t.Errorf("an image for s390x: %v", err)
	}
	if _, err := (Root{Dir: t.TempDir(), Arch: "arm64"}).iptables(); err == nil || !strings.Contains(err.Error(), "xtables-nft-multi") {
		t.Errorf("an image out of an empty root: %v", err)
	}
	if _, err := readPackage("nothing\n"); err == nil {
		t.Error("a strange answer of dpkg is taken")
	}
}
