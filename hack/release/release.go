package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/egressip-operator/egressip-operator/hack/archives"
	"github.com/egressip-operator/egressip-operator/hack/dockerarchive"
	"github.com/egressip-operator/egressip-operator/hack/imagefiles"
	"github.com/egressip-operator/egressip-operator/hack/modules"
)

const (
	// repository is where the project is.
	repository = "https://github.com/egressip-operator/egressip-operator"
	// registry is where the chart expects the image.
	registry = "ghcr.io/egressip-operator/egressip-operator"
)

// architectures are those of the image.
func architectures() []string { return []string{"amd64", "arm64"} }

// release is all that is made.
type release struct {
	Version, URL string
	// Digest is that of the image in a registry.
	Digest   string
	dir      string
	created  time.Time
	revision string
	// sums are the checksums of the files, in hexadecimal.
	sums map[string]string
}

// maker has what a release is made with.
type maker struct {
	// work is a directory for what is not part of the release.
	work          string
	helm, kubectl string
	compile       func(ctx context.Context, arch, version, pkg, file string) error
	linked        func(ctx context.Context, binary string) ([]modules.Module, error)
	root          func(ctx context.Context, arch string) (imagefiles.Root, error)
	// plugin writes the archives of the plugin, their checksums and its manifest.
	plugin func(ctx context.Context, dir string) error
}

// number is the version as charts and images have it.
func (r *release) number() string { return strings.TrimPrefix(r.Version, "v") }

// prerelease reports whether the version is one before a release, such as v1.2.3-rc.1.
func (r *release) prerelease() bool { return strings.Contains(r.Version, "-") }

// make makes all files.
func (r *release) make(ctx context.Context, m maker) error {
	if err := r.check(); err != nil {
		return err
	}
	if err := os.RemoveAll(r.dir); err != nil {
		return err
	}
	if err := os.MkdirAll(r.dir, 0o755); err != nil {
		return err
	}
	r.sums = map[string]string{}
	for _, part := range []func(context.Context, maker) error{r.images, r.chart, r.manifests, r.plugins} {
		if err := part(ctx, m); err != nil {
			return err
		}
	}
	notes, err := r.notes()
	if err != nil {
		return err
	}
	var sums strings.Builder
	for _, name := range slices.Sorted(maps.Keys(r.sums)) {
		fmt.Fprintf(&sums, "%s  %s\n", r.sums[name], name)
	}
	if err := os.WriteFile(filepath.Join(r.dir, "notes.md"), notes, 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(r.dir, "SHA256SUMS"), []byte(sums.String()), 0o644)
}

// check looks whether the version can be released from this tree.
func (r *release) check() error {
	if !regexp.MustCompile(`^v\d+\.\d+\.\d+(-[0-9A-Za-z.]+)?$`).MatchString(r.Version) {
		return fmt.Errorf("version %q is not of the form v1.2.3 or v1.2.3-rc.1: make release VERSION=v1.2.3", r.Version)
	}
	if r.prerelease() {
		return nil
	}
	chart, err := os.ReadFile(filepath.Join("charts", "egressip-operator", "Chart.yaml"))
	if err != nil {
		return fmt.Errorf("run this at the top of the repository: %w", err)
	}
	for _, field := range []string{"version", "appVersion"} {
		if !regexp.MustCompile(`(?m)^` + field + `: ` + regexp.QuoteMeta(r.number()) + `$`).Match(chart) {
			return fmt.Errorf("%s of charts/egressip-operator/Chart.yaml is not %s: see docs/release.md", field, r.number())
		}
	}
	return nil
}

// add writes a file of the release.
func (r *release) add(name string, content []byte) error {
	r.sums[name] = fmt.Sprintf("%x", sha256.Sum256(content))
	return os.WriteFile(filepath.Join(r.dir, name), content, 0o644)
}

// added takes a file that is written already.
func (r *release) added(name string) error {
	content, err := os.ReadFile(filepath.Join(r.dir, name))
	if err != nil {
		return err
	}
	r.sums[name] = fmt.Sprintf("%x", sha256.Sum256(content))
	return nil
}

// labels are those of the image.
func (r *release) labels() map[string]string {
	const prefix = "org.opencontainers.image."
	return map[string]string{
		prefix + "title": "egressip-operator", prefix + "version": r.number(), prefix + "revision": r.revision,
		prefix + "source": repository, prefix + "licenses": "Apache-2.0", prefix + "created": r.created.UTC().Format(time.RFC3339),
	}
}

