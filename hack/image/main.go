// Command image makes the operator's container image without Docker and
// without a registry, as a docker-archive:
//
//	image [-binary build/egressip-operator] [-tag egressip-operator:dev] [-o build/image.tar]
//
// It holds what the Dockerfile's last stage holds: the static binary, and
// iptables of both backends with their extensions, taken from this machine's
// iptables package.
package main

import (
	"debug/elf"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"github.com/egressip-operator/egressip-operator/hack/dockerarchive"
)

func main() { os.Exit(run()) }

func run() int {
	binary := flag.String("binary", "build/egressip-operator", "the operator's static binary")
	tag := flag.String("tag", "egressip-operator:dev", "the image's name")
	output := flag.String("o", "build/image.tar", "the docker-archive to write")
	flag.Parse()
	if err := write(*binary, *tag, *output); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Printf("%s: %s\n", *output, *tag)
	return 0
}

func write(binary, tag, output string) error {
	files := []dockerarchive.File{
		{Path: "/egressip-operator", Source: binary},
		{Path: "/tmp", Mode: 0o1777},
		{Path: "/run"},
	}
	tables, err := iptables()
	if err != nil {
		return fmt.Errorf("collect iptables: %w", err)
	}
	return dockerarchive.Write(output, dockerarchive.Image{
		Tag:        tag,
		Files:      append(files, tables...),
		Entrypoint: []string{"/egressip-operator"},
		Env:        []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"},
	})
}

// iptables lists the programs of both backends, their usual names, their
// extensions, and the libraries of all of them.
func iptables() ([]dockerarchive.File, error) {
	const nft, legacy = "xtables-nft-multi", "xtables-legacy-multi"
	var files []dockerarchive.File
	var objects []string
	for _, name := range []string{nft, legacy} {
		source, err := exec.LookPath(name)
		if err != nil {
			return nil, fmt.Errorf("%w: apt-get install iptables", err)
		}
		files = append(files, dockerarchive.File{Path: "/usr/sbin/" + name, Source: source})
		objects = append(objects, source)
	}
	for _, family := range []string{"iptables", "ip6tables"} {
		for _, suffix := range []string{"", "-save", "-restore"} {
			files = append(
				files,
				dockerarchive.File{Path: "/usr/sbin/" + family + suffix, Link: nft},
				dockerarchive.File{Path: "/usr/sbin/" + family + "-nft" + suffix, Link: nft},
				dockerarchive.File{Path: "/usr/sbin/" + family + "-legacy" + suffix, Link: legacy},
			)
		}
	}
	extensions, err := filepath.Glob("/usr/lib/*/xtables/*.so")
	if err != nil {
		return nil, err
	}
	if len(extensions) == 0 {
		return nil, errors.New("no extensions in /usr/lib/*/xtables")
	}
	for _, path := range extensions {
		// Some are links to others; a copy serves as well.
		files = append(files, dockerarchive.File{Path: path, Source: path, Mode: 0o644})
	}
	libraries, err := libraries(append(objects, extensions...))
	if err != nil {
		return nil, err
	}
	for _, path := range libraries {
		files = append(files, dockerarchive.File{Path: path, Source: path})
	}
	return files, nil
}

// libraries returns the paths of all shared libraries, and of the loader, that
// objects need, by way of others too, sorted.
func libraries(objects []string) ([]string, error) {
	found := map[string]bool{}
	for len(objects) > 0 {
		object := objects[0]
		objects = objects[1:]
		needed, err := needs(object)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", object, err)
		}
		for _, name := range needed {
			path, err := locate(name)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", object, err)
			}
			if !found[path] {
				found[path] = true
				objects = append(objects, path)
			}
		}
	}
	var paths []string
	for path := range found {
		paths = append(paths, path)
	}
	slices.Sort(paths)
	return paths, nil
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

// locate finds a library where the loader would.
func locate(name string) (string, error) {
	if filepath.IsAbs(name) {
		return name, nil
	}
	for _, pattern := range []string{"/lib/*-linux-gnu/", "/usr/lib/*-linux-gnu/", "/lib64/", "/usr/lib64/", "/lib/", "/usr/lib/"} {
		matches, err := filepath.Glob(pattern + name)
		if err != nil {
			return "", err
		}
		if len(matches) > 0 {
			return matches[0], nil
		}
	}
	return "", fmt.Errorf("library %s: %w", name, fs.ErrNotExist)
}
