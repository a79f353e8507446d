package main

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// checkSite looks at what was built: nothing comes from other servers, each link inside the site
// leads somewhere, and no Markdown was left as it is.
func checkSite(dir string) error {
	files, err := readSite(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(files)) {
		switch path.Ext(name) {
		case ".css":
			errs = append(errs, foreign(name, files[name], `url\(["']?((?:https?:)?//[^)]*)\)|@import\s+["']((?:https?:)?//[^"']*)`))
		case ".html":
			errs = append(errs, foreign(name, files[name], `<(?:link|script|img|iframe|source)\b[^>]*(?:href|src)="((?:https?:)?//[^"]*)"`))
			if name != "404.html" { // its links begin at the server's root
				errs = append(errs, deadLinks(name, files), leftOver(name, files[name]))
			}
		}
	}
	return errors.Join(errs...)
}

// readSite returns all files of a site; only of those that are text it has the content.
func readSite(dir string) (map[string]string, error) {
	files := make(map[string]string)
	err := filepath.WalkDir(dir, func(at string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, at)
		if err != nil {
			return err
		}
		var text []byte
		if ext := filepath.Ext(at); ext == ".html" || ext == ".css" {
			if text, err = os.ReadFile(at); err != nil {
				return err
			}
		}
		files[filepath.ToSlash(rel)] = string(text)
		return nil
	})
	if err == nil && files["index.html"] == "" {
		err = fmt.Errorf("%s has no index.html", dir)
	}
	return files, err
}

// foreign finds what a browser would load from elsewhere.
func foreign(name, text, pattern string) error {
	var errs []error
	for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
		errs = append(errs, fmt.Errorf("%s loads %s from outside", name, strings.Join(m[1:], "")))
	}
	return errors.Join(errs...)
}

// deadLinks finds links inside the site that lead nowhere.
func deadLinks(name string, files map[string]string) error {
	var errs []error
	for _, m := range regexp.MustCompile(`(?:href|src)="([^"]*)"`).FindAllStringSubmatch(files[name], -1) {
		if outside(m[1]) || strings.HasPrefix(m[1], "data:") {
			continue
		}
		to, anchor, _ := strings.Cut(m[1], "#")
		file := name
		if to != "" {
			file = path.Join(path.Dir(name), to)
			if strings.HasSuffix(to, "/") || path.Ext(file) == "" {
				file = path.Join(file, "index.html")
			}
		}
		text, there := files[file]
		switch {
		case !there:
			errs = append(errs, fmt.Errorf("%s: link %s: the site has no %s", name, m[1], file))
		case anchor != "" && path.Ext(file) == ".html" && !strings.Contains(text, `id="`+anchor+`"`) && !strings.Contains(text, `name="`+anchor+`"`):
			errs = append(errs, fmt.Errorf("%s: link %s: %s has no such place", name, m[1], file))
		}
	}
	return errors.Join(errs...)
}

// leftOver finds Markdown in what readers see: it was not recognised.
func leftOver(name, text string) error {
	text = regexp.MustCompile(`(?s)<(pre|code|script|style)\b.*?</(?:pre|code|script|style)>`).ReplaceAllString(text, "")
	for what, pattern := range map[string]string{
		"a fence": "```", "a table": `<p>[^<]*\|[^<]*\|\s*-`, "a list": `(?m)(?:^|<p>)(?:- |\d\. )`, "a link": `\]\([^)]*\)`,
	} {
		if found := regexp.MustCompile(pattern).FindString(text); found != "" {
			return fmt.Errorf("%s shows %s of Markdown as it is: %q", name, what, found)
		}
	}
	return nil
}
