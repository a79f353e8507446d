package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/egressip-operator/egressip-operator/hack/archives"
	"github.com/egressip-operator/egressip-operator/hack/modules"
)

// TestRelease: the archives are those that the checksums and the manifest name. What is built is built by
// "make plugin".
func TestRelease(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(filepath.Join("..", ".."))
	r := release{Version: "v1.2.3", URL: "https://example.com/v1.2.3", dir: dir}
	err := r.make(t.Context(), func(_ context.Context, p platform, version string) ([]byte, []modules.Module, error) {
		return []byte(p.OS + p.Arch + version), nil, nil
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
		files, err := archives.Files(bytes.NewReader(packed))
		if err != nil || files[0].Name != p.Binary() || !files[0].Executable || len(files) != 3 {
			t.Errorf("%v: %d files", err, len(files))
		}
	}
}
