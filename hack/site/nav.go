package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	yaml "go.yaml.in/yaml/v3"
)

// settings are the part of mkdocs.yml that is read here.
type settings struct {
	Nav yaml.Node `yaml:"nav"`
}

// readNav returns the pages of the site, as paths in the repository, in their order.
func readNav(root string) ([]string, error) {
	name := filepath.Join(root, "mkdocs.yml")
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	var s settings
	if err := yaml.Unmarshal(text, &s); err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	pages := navPages(&s.Nav)
	if len(pages) == 0 {
		return nil, fmt.Errorf("%s has no pages in nav", name)
	}
	return pages, nil
}

// navPages returns the pages below a part of the navigation: the values that are not lists.
func navPages(n *yaml.Node) (pages []string) {
	if n.Kind == yaml.ScalarNode {
		return []string{n.Value}
	}
	for i, c := range n.Content {
		if n.Kind != yaml.MappingNode || i%2 == 1 { // the others are titles
			pages = append(pages, navPages(c)...)
		}
	}
	return pages
}

// checkNav compares the navigation with the pages that are there.
func checkNav(nav []string, pages map[string]page) error {
	var errs []error
	for i, name := range nav {
		if _, there := pages[name]; !there {
			errs = append(errs, fmt.Errorf("mkdocs.yml: nav has %s, which is not there", name))
		}
		if slices.Contains(nav[:i], name) {
			errs = append(errs, fmt.Errorf("mkdocs.yml: nav has %s twice", name))
		}
	}
	for name := range pages {
		if onSite(name) && !slices.Contains(nav, name) {
			errs = append(errs, fmt.Errorf("%s is not in nav of mkdocs.yml: nobody would find it", name))
		}
	}
	return errors.Join(errs...)
}

// onSite reports whether a page is for readers of the site: forms of GitHub and notes beside test
// data are not.
func onSite(name string) bool {
	return !strings.HasPrefix(name, ".github/") && !strings.Contains(name, "testdata/")
}
