package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"

	"github.com/egressip-operator/egressip-operator/hack/imagefiles"
	"github.com/egressip-operator/egressip-operator/hack/modules"
	"github.com/egressip-operator/egressip-operator/internal/testenv/binaries"
)

// made is a release of this tree, in which the operator's binaries and the plugin are texts.
func made(t *testing.T, version string) (*release, error) {
	t.Helper()
	tools, err := binaries.Dir(t.Context(), "helm", "kubectl")
	if err != nil {
		t.Fatal(err)
	}
	r := &release{Version: version, URL: "https://example.com/files", dir: filepath.Join(t.TempDir(), "release"), created: time.Unix(1e9, 0), revision: "0123abc"}
	return r, r.make(t.Context(), maker{
		work: t.TempDir(), helm: filepath.Join(tools, "helm"), kubectl: filepath.Join(tools, "kubectl"),
		compile: func(_ context.Context, arch, version, _, file string) error {
			return os.WriteFile(file, []byte(arch+version), 0o600)
		},
		linked: func(context.Context, string) ([]modules.Module, error) {
			return []modules.Module{{Path: "std", Version: "go1.26", Licence: "BSD-3-Clause"}, {Path: "example.com/m", Version: "v1.0.0", Sum: "h1:x", Licence: "MIT"}}, nil
		},
		root: func(ctx context.Context, _ string) (imagefiles.Root, error) {
			return imagefiles.Machine(ctx, runtime.GOARCH)
		},
		plugin: func(_ context.Context, dir string) error {
			if err := os.Mkdir(dir, 0o755); err != nil {
				return err
			}
			for _, name := range []string{"checksums.txt", "egressip.yaml", "kubectl-egressip_linux_amd64.tar.gz"} {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o600); err != nil {
					return err
				}
			}
			return nil
		},
	})
}

// TestReleaseIsReproducible: a second release of the same tree has the same files. Mutants: helm's
// own package of the chart; a label of the image with the time.
func TestReleaseIsReproducible(t *testing.T) {
	t.Chdir("../..")
	first, err := made(t, "v9.8.7-rc.1")
	if err != nil {
		t.Fatal(err)
	}
	second, err := made(t, "v9.8.7-rc.1")
	if err != nil {
		t.Fatal(err)
	}
	for name, sum := range first.sums {
		if second.sums[name] != sum {
			t.Errorf("%s was made with checksum %s, and again with %s", name, sum, second.sums[name])
		}
	}
	if !maps.Equal(first.sums, second.sums) || first.Digest != second.Digest {
		t.Errorf("images %s and %s, files %v and %v", first.Digest, second.Digest, slices.Sorted(maps.Keys(first.sums)), slices.Sorted(maps.Keys(second.sums)))
	}
	whole(t, first)
}

