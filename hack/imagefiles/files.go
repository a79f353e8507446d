package imagefiles

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/egressip-operator/egressip-operator/hack/dockerarchive"
)

// Image returns the operator's image, with packages of a root. binary is the operator's, licences
// are those of all that it is made of.
func Image(root Root, tag, binary string, licences []byte) (dockerarchive.Image, error) {
	files := []dockerarchive.File{
		{Path: "/egressip-operator", Source: binary},
		{Path: "/tmp", Mode: 0o1777},
		{Path: "/run"},
		{Path: "/usr/share/doc/egressip-operator/licences.txt", Content: licences, Mode: 0o644},
	}
	tables, err := root.iptables()
	if err != nil {
		return dockerarchive.Image{}, fmt.Errorf("collect iptables: %w", err)
	}
	about, err := root.about()
	if err != nil {
		return dockerarchive.Image{}, fmt.Errorf("collect what Debian says of its packages: %w", err)
	}
	return dockerarchive.Image{
		Tag:        tag,
		Arch:       root.Arch,
		Files:      slices.Concat(files, tables, about),
		Entrypoint: []string{"/egressip-operator"},
		Env:        []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"},
	}, nil
}

// triplet is the name of the root's architecture in paths of libraries.
func (r Root) triplet() (string, error) {
	triplet, ok := map[string]string{"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}[r.Arch]
	if !ok {
		return "", fmt.Errorf("no image for %s, only for amd64 and arm64", r.Arch)
	}
	return triplet, nil
}

// iptables lists the programs of both backends, their usual names, their
// extensions, and the libraries of all of them.
func (r Root) iptables() ([]dockerarchive.File, error) {
	const nft, legacy = "xtables-nft-multi", "xtables-legacy-multi"
	triplet, err := r.triplet()
	if err != nil {
		return nil, err
	}
	var files []dockerarchive.File
	var objects []string
	take := func(path string, mode int64) error {
		source, err := r.resolve(path)
		if err == nil {
			// Some are links to others; a copy serves as well.
			files = append(files, dockerarchive.File{Path: path, Source: source, Mode: mode})
			objects = append(objects, source)
		}
		return err
	}
	for _, name := range []string{nft, legacy} {
		if err := take("/usr/sbin/"+name, 0o755); err != nil {
			return nil, err
		}
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
	extensions, err := filepath.Glob(filepath.Join(r.Dir, "usr/lib", triplet, "xtables/*.so"))
	if err != nil {
		return nil, err
	}
	if len(extensions) == 0 {
		return nil, errors.New("no extensions in /usr/lib/" + triplet + "/xtables")
	}
	for _, path := range extensions {
		if err := take("/usr/lib/"+triplet+"/xtables/"+filepath.Base(path), 0o644); err != nil {
			return nil, err
		}
	}
	libraries, err := r.libraries(triplet, objects)
	return append(files, libraries...), err
}

// about lists what Debian says of the packages, where scanners look for it in images without
// dpkg, and their copyrights.
func (r Root) about() ([]dockerarchive.File, error) {
	release, err := r.resolve("/usr/lib/os-release")
	if err != nil {
		return nil, err
	}
	files := []dockerarchive.File{
		{Path: "/usr/lib/os-release", Source: release, Mode: 0o644},
		{Path: "/etc/os-release", Link: "../usr/lib/os-release"},
	}
	for _, p := range r.Packages {
		path := "/usr/share/doc/" + p.Name + "/copyright"
		copyright, err := r.resolve(path)
		if err != nil {
			return nil, err
		}
		files = append(
			files,
			dockerarchive.File{Path: path, Source: copyright, Mode: 0o644},
			dockerarchive.File{Path: "/var/lib/dpkg/status.d/" + p.Name, Content: []byte(p.Control), Mode: 0o644},
		)
	}
	return files, nil
}

// Tree writes the files of an image to a directory, for a Dockerfile.
func Tree(dir string, image dockerarchive.Image) error {
	for _, f := range image.Files {
		if err := place(filepath.Join(dir, f.Path), f); err != nil {
			return fmt.Errorf("write %s below %s: %w", f.Path, dir, err)
		}
	}
	return nil
}

func place(path string, f dockerarchive.File) error {
	mode := os.FileMode(0o755)
	if f.Mode != 0 {
		mode = os.FileMode(f.Mode & 0o777)
		if f.Mode&0o1000 != 0 {
			mode |= os.ModeSticky
		}
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	content := f.Content
	switch {
	case f.Link != "":
		return os.Symlink(f.Link, path)
	case f.Source != "":
		var err error
		if content, err = os.ReadFile(f.Source); err != nil {
			return err
		}
	case content == nil:
		return errors.Join(os.MkdirAll(path, 0o755), os.Chmod(path, mode))
	}
	return errors.Join(os.WriteFile(path, content, 0o644), os.Chmod(path, mode))
}
