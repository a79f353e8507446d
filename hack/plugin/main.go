// Command plugin builds the kubectl plugin for all platforms, each in an archive with its licence, with
// their checksums and a manifest for krew:
//
//	go run ./hack/plugin -version v1.2.3 -url https://example.com/releases/v1.2.3
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"text/template"

	"github.com/egressip-operator/egressip-operator/hack/archives"
	"github.com/egressip-operator/egressip-operator/hack/modules"
)

func main() { os.Exit(status()) }

func status() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var r release
	flag.StringVar(&r.Version, "version", "dev", "version that the binaries say they are")
	flag.StringVar(&r.URL, "url", "https://example.com", "where the archives will be found, for the manifest")
	flag.StringVar(&r.dir, "out", filepath.Join("build", "plugin"), "directory to write to")
	flag.Parse()
	if err := r.make(ctx, build); err != nil {
		fmt.Fprintln(os.Stderr, "plugin:", err)
		return 1
	}
	return 0
}

// platform is what a binary is for.
type platform struct{ OS, Arch string }

// platforms are those for which the plugin is built.
func platforms() []platform {
	return []platform{{"linux", "amd64"}, {"linux", "arm64"}, {"darwin", "amd64"}, {"darwin", "arm64"}, {"windows", "amd64"}}
}

// Binary is the name of the program.
func (p platform) Binary() string {
	if p.OS == "windows" {
		return "kubectl-egressip.exe"
	}
	return "kubectl-egressip"
}

// Archive is the name of the archive with it.
func (p platform) Archive() string { return fmt.Sprintf("kubectl-egressip_%s_%s.tar.gz", p.OS, p.Arch) }

// release is all that is made.
type release struct {
	Version, URL string
	Archives     []archive
	dir          string
}

// archive is one of them, with its checksum in hexadecimal.
type archive struct {
	platform
	SHA256 string
}

// builder compiles the plugin for a platform, and says what it is made of.
type builder func(ctx context.Context, p platform, version string) (binary []byte, linked []modules.Module, err error)

// make writes the archives, their checksums, and the manifest.
func (r *release) make(ctx context.Context, build builder) error {
	licence, err := os.ReadFile("LICENSE")
	if err != nil {
		return fmt.Errorf("run this at the top of the repository: %w", err)
	}
	if err := os.MkdirAll(r.dir, 0o750); err != nil {
		return err
	}
	var sums strings.Builder
	for _, p := range platforms() {
		binary, linked, err := build(ctx, p, r.Version)
		if err != nil {
			return fmt.Errorf("build for %s/%s: %w", p.OS, p.Arch, err)
		}
		packed, err := archives.Tarball(
			archives.File{Name: p.Binary(), Content: binary, Executable: true},
			archives.File{Name: "LICENSE", Content: licence},
			archives.File{Name: "licences.txt", Content: modules.Licences(licence, linked)},
		)
		if err != nil {
			return fmt.Errorf("pack %s: %w", p.Archive(), err)
		}
		sum := fmt.Sprintf("%x", sha256.Sum256(packed))
		r.Archives = append(r.Archives, archive{p, sum})
		fmt.Fprintf(&sums, "%s  %s\n", sum, p.Archive())
		if err := os.WriteFile(filepath.Join(r.dir, p.Archive()), packed, 0o600); err != nil {
			return err
		}
	}
	manifest, err := r.manifest()
	return errors.Join(err,
		os.WriteFile(filepath.Join(r.dir, "checksums.txt"), []byte(sums.String()), 0o600),
		os.WriteFile(filepath.Join(r.dir, "egressip.yaml"), manifest, 0o600))
}

//go:embed krew.yaml.tmpl
var krew string

// manifest renders the manifest for krew.
func (r *release) manifest() ([]byte, error) {
	t, err := template.New("krew").Parse(krew)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = t.Execute(&b, r)
	return b.Bytes(), err
}

// build compiles with the go command.
func build(ctx context.Context, p platform, version string) ([]byte, []modules.Module, error) {
	dir, err := os.MkdirTemp("", "plugin")
	if err != nil {
		return nil, nil, err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, p.Binary())
	// Without the state of the repository, which is not the same in each copy of it.
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -X main.version="+version, "-o", file, "./cmd/kubectl-egressip")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+p.OS, "GOARCH="+p.Arch)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return nil, nil, err
	}
	linked, err := modules.Of(ctx, file)
	if err != nil {
		return nil, nil, err
	}
	binary, err := os.ReadFile(file)
	return binary, linked, err
}