// whole fails the test for what a release lacks.
func whole(t *testing.T, r *release) {
	t.Helper()
	read := func(name string) string {
		t.Helper()
		content, err := os.ReadFile(filepath.Join(r.dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(content)
	}
	sums, notes := read("SHA256SUMS"), read("notes.md")
	for _, name := range []string{
		"egressip-operator-9.8.7-rc.1.tgz", "install.yaml", "egressips.yaml", "canonical.yaml", "egressip-operator-image.oci.tar",
		"egressip-operator-image_linux_amd64.tar", "egressip-operator-image_linux_arm64.tar", "egressip-operator-image_linux_arm64.cdx.json",
		"egressip-operator_linux_arm64.tar.gz", "kubectl-egressip_linux_amd64.tar.gz", "krew.yaml",
	} {
		if line := fmt.Sprintf("%x  %s\n", sha256.Sum256([]byte(read(name))), name); !strings.Contains(sums, line) {
			t.Errorf("%q is not in SHA256SUMS", line)
		}
	}
	files, err := os.ReadDir(r.dir)
	if lines := strings.Count(sums, "\n"); err != nil || lines != len(files)-2 || lines < 13 {
		t.Errorf("%d checksums of %d files, %v", lines, len(files), err)
	}
	for _, want := range []string{"### Added", r.Digest, "https://example.com/files/egressip-operator-9.8.7-rc.1.tgz", "](" + repository + "/blob/0123abc/docs/design.md#"} {
		if !strings.Contains(notes, want) {
			t.Errorf("the notes have no %q", want)
		}
	}
	if strings.Contains(notes, "](docs/") || strings.Contains(notes, "[Unreleased]") {
		t.Error("the notes have links that lead nowhere on the page")
	}
	if text := read("install.yaml"); strings.Count(text, "image: "+registry+":9.8.7-rc.1\n") != 2 || !strings.Contains(text, "kind: CustomResourceDefinition") {
		t.Errorf("install.yaml has not the images of this version")
	}
	chart(t, filepath.Join(r.dir, "egressip-operator-9.8.7-rc.1.tgz"))
	bom := cdx.NewBOM()
	if err := cdx.NewBOMDecoder(strings.NewReader(read("egressip-operator-image_linux_amd64.cdx.json")), cdx.BOMFileFormatJSON).Decode(bom); err != nil {
		t.Fatal(err)
	}
	var parts []string
	for _, c := range *bom.Components {
		parts = append(parts, c.PackageURL)
	}
	all := strings.Join(parts, "\n")
	for _, want := range []string{"pkg:golang/std@go1.", "pkg:golang/example.com/m@v1.0.0", "pkg:deb/debian/iptables@1.", "pkg:deb/debian/libc6@2."} {
		if !strings.Contains(all, want) {
			t.Errorf("the list of what the image is made of has no %s:\n%s", want, all)
		}
	}
}

// chart fails the test if helm does not take the packed chart, or it installs another version.
func chart(t *testing.T, path string) {
	t.Helper()
	tools, err := binaries.Dir(t.Context(), "helm")
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), filepath.Join(tools, "helm"), "template", "x", path, "--namespace", "egressip-system", "--kube-version", "1.37.0").CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("image: "+registry+":9.8.7-rc.1\n")) || !bytes.Contains(out, []byte("kind: CustomResourceDefinition")) {
		t.Errorf("helm template of the packed chart: %v: %s", err, out[:min(len(out), 500)])
	}
}

// TestVersionMustFit: a release whose number is not that of the chart is refused, and so is one
// without a section of the changelog; what was released before stays.
func TestVersionMustFit(t *testing.T) {
	t.Chdir("../..")
	for version, want := range map[string]string{"v9.8.7": "Chart.yaml is not 9.8.7", "06dd64c": "make release VERSION=", "": "make release VERSION=", "1.2.3": "make release VERSION="} {
		r := &release{Version: version, dir: t.TempDir()}
		if err := r.make(t.Context(), maker{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("version %q: %v, want %q", version, err, want)
		}
		if _, err := os.Stat(r.dir); err != nil {
			t.Error(err)
		}
	}
	const changelog = "# Changelog\n\n## [Unreleased]\n\n## [1.1.0] - 2026-01-02\n\n### Added\n\n- b\n\n## [1.0.0]\n\n- a\n\n[Unreleased]: x\n"
	for section, want := range map[string]string{"[Unreleased]": "", "[1.1.0]": "### Added\n\n- b\n", "[1.0.0]": "- a\n", "[0.9.0]": ""} {
		got, err := changesIn(changelog, section)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("section %s: %q, %v, want %q", section, got, err, want)
		}
	}
}

// TestPackageURLs: names and versions with characters that mean something in a package URL.
func TestPackageURLs(t *testing.T) {
	r := &release{Version: "v1.0.0", revision: "x"}
	text, err := r.bom("image", []modules.Module{{Path: "example.com/a/v2", Version: "v2.0.0+incompatible", Licence: "MIT", Sum: "h1:x"}},
		[]imagefiles.Package{{Name: "libx", Version: "1:2.0-3", Arch: "arm64", Source: "x", SourceVersion: "1:2.0-3"}})
	if err != nil {
		t.Fatal(err)
	}
	var bom struct {
		SerialNumber, SpecVersion string
		Components                []struct{ PURL string }
	}
	if err := json.NewDecoder(io.Reader(bytes.NewReader(text))).Decode(&bom); err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(bom.Components), "[{pkg:golang/example.com/a/v2@v2.0.0%2Bincompatible} {pkg:deb/debian/libx@1:2.0-3?arch=arm64}]"; got != want || bom.SpecVersion != "1.6" || len(bom.SerialNumber) != len("urn:uuid:")+36 {
		t.Errorf("%+v, want %s", bom, want)
	}
}
