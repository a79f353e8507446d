package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestPictures: each picture says what it shows, has colours for dark screens, and is on a page.
func TestPictures(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob(filepath.Join(root, "docs", "img", "*.svg"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no pictures: %v", err)
	}
	shown := make(map[string]bool)
	for name, p := range readAll(t) {
		for _, l := range p.links() {
			file, _ := resolve(name, l.target)
			shown[file] = true
		}
		if err := namelessPictures(name, p); err != nil {
			t.Error(err)
		}
	}
	for _, file := range files {
		svg, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		name, _ := filepath.Rel(root, file)
		if err := checkPicture(name, string(svg)); err != nil {
			t.Error(err)
		}
		if !shown[filepath.ToSlash(name)] {
			t.Errorf("%s is on no page", name)
		}
	}
}

// TestPoorPicturesAreFound: without title, description, colours, and with something of others.
func TestPoorPicturesAreFound(t *testing.T) {
	t.Parallel()
	err := checkPicture("a.svg", `<svg role="img"><title id="title"></title><image href="https://example.com/x.png"/></svg>`)
	for _, want := range []string{"no title", "no description", "no role", "no colours", "from outside"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in: %v", want, err)
		}
	}
	if err := namelessPictures("a.md", newPage("![](x.svg)")); err == nil {
		t.Error("a picture without a text")
	}
}
