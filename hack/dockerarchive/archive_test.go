package dockerarchive

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// entries reads a tarball.
func entries(t *testing.T, r io.Reader) (names []string, contents map[string][]byte) {
	t.Helper()
	contents = map[string][]byte{}
	for archive := tar.NewReader(r); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return names, contents
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, header.Name)
		if header.Linkname != "" {
			content = []byte("-> " + header.Linkname)
		}
		contents[header.Name] = content
	}
}

func image(t *testing.T) Image {
	t.Helper()
	source := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(source, []byte("program"), 0o755); err != nil {
		t.Fatal(err)
	}
	return Image{
		Tag: "example:dev",
		Files: []File{
			{Path: "/usr/sbin/program", Source: source},
			{Path: "/usr/sbin/link", Link: "program"},
			{Path: "/tmp", Mode: 0o1777},
		},
		Entrypoint: []string{"/usr/sbin/program"},
	}
}

func TestImageHoldsItsFilesBelowTheirDirectories(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deep", "image.tar")
	if err := Write(path, image(t)); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	_, outer := entries(t, bytes.NewReader(data))
	var manifest []struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	if err := json.Unmarshal(outer["manifest.json"], &manifest); err != nil || len(manifest) != 1 || manifest[0].RepoTags[0] != "example:dev" {
		t.Fatalf("manifest: %s, %v", outer["manifest.json"], err)
	}
	layer := outer[manifest[0].Layers[0]]
	var config struct {
		RootFS struct {
			DiffIDs []string `json:"diff_ids"`
		} `json:"rootfs"`
	}
	if err := json.Unmarshal(outer[manifest[0].Config], &config); err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("sha256:%x", sha256.Sum256(layer)); config.RootFS.DiffIDs[0] != want {
		t.Errorf("diff id %s, want %s", config.RootFS.DiffIDs[0], want)
	}
	names, files := entries(t, bytes.NewReader(layer))
	if want := []string{"tmp/", "usr/", "usr/sbin/", "usr/sbin/link", "usr/sbin/program"}; !slices.Equal(names, want) {
		t.Errorf("layer holds %v, want %v", names, want)
	}
	if string(files["usr/sbin/program"]) != "program" || string(files["usr/sbin/link"]) != "-> program" {
		t.Errorf("contents: %q", files)
	}
}

// Same bytes: an image that did not change is not loaded again.
func TestSameFilesSameBytes(t *testing.T) {
	i := image(t)
	dir := t.TempDir()
	for _, name := range []string{"a", "b"} {
		if err := Write(filepath.Join(dir, name), i); err != nil {
			t.Fatal(err)
		}
		slices.Reverse(i.Files)
	}
	a, errA := os.ReadFile(filepath.Join(dir, "a"))
	b, errB := os.ReadFile(filepath.Join(dir, "b"))
	if errA != nil || errB != nil || !bytes.Equal(a, b) {
		t.Errorf("different images: %v, %v", errA, errB)
	}
}

func TestFailureLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	for _, f := range []File{{Path: "relative"}, {Path: "/missing", Source: filepath.Join(dir, "missing")}} {
		if err := Write(filepath.Join(dir, "image.tar"), Image{Tag: "x:1", Files: []File{f}}); err == nil {
			t.Errorf("%+v was accepted", f)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
