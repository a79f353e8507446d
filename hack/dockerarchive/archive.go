// Package dockerarchive writes container images as docker-archive tarballs,
// which "docker load" and "ctr images import" take, without Docker and without
// a registry. An image has one layer. The same files give the same bytes.
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
)

// File is a file of an image: the contents of Source, a file of this machine,
// or a symbolic link to Link, or an empty directory where both are empty.
type File struct {
	// Path is absolute, in the image.
	Path   string
	Source string
	Link   string
	// Mode holds permission bits; 0 means 0755.
	Mode int64
}

// Image is a container image.
type Image struct {
	// Tag is the image's name, such as egressip-operator:dev.
	Tag        string
	Files      []File
	Entrypoint []string
	Cmd        []string
	Env        []string
}

// Write writes an image to a file; the file appears under its name when it is
// whole.
func Write(target string, image Image) (err error) {
	layer, err := layer(image.Files)
	if err != nil {
		return fmt.Errorf("write image %s: %w", image.Tag, err)
	}
	config, err := json.Marshal(map[string]any{
		"architecture": runtime.GOARCH,
		"os":           "linux",
		"config":       map[string]any{"Entrypoint": image.Entrypoint, "Cmd": image.Cmd, "Env": image.Env},
		"rootfs":       map[string]any{"type": "layers", "diff_ids": []string{fmt.Sprintf("sha256:%x", sha256.Sum256(layer))}},
		"history":      []any{map[string]any{"created_by": "dockerarchive"}},
	})
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
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return fmt.Errorf("write image %s: %w", image.Tag, err)
	}
	f, err := os.CreateTemp(filepath.Dir(target), ".image-*")
	if err != nil {
		return fmt.Errorf("write image %s: %w", image.Tag, err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("write image %s: %w", image.Tag, errors.Join(err, os.Remove(f.Name())))
		}
	}()
	w := tar.NewWriter(f)
	for _, part := range []struct {
		name    string
		content []byte
	}{{"manifest.json", manifest}, {configName, config}, {"layer.tar", layer}} {
		header := &tar.Header{Name: part.name, Mode: 0o644, Size: int64(len(part.content)), Format: tar.FormatPAX}
		if err := w.WriteHeader(header); err != nil {
			return err
		}
		if _, err := w.Write(part.content); err != nil {
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
