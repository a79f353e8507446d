package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const root = "../.."

func readAll(t *testing.T) map[string]page {
	t.Helper()
	pages, err := readPages(root)
	if err != nil {
		t.Fatal(err)
	}
	if len(pages) < 50 {
		t.Fatalf("%d pages only", len(pages))
	}
	return pages
}

// TestLinks: each relative link of a Markdown file leads to a file that is there, and each anchor
// to a heading or id.
func TestLinks(t *testing.T) {
	t.Parallel()
	if err := checkLinks(root, readAll(t)); err != nil {
		t.Error(err)
	}
}

// TestNav: the site's navigation has each page once.
func TestNav(t *testing.T) {
	t.Parallel()
	nav, err := readNav(root)
	if err != nil {
		t.Fatal(err)
	}
	if err := checkNav(nav, readAll(t)); err != nil {
		t.Error(err)
	}
}

// TestWrongLinksAreFound: of a file, of a heading, in each form of link, and none in code.
func TestWrongLinksAreFound(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"a.md": "# One `two`, (three)!\n[x](b.md#there) [x](b.md#id) [y](#one-two-three) [z](sub) [o](https://example.com/#x)\n" +
			"`[x](none1.md)` ``a ` [x](none2.md)`` `over\nlines [x](none3.md)`\n```\n[x](none4.md)\n```\n",
		"b.md": "<a id=\"id\"></a>\n## There\n[x](gone.md)\n[x](a.md#gone)\n<a href=\"gone.txt\">x</a>\n[r]: gone2.md\n" +
			"```\n# not a heading\n```\n[x](#not-a-heading)\n[x](../outside.md)\n",
		"sub/c.md": "[x](../a.md)\n",
	} {
		at := filepath.Join(dir, "repository", name)
		if err := os.MkdirAll(filepath.Dir(at), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "outside.md"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	pages, err := readPages(filepath.Join(dir, "repository"))
	if err != nil {
		t.Fatal(err)
	}
	err = checkLinks(filepath.Join(dir, "repository"), pages)
	if err == nil {
		t.Fatal("nothing was found")
	}
	for _, want := range []string{"link gone.md", "link a.md#gone", "link gone.txt", "link gone2.md", "link #not-a-heading", "link ../outside.md"} {
		if !strings.Contains(err.Error(), want+":") {
			t.Errorf("%q is not in:\n%v", want, err)
		}
	}
	if n := strings.Count(err.Error(), "\n") + 1; n != 6 {
		t.Errorf("%d findings:\n%v", n, err)
	}
}

// TestWrongNavIsFound: a page that is missing in the navigation, is there twice, or does not exist.
func TestWrongNavIsFound(t *testing.T) {
	t.Parallel()
	pages := map[string]page{"a.md": {}, "b.md": {}, ".github/form.md": {}, "x/testdata/note.md": {}}
	err := checkNav([]string{"a.md", "a.md", "c.md"}, pages)
	for _, want := range []string{"a.md twice", "c.md, which is not there", "b.md is not in nav"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in: %v", want, err)
		}
	}
	if err != nil && strings.Count(err.Error(), "\n") != 2 {
		t.Errorf("more than that: %v", err)
	}
}

// TestNormalise: lists, tables and code as Python-Markdown reads them.
func TestNormalise(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, is, want string }{
		{"a list after a paragraph", "a\n- b\n  c\n- d", "a\n\n- b\n    c\n- d"},
		{"code in an item", "1. a\n   ```\n   b\n\n   c\n   ```\n2. d", "1. a\n\n    ```\n    b\n\n    c\n    ```\n\n2. d"},
		{"an item after code in one", "1. a\n   ```\n   b\n   ```\n2. c\n   ```\n   d\n   ```\n   e", "1. a\n\n    ```\n    b\n    ```\n\n2. c\n\n    ```\n    d\n    ```\n\n    e"},
		{"a list in an item", "- a\n  - b\n  - c\n\nd", "- a\n\n    - b\n    - c\n\nd"},
		{"code is left alone", "```\na\n- b\n| c |\n```", "```\na\n- b\n| c |\n```"},
		{"a table", "a\n| b |\n|---|\n| c |\nd", "a\n\n| b |\n|---|\n| c |\nd"},
		{"code after a paragraph", "a\n```\nb\n```", "a\n\n```\nb\n```"},
		{"a paragraph after a list", "- a\n\nb\nc", "- a\n\nb\nc"},
	} {
		if got := normalise(tc.is); got != tc.want {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
	}
}

// TestRelink: what is not on the site is in the repository, and a directory is its page.
func TestRelink(t *testing.T) {
	t.Parallel()
	nav := []string{"docs/a.md", "docs/sub/README.md", "b.md"}
	pages := map[string]page{
		"docs/a.md": newPage("[1](../b.md#x) [2](sub) [3](../hack/tool) [4](../c.go#L1) [5](img/p.svg) [6](https://example.com) `[7](../c.go)` [8](sub#y)"),
	}
	const want = "[1](../b.md#x) [2](sub/README.md) [3](" + repository + "hack/tool) [4](" + repository + "c.go#L1) [5](img/p.svg) [6](https://example.com) `[7](../c.go)` [8](sub/README.md#y)"
	if got := relink("docs/a.md", nav, pages); got != want {
		t.Errorf("\n%s, want\n%s", got, want)
	}
}

// TestWrongSiteIsFound: pictures and styles of other servers, dead links, and Markdown that is left.
func TestWrongSiteIsFound(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"index.html": `<a id="top" href="b.html#there">b</a><a href="https://example.com">fine</a><pre>- [x](y)</pre>` +
			`<script src="https://cdn.example.com/x.js"></script><a href="b.html#gone">1</a><a href="c.html">2</a><p>see [x](y.md)</p>`,
		"b.html":   `<h1 id="there">b</h1><p>a` + "\n- b</p>",
		"404.html": `<a href="/nowhere.html">x</a>`,
		"x.css":    `@font-face{src:url(//fonts.example.com/a.woff)} a{b:url(local.png)}`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	err := checkSite(dir)
	for _, want := range []string{"cdn.example.com/x.js", "fonts.example.com", "link b.html#gone", "link c.html", "a link of Markdown", "a list of Markdown"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in: %v", want, err)
		}
	}
	if err := checkSite(t.TempDir()); err == nil {
		t.Error("an empty site is a site")
	}
}

// TestMakeTargets: each target of make that a page names is in the Makefile.
func TestMakeTargets(t *testing.T) {
	t.Parallel()
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("(?m)(?:^ *|`|\\$ )make ((?:[a-z0-9-]+ ?)+)")
	found := 0
	for name, p := range readAll(t) {
		for _, m := range named.FindAllStringSubmatch(p.text, -1) {
			for target := range strings.FieldsSeq(m[1]) {
				found++
				if !strings.Contains("\n"+string(makefile), "\n"+target+":") {
					t.Errorf("%s: make %s: the Makefile has no such target", name, target)
				}
			}
		}
	}
	if found < 30 {
		t.Errorf("%d targets only", found)
	}
}
