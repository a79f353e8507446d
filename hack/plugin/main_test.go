package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// TestRelease: the archives are those that the checksums and the manifest name. What is built is built by
// "make plugin".
func TestRelease(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(filepath.Join("..", ".."))
	r := release{Version: "v1.2.3", URL: "https://example.com/v1.2.3", dir: dir}
	err := r.make(t.Context(), func(_ context.Context, p platform, version string) ([]byte, error) {
		return []byte(p.OS + p.Arch + version), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	read := func(name string) []byte {
		t.Helper()
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	var manifest struct {
		Spec struct {
			Version   string
			Platforms []struct {
				URI, SHA256, Bin string
				Selector         struct{ MatchLabels map[string]string }
			}
		}
	}
	if err := yaml.UnmarshalStrict(read("egressip.yaml"), &struct {
		APIVersion, Kind string
		Metadata         struct{ Name string }
		Spec             map[string]any
	}{}); err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(read("egressip.yaml"), &manifest); err != nil {
		t.Fatal(err)
	}
	if manifest.Spec.Version != "v1.2.3" || len(manifest.Spec.Platforms) != len(platforms()) {
		t.Errorf("%+v", manifest)
	}
	sums := string(read("checksums.txt"))
	for i, p := range platforms() {
		packed := read(p.Archive())
		sum := fmt.Sprintf("%x", sha256.Sum256(packed))
		got := manifest.Spec.Platforms[i]
		if got.URI != "https://example.com/v1.2.3/"+p.Archive() || got.SHA256 != sum || got.Bin != p.Binary() || got.Selector.MatchLabels["os"] != p.OS {
			t.Errorf("%+v, want %+v with %s", got, p, sum)
		}
		if !strings.Contains(sums, sum+"  "+p.Archive()+"\n") {
			t.Errorf("%s is not in %s", p.Archive(), sums)
		}
		unzipped, err := gzip.NewReader(bytes.NewReader(packed))
		if err != nil {
			t.Fatal(err)
		}
		header, err := tar.NewReader(unzipped).Next()
		if err != nil || header.Name != p.Binary() || header.Mode != 0o755 {
			t.Errorf("%v: %+v", err, header)
		}
	}
}
