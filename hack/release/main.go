// Command release makes all files of a release, and what its page says, in a directory:
//
//	release -version v1.2.3 [-url https://example.com/releases/v1.2.3] [-out build/release]
//
// It needs Go and Debian: the images have packages of Debian, for amd64 and arm64, which apt
// downloads. The same commit, Go and packages give the same files.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/egressip-operator/egressip-operator/hack/imagefiles"
	"github.com/egressip-operator/egressip-operator/hack/modules"
	"github.com/egressip-operator/egressip-operator/internal/testenv/binaries"
)

func main() { os.Exit(status()) }

func status() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var r release
	flag.StringVar(&r.Version, "version", "", "version, such as v1.2.3")
	flag.StringVar(&r.URL, "url", "", "where the files will be found; that of the repository's releases if empty")
	flag.StringVar(&r.dir, "out", filepath.Join("build", "release"), "directory to write to: what is in it is deleted")
	flag.Parse()
	if err := run(ctx, &r); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		return 1
	}
	fmt.Printf("%s: %d files of release %s; image %s\n", r.dir, len(r.sums), r.Version, r.Digest)
	return 0
}

func run(ctx context.Context, r *release) error {
	if r.URL == "" {
		r.URL = repository + "/releases/download/" + r.Version
	}
	// All that is dated has the commit's date.
	seconds, err := command(ctx, "git", "log", "-1", "--format=%ct")
	if err != nil {
		return err
	}
	unix, err := strconv.ParseInt(strings.TrimSpace(seconds), 10, 64)
	if err != nil {
		return fmt.Errorf("read the date of the commit: %w", err)
	}
	r.created = time.Unix(unix, 0)
	revision, err := command(ctx, "git", "rev-parse", "HEAD")
	if err != nil {
		return err
	}
	r.revision = strings.TrimSpace(revision)
	tools, err := binaries.Dir(ctx, "helm", "kubectl")
	if err != nil {
		return err
	}
	work, err := os.MkdirTemp("", "release")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	return r.make(ctx, maker{
		work: work, helm: filepath.Join(tools, "helm"), kubectl: filepath.Join(tools, "kubectl"), compile: compile, linked: modules.Of,
		root: func(ctx context.Context, arch string) (imagefiles.Root, error) {
			return imagefiles.Download(ctx, filepath.Join(work, "debian-"+arch), arch)
		},
		plugin: func(ctx context.Context, dir string) error {
			_, err := command(ctx, "go", "run", "./hack/plugin", "-version", r.Version, "-url", r.URL, "-out", dir)
			return err
		},
	})
}

// compile builds a program for Linux, without the state of the repository, which is not the same
// in each copy of it.
func compile(ctx context.Context, arch, version, pkg, file string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -X main.version="+version, "-o", file, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s for %s: %w: %s", pkg, arch, err, out)
	}
	return nil
}

// command runs a program and returns what it prints.
func command(ctx context.Context, name string, args ...string) (string, error) {
	var stderr strings.Builder
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", filepath.Base(name), strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return string(out), nil
}
