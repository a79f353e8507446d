// Package archives packs files for a release: the same files give the same bytes.
package archives

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
)

// File is a file of an archive.
type File struct {
	Name       string
	Content    []byte
	Executable bool
}

// Tarball packs files, in their order, as tar.gz.
func Tarball(files ...File) ([]byte, error) {
	var b bytes.Buffer
	zipped := gzip.NewWriter(&b)
	tarred := tar.NewWriter(zipped)
	for _, f := range files {
		mode := int64(0o644)
		if f.Executable {
			mode = 0o755
		}
		if err := tarred.WriteHeader(&tar.Header{Name: f.Name, Mode: mode, Size: int64(len(f.Content))}); err != nil {
			return nil, fmt.Errorf("pack %s: %w", f.Name, err)
		}
		if _, err := tarred.Write(f.Content); err != nil {
			return nil, fmt.Errorf("pack %s: %w", f.Name, err)
		}
	}
	err := errors.Join(tarred.Close(), zipped.Close())
	return b.Bytes(), err
}

// Files unpacks a tar.gz. It takes regular files alone.
func Files(packed io.Reader) ([]File, error) {
	zipped, err := gzip.NewReader(packed)
	if err != nil {
		return nil, fmt.Errorf("unpack: %w", err)
	}
	var files []File
	for t := tar.NewReader(zipped); ; {
		header, err := t.Next()
		if errors.Is(err, io.EOF) {
			return files, nil
		}
		if err != nil {
			return nil, fmt.Errorf("unpack: %w", err)
		}
		if header.Typeflag != tar.TypeReg {
			continue
		}
		content, err := io.ReadAll(t)
		if err != nil {
			return nil, fmt.Errorf("unpack %s: %w", header.Name, err)
		}
		files = append(files, File{Name: header.Name, Content: content, Executable: header.Mode&0o100 != 0})
	}
}
