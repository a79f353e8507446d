package dockerarchive

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// TestOCI: an OCI image layout has an image for each platform, each blob has the digest of its
// name, and the digest that was returned is that of the index of all platforms.
func TestOCI(t *testing.T) {
	dir := t.TempDir()
	first := image(t)
	first.Arch, first.Labels, first.Created = "amd64", map[string]string{"a": "b"}, time.Unix(1e9, 0)
	second := first
	second.Arch = "arm64"
	id, err := WriteOCI(filepath.Join(dir, "a"), first, second)
	if err != nil {
		t.Fatal(err)
	}
	slices.Reverse(first.Files)
	again, err := WriteOCI(filepath.Join(dir, "b"), first, second)
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(filepath.Join(dir, "a"))
	if err != nil {
		t.Fatal(err)
	}
	if other, err := os.ReadFile(filepath.Join(dir, "b")); err != nil || !bytes.Equal(content, other) || again != id {
		t.Errorf("the same files gave other bytes, or digests %s and %s: %v", id, again, err)
	}
	_, files := entries(t, bytes.NewReader(content))
	blob := func(d descriptor, into any) []byte {
		t.Helper()
		content := files["blobs/sha256/"+d.Digest[len("sha256:"):]]
		if len(content) != d.Size || digest(content) != d.Digest {
			t.Fatalf("blob %+v has %d bytes with digest %s", d, len(content), digest(content))
		}
		if into != nil {
			if err := json.Unmarshal(content, into); err != nil {
				t.Fatal(err)
			}
		}
		return content
	}
	var entry, all index
	if err := json.Unmarshal(files["index.json"], &entry); err != nil || len(entry.Manifests) != 1 || entry.Manifests[0].Digest != id ||
		entry.Manifests[0].Annotations["org.opencontainers.image.ref.name"] != "example:dev" {
		t.Fatalf("%+v, %v, want digest %s", entry, err, id)
	}
	blob(entry.Manifests[0], &all)
	for i, arch := range []string{"amd64", "arm64"} {
		var m manifest
		var config struct {
			Architecture, Created string
			Config                struct{ Labels map[string]string }
			RootFS                struct {
				DiffIDs []string `json:"diff_ids"`
			}
		}
		blob(all.Manifests[i], &m)
		blob(m.Config, &config)
		zipped, err := gzip.NewReader(bytes.NewReader(blob(m.Layers[0], nil)))
		if err != nil {
			t.Fatal(err)
		}
		layer, err := io.ReadAll(zipped)
		if err != nil || config.RootFS.DiffIDs[0] != digest(layer) {
			t.Errorf("%s: layer %s, %v, want %v", arch, digest(layer), err, config.RootFS.DiffIDs)
		}
		if is := fmt.Sprint(config.Architecture, all.Manifests[i].Platform.Architecture, config.Created, config.Config.Labels); is != arch+arch+"2001-09-09T01:46:40Zmap[a:b]" {
			t.Errorf("image %d: %s", i, is)
		}
	}
}

// TestContent: a file can have its content in memory, also none.
func TestContent(t *testing.T) {
	tarball, err := layer([]File{{Path: "/a", Content: []byte("x"), Mode: 0o644}, {Path: "/b", Content: []byte{}}, {Path: "/c"}})
	if err != nil {
		t.Fatal(err)
	}
	names, files := entries(t, bytes.NewReader(tarball))
	if !slices.Equal(names, []string{"a", "b", "c/"}) || string(files["a"]) != "x" {
		t.Errorf("%v, %q", names, files)
	}
}
