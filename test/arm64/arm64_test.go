package arm64_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/egressip-operator/egressip-operator/hack/imagefiles"
	"github.com/egressip-operator/egressip-operator/internal/testenv/binaries"
)

// variable asks for these tests: they need packages of another architecture, and a build for it.
const variable = "EGRESSIP_TEST_ARM64"

// emulated runs a program for arm64, below a root directory if that is not empty.
func emulated(ctx context.Context, root string, args ...string) (string, error) {
	if root != "" {
		// Also the libraries that it loads by itself are there, not on the machine.
		args = append([]string{"-L", root, "-E", "LD_LIBRARY_PATH=" + filepath.Join(root, "usr/lib/aarch64-linux-gnu"), "-E", "XTABLES_LIBDIR=" + filepath.Join(root, "usr/lib/aarch64-linux-gnu/xtables")}, args...)
	}
	out, err := exec.CommandContext(ctx, "qemu-aarch64-static", args...).CombinedOutput()
	return string(out), err
}

// TestImage: the programs of the image for arm64 run, and the operator's help is that of other
// architectures.
func TestImage(t *testing.T) {
	if os.Getenv(variable) == "" {
		t.Skipf("%s is not set: see \"make arm64\"", variable)
	}
	if _, err := exec.LookPath("qemu-aarch64-static"); err != nil {
		t.Fatalf("%v: apt-get install qemu-user-static", err)
	}
	root, err := binaries.Repository()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	build := func(arch string) string {
		t.Helper()
		file := filepath.Join(dir, "egressip-operator_"+arch)
		cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -X main.version=v1.2.3", "-o", file, ".")
		cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return file
	}
	own, other := build("amd64"), build("arm64")
	debian, err := imagefiles.Download(t.Context(), filepath.Join(dir, "debian"), "arm64")
	if err != nil {
		t.Fatal(err)
	}
	image, err := imagefiles.Image(debian, "example:arm64", other, []byte("licences"))
	if err != nil {
		t.Fatal(err)
	}
	tree := filepath.Join(dir, "tree")
	if err := imagefiles.Tree(tree, image); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(tree, "egressip-operator")
	out, err := emulated(t.Context(), "", program, "version")
	if err != nil || !regexp.MustCompile(`^egressip-operator v1\.2\.3 go1\.\S+ linux/arm64\n$`).MatchString(out) {
		t.Errorf("version: %q, %v", out, err)
	}
	for _, args := range [][]string{{"--help"}, {"agent", "--help"}, {"controller", "--help"}, {"lock", "--help"}, {"lock", "install", "--help"}, {"cleanup", "--help"}} {
		want, err := exec.CommandContext(t.Context(), own, args...).CombinedOutput()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := emulated(t.Context(), "", append([]string{program}, args...)...); err != nil || got != string(want) {
			t.Errorf("%v: %v\n%s", args, err, got)
		}
	}
	// What cannot be is refused as elsewhere.
	if out, err := emulated(t.Context(), "", program, "lock", "install"); err == nil || !strings.Contains(out, "--cluster-cidrs is empty") {
		t.Errorf("lock install without networks: %v: %s", err, out)
	}
	out, err = emulated(t.Context(), tree, filepath.Join(tree, "usr/sbin/xtables-legacy-multi"), "iptables", "-m", "set", "--help")
	if err != nil || !strings.Contains(out, "set match options") {
		t.Errorf("xtables-legacy-multi: %v: %s", err, out)
	}
	// The emulation has no netlink of netfilter, which each of its commands begins with: that it
	// names them shows that it finds its libraries.
	if out, err := emulated(t.Context(), tree, filepath.Join(tree, "usr/sbin/xtables-nft-multi")); err == nil || !strings.Contains(out, " * iptables-nft-restore\n") {
		t.Errorf("xtables-nft-multi: %v: %s", err, out)
	}
}