// images makes the image, an archive with the binary, and what it is made of, for each architecture.
func (r *release) images(ctx context.Context, m maker) error {
	own, err := os.ReadFile("LICENSE")
	if err != nil {
		return err
	}
	var images []dockerarchive.Image
	for _, arch := range architectures() {
		binary := filepath.Join(m.work, "egressip-operator_"+arch)
		if err := m.compile(ctx, arch, r.Version, ".", binary); err != nil {
			return err
		}
		linked, err := m.linked(ctx, binary)
		if err != nil {
			return err
		}
		licences := modules.Licences(own, linked)
		root, err := m.root(ctx, arch)
		if err != nil {
			return err
		}
		image, err := imagefiles.Image(root, registry+":"+r.number(), binary, licences)
		if err != nil {
			return err
		}
		image.Labels, image.Created = r.labels(), r.created
		images = append(images, image)
		name := "egressip-operator-image_linux_" + arch
		if err := dockerarchive.Write(filepath.Join(r.dir, name+".tar"), image); err != nil {
			return err
		}
		if err := r.added(name + ".tar"); err != nil {
			return err
		}
		program, err := os.ReadFile(binary)
		if err != nil {
			return err
		}
		packed, err := archives.Tarball(
			archives.File{Name: "egressip-operator", Content: program, Executable: true},
			archives.File{Name: "LICENSE", Content: own}, archives.File{Name: "licences.txt", Content: licences},
		)
		if err != nil {
			return err
		}
		if err := r.add("egressip-operator_linux_"+arch+".tar.gz", packed); err != nil {
			return err
		}
		bom, err := r.bom(name, linked, root.Packages)
		if err != nil {
			return err
		}
		if err := r.add(name+".cdx.json", bom); err != nil {
			return err
		}
	}
	const name = "egressip-operator-image.oci.tar"
	if r.Digest, err = dockerarchive.WriteOCI(filepath.Join(r.dir, name), images...); err != nil {
		return err
	}
	return r.added(name)
}

// chart packs the chart; helm's own package has the time at which it was made.
func (r *release) chart(ctx context.Context, m maker) error {
	if _, err := command(ctx, m.helm, "package", filepath.Join("charts", "egressip-operator"), "--destination", m.work,
		"--version", r.number(), "--app-version", r.number()); err != nil {
		return err
	}
	name := "egressip-operator-" + r.number() + ".tgz"
	content, err := os.ReadFile(filepath.Join(m.work, name))
	if err != nil {
		return err
	}
	files, err := archives.Files(bytes.NewReader(content))
	if err != nil {
		return fmt.Errorf("pack the chart: %w", err)
	}
	// Helm wants Chart.yaml first, and packs the rest in the order of its map.
	slices.SortStableFunc(files, func(a, b archives.File) int {
		first := func(f archives.File) int {
			if strings.HasSuffix(f.Name, "/Chart.yaml") {
				return 0
			}
			return 1
		}
		if d := first(a) - first(b); d != 0 {
			return d
		}
		return strings.Compare(a.Name, b.Name)
	})
	packed, err := archives.Tarball(files...)
	if err != nil {
		return fmt.Errorf("pack the chart: %w", err)
	}
	return r.add(name, packed)
}

// manifests are what "kubectl apply -k" would install from this tree.
func (r *release) manifests(ctx context.Context, m maker) error {
	image := regexp.MustCompile(`(image: ` + regexp.QuoteMeta(registry) + `):\S+`)
	for _, part := range []struct{ dir, name string }{
		{"default", "install.yaml"}, {"egressip", "egressips.yaml"}, {"canonical", "canonical.yaml"},
	} {
		manifest, err := command(ctx, m.kubectl, "kustomize", filepath.Join("config", part.dir))
		if err != nil {
			return err
		}
		if err := r.add(part.name, image.ReplaceAll([]byte(manifest), []byte("${1}:"+r.number()))); err != nil {
			return err
		}
	}
	return nil
}

// plugins are the archives of the kubectl plugin, and its manifest.
func (r *release) plugins(ctx context.Context, m maker) error {
	dir := filepath.Join(m.work, "plugin")
	if err := m.plugin(ctx, dir); err != nil {
		return err
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, f := range files {
		name := f.Name()
		if name == "checksums.txt" { // they are in ours
			continue
		}
		content, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		if name == "egressip.yaml" {
			name = "krew.yaml"
		}
		if err := r.add(name, content); err != nil {
			return err
		}
	}
	return nil
}
