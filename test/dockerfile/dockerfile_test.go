package dockerfile_test

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/egressip-operator/egressip-operator/hack/imagefiles"
	"github.com/egressip-operator/egressip-operator/hack/modules"
	"github.com/egressip-operator/egressip-operator/internal/testenv/binaries"
)

// variable asks for this test: it needs buildah, mmdebstrap and minutes.
const variable = "EGRESSIP_TEST_DOCKERFILE"

// version is what the Dockerfile gets as argument.
const version = "v1.2.3"

// builder is buildah with a store of its own.
type builder struct{ dir string }

// says runs a program and returns what it prints.
func says(t *testing.T, name string, args ...string) string {
	t.Helper()
	var stderr strings.Builder
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out, stderr.String())
	}
	return strings.TrimSpace(string(out))
}

func (b builder) run(t *testing.T, args ...string) string {
	t.Helper()
	return says(t, "buildah", append([]string{"--root", filepath.Join(b.dir, "root"), "--runroot", filepath.Join(b.dir, "run"), "--storage-driver", "vfs"}, args...)...)
}

// base makes the image that the Dockerfile begins with: Debian, and this machine's Go.
func (b builder) base(t *testing.T, name string) {
	t.Helper()
	debian := filepath.Join(b.dir, "debian.tar")
	says(t, "mmdebstrap", "--quiet", "--variant=minbase", "--include=ca-certificates", "bookworm", debian)
	c := b.run(t, "from", "scratch")
	b.run(t, "add", "--quiet", c, debian, "/")
	b.run(t, "copy", "--quiet", c, says(t, "go", "env", "GOROOT"), "/usr/local/go")
	b.run(t, "config", "--env", "GOPATH=/go", "--env", "GOTOOLCHAIN=local", "--env", "PATH=/go/bin:/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", c)
	b.run(t, "commit", "--quiet", "--rm", c, name)
}

// TestDockerfile: the image of the Dockerfile has the same files and settings as that of "make
// release".
func TestDockerfile(t *testing.T) {
	if os.Getenv(variable) == "" {
		t.Skipf("%s is not set: see \"make dockerfile\"", variable)
	}
	root, err := binaries.Repository()
	if err != nil {
		t.Fatal(err)
	}
	b := builder{dir: t.TempDir()}
	b.base(t, "docker.io/library/golang:1.26-bookworm")
	b.run(t, "bud", "--quiet", "--pull-never", "--isolation", "chroot", "--network", "host", "--build-arg", "VERSION="+version,
		"--volume", says(t, "go", "env", "GOMODCACHE")+":/go/pkg/mod", "--volume", says(t, "go", "env", "GOCACHE")+":/root/.cache/go-build",
		"--tag", "made", "--file", filepath.Join(root, "Dockerfile"), root)
	c := b.run(t, "from", "--pull-never", "made")
	got := tree(t, b.run(t, "mount", c))

	work := t.TempDir()
	binary := filepath.Join(work, "egressip-operator")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -X main.version="+version, "-o", binary, ".")
	cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	debian, err := imagefiles.Download(t.Context(), filepath.Join(work, "debian"), runtime.GOARCH)
	if err != nil {
		t.Fatal(err)
	}
	licence, err := os.ReadFile(filepath.Join(root, "LICENSE"))
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(root) // where Go finds the modules
	linked, err := modules.Of(t.Context(), binary)
	if err != nil {
		t.Fatal(err)
	}
	image, err := imagefiles.Image(debian, "example:1", binary, modules.Licences(licence, linked))
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(work, "tree")
	if err := imagefiles.Tree(dir, image); err != nil {
		t.Fatal(err)
	}
	want := tree(t, dir)
	if diff := cmp.Diff(want, got); diff != "" || len(got) < 100 {
		t.Errorf("%d files (-release +Dockerfile):\n%s", len(got), diff)
	}
	var is struct {
		OCIv1 struct {
			Config struct{ Env, Entrypoint, Cmd []string }
		}
	}
	if err := json.Unmarshal([]byte(b.run(t, "inspect", "--type", "image", "made")), &is); err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(is.OCIv1.Config), fmt.Sprint(struct{ Env, Entrypoint, Cmd []string }{image.Env, image.Entrypoint, image.Cmd}); got != want {
		t.Errorf("settings %s, want %s", got, want)
	}
	if out := b.run(t, "run", "--isolation", "chroot", c, "--", "/egressip-operator", "version"); !strings.HasPrefix(out, "egressip-operator "+version+" go1.") {
		t.Errorf("the image says %q", out)
	}
}

// tree is what is in a directory: kind, permissions and contents.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		is := info.Mode().String()
		switch {
		case d.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			is += " to " + target
		case d.Type().IsRegular():
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			is += fmt.Sprintf(" %x", sha256.Sum256(content))
		}
		all[path[len(dir):]] = is
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
