package imagefiles

import (
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"

	"github.com/egressip-operator/egressip-operator/hack/dockerarchive"
)

// libraries returns all shared libraries, and the loader, that objects need, by way of others
// too, sorted. Objects are paths of this machine.
func (r Root) libraries(triplet string, objects []string) ([]dockerarchive.File, error) {
	found := map[string]string{}
	for len(objects) > 0 {
		object := objects[0]
		objects = objects[1:]
		needed, err := needs(object)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", object, err)
		}
		for _, name := range needed {
			path, source, err := r.locate(triplet, name)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", object, err)
			}
			if found[path] == "" {
				found[path] = source
				objects = append(objects, source)
			}
		}
	}
	var files []dockerarchive.File
	for _, path := range slices.Sorted(maps.Keys(found)) {
		files = append(files, dockerarchive.File{Path: path, Source: found[path]})
	}
	return files, nil
}

// needs returns the libraries and the loader that an object names.
func needs(object string) ([]string, error) {
	f, err := elf.Open(object)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.ImportedLibraries()
	if err != nil {
		return nil, err
	}
	if section := f.Section(".interp"); section != nil {
		loader, err := section.Data()
		if err != nil {
			return nil, err
		}
		names = append(names, string(loader[:len(loader)-1])) // without the final NUL
	}
	return names, nil
}

// locate finds a library where the loader would, and returns its path in the image, and where it
// is on this machine. In the image all libraries are in one directory.
func (r Root) locate(triplet, name string) (path, source string, err error) {
	if filepath.IsAbs(name) {
		source, err = r.resolve(name)
		return name, source, err
	}
	for _, dir := range []string{"/lib/", "/usr/lib/"} {
		source, err := r.resolve(dir + triplet + "/" + name)
		if err == nil {
			return "/usr/lib/" + triplet + "/" + name, source, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return "", "", err
		}
	}
	return "", "", fmt.Errorf("library %s: %w", name, fs.ErrNotExist)
}
