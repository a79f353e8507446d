package main

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// readPages returns all Markdown files of the repository, by their paths in it.
func readPages(root string) (map[string]page, error) {
	pages := make(map[string]page)
	err := filepath.WalkDir(root, func(at string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && slices.Contains([]string{".git", "build", "_output", "node_modules"}, d.Name()):
			return fs.SkipDir
		case d.IsDir() || filepath.Ext(at) != ".md":
			return nil
		}
		text, err := os.ReadFile(at)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, at)
		pages[filepath.ToSlash(rel)] = newPage(string(text))
		return err
	})
	return pages, err
}

// outside reports whether a link leads out of the repository.
func outside(target string) bool {
	return strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:")
}

// resolve returns the file of the repository that a link on a page leads to, and the anchor there.
func resolve(from, target string) (file, anchor string) {
	file, anchor, _ = strings.Cut(target, "#")
	if file == "" {
		return from, anchor
	}
	return path.Join(path.Dir(from), file), anchor
}

// checkLinks finds links to files, and to places in pages, that are not there.
func checkLinks(root string, pages map[string]page) error {
	anchors := make(map[string]map[string]bool, len(pages))
	for name, p := range pages {
		anchors[name] = p.anchors()
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(pages)) {
		for _, l := range pages[name].links() {
			if outside(l.target) {
				continue
			}
			file, anchor := resolve(name, l.target)
			if _, err := os.Stat(filepath.Join(root, file)); err != nil || strings.HasPrefix(file, "../") {
				errs = append(errs, fmt.Errorf("%s: link %s: there is no file %s", name, l.target, file))
				continue
			}
			_, isPage := pages[file]
			if anchor != "" && isPage && !anchors[file][anchor] {
				errs = append(errs, fmt.Errorf("%s: link %s: %s has no heading or id of that name", name, l.target, file))
			}
		}
	}
	return errors.Join(errs...)
}
