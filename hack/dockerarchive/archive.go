// Package dockerarchive writes container images without Docker and without a registry: as
// docker-archive tarballs, which "docker load" and "ctr images import" take, and as tarballs of an
// OCI image layout, which have an image for several platforms. An image has one layer. The same
// files give the same bytes.
package dockerarchive

import (
	"archive/tar"
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// File is a file of an image: the contents of Source, a file of this machine, or Content,
// or a symbolic link to Link, or an empty directory where all of them are empty.
type File struct {
	// Path is absolute, in the image.
	Path    string
	Source  string
	Content []byte
	Link    string
	// Mode holds permission bits; 0 means 0755.
	Mode int64
}

// Image is a container image.
type Image struct {
	// Tag is the image's name, such as egressip-operator:dev.
	Tag string
	// Arch is what it runs on, as Go names it; empty for what this program runs on.
	Arch       string
	Files      []File
	Entrypoint []string
	Cmd        []string
	Env        []string
	// Labels are those of the image, such as org.opencontainers.image.version.
	Labels map[string]string
	// Created is when it was made; the zero time says nothing.
	Created time.Time
}

// config describes an image with a layer.
func (i Image) config(layer []byte) ([]byte, error) {
	config := map[string]any{"Entrypoint": i.Entrypoint, "Cmd": i.Cmd, "Env": i.Env}
	if len(i.Labels) > 0 {
		config["Labels"] = i.Labels
	}
	history := map[string]any{"created_by": "dockerarchive"}
	all := map[string]any{
		"architecture": cmp.Or(i.Arch, runtime.GOARCH),
		"os":           "linux",
		"config":       config,
		"rootfs":       map[string]any{"type": "layers", "diff_ids": []string{digest(layer)}},
		"history":      []any{history},
	}
	if !i.Created.IsZero() {
		created := i.Created.UTC().Format(time.RFC3339)
		all["created"], history["created"] = created, created
	}
	return json.Marshal(all)
}

// digest is that of a blob, as OCI writes it.
func digest(blob []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(blob)) }

// part is a file of an archive.
type part struct {
	name    string
	content []byte
}

// Write writes an image to a file; the file appears under its name when it is
// whole.
func Write(target string, image Image) error {
	layer, err := layer(image.Files)
	if err != nil {
		return fmt.Errorf("write image %s: %w", image.Tag, err)
	}
	config, err := image.config(layer)
	if err != nil {
		return fmt.Errorf("write image %s: %w", image.Tag, err)
	}
	configName := fmt.Sprintf("%x.json", sha256.Sum256(config))
	manifest, err := json.Marshal([]any{map[string]any{
		"Config": configName, "RepoTags": []string{image.Tag}, "Layers": []string{"layer.tar"},
	}})
	if err != nil {
		return fmt.Errorf("write image %s: %w", image.Tag, err)
	}
	if err := save(target, part{"manifest.json", manifest}, part{configName, config}, part{"layer.tar", layer}); err != nil {
		return fmt.Errorf("write image %s: %w", image.Tag, err)
	}
	return nil
}

// save writes parts to a tarball, which appears under its name when it is whole.
func save(target string, parts ...part) (err error) {
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(target), ".image-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	w := tar.NewWriter(f)
	for _, p := range parts {
		header := &tar.Header{Name: p.name, Mode: 0o644, Size: int64(len(p.content)), Format: tar.FormatPAX}
		if err := w.WriteHeader(header); err != nil {
			return err
		}
		if _, err := w.Write(p.content); err != nil {
			return err
		}
	}
	if err := errors.Join(w.Close(), f.Chmod(0o644), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), target)
}

// layer makes the tarball of an image's only layer, parents before children.
func layer(files []File) ([]byte, error) {
	byPath := map[string]File{}
	for _, f := range files {
		if !path.IsAbs(f.Path) || path.Clean(f.Path) != f.Path {
			return nil, fmt.Errorf("path %q is not absolute and clean", f.Path)
		}
		byPath[f.Path] = f
		for dir := path.Dir(f.Path); dir != "/"; dir = path.Dir(dir) {
			if _, ok := byPath[dir]; !ok {
				byPath[dir] = File{Path: dir}
			}
		}
	}
	sorted := make([]File, 0, len(byPath))
	for _, f := range byPath {
		sorted = append(sorted, f)
	}
	slices.SortFunc(sorted, func(a, b File) int { return cmp.Compare(a.Path, b.Path) })
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, f := range sorted {
		if err := add(w, f); err != nil {
			return nil, fmt.Errorf("add %s: %w", f.Path, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

func add(w *tar.Writer, f File) error {
	header := &tar.Header{Name: strings.TrimPrefix(f.Path, "/"), Mode: cmp.Or(f.Mode, 0o755), Format: tar.FormatPAX}
	switch {
	case f.Link != "":
		header.Typeflag, header.Linkname = tar.TypeSymlink, f.Link
	case f.Content != nil:
		header.Typeflag, header.Size = tar.TypeReg, int64(len(f.Content))
		if err := w.WriteHeader(header); err != nil {
			return err
		}
		_, err := w.Write(f.Content)
		return err
	case f.Source == "":
		header.Typeflag = tar.TypeDir
		header.Name += "/"
	default:
		header.Typeflag = tar.TypeReg
		source, err := os.Open(f.Source)
		if err != nil {
			return err
		}
		defer source.Close()
		info, err := source.Stat()
		if err != nil {
			return err
		}
		header.Size = info.Size()
		if err := w.WriteHeader(header); err != nil {
			return err
		}
		_, err = io.Copy(w, source)
		return err
	}
	return w.WriteHeader(header)
}
