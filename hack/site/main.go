// Command site builds the documentation as a web site, out of the Markdown files of the repository:
//
//	site [-root DIR] [-out DIR]
//
// MkDocs and its theme Material make it, those of Debian's packages, by mkdocs.yml. They read copies
// of the pages, whose links and lists are written for them. What they made is checked: every link
// leads somewhere, and a browser loads nothing from other servers.
//
// Tests of this package check the links of all Markdown files, without MkDocs.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

func main() { os.Exit(run()) }

func run() int {
	root := flag.String("root", ".", "directory of the repository")
	out := flag.String("out", "build/site", "directory to write to: sources to src, the site to html")
	flag.Parse()
	if err := build(context.Background(), *root, *out); err != nil {
		fmt.Fprintln(os.Stderr, "site:", err)
		return 1
	}
	fmt.Printf("The site is in %s: open index.html, or serve it with \"python3 -m http.server -d %[1]s\".\n", filepath.Join(*out, "html"))
	return 0
}

func build(ctx context.Context, root, out string) error {
	pages, err := readPages(root)
	if err != nil {
		return err
	}
	nav, err := readNav(root)
	if err != nil {
		return err
	}
	if err := errors.Join(checkLinks(root, pages), checkNav(nav, pages)); err != nil {
		return err
	}
	source := filepath.Join(out, "src")
	if err := os.RemoveAll(source); err != nil {
		return err
	}
	if err := stage(root, source, nav, pages); err != nil {
		return err
	}
	if err := install(ctx); err != nil {
		return err
	}
	if err := command(ctx, root, mkdocs, "build", "--strict", "--clean", "--quiet", "--site-dir", absolute(filepath.Join(out, "html"))); err != nil {
		return err
	}
	return checkSite(filepath.Join(out, "html"))
}

// mkdocs is the program of Debian's package.
const mkdocs = "/usr/bin/mkdocs"

// install installs MkDocs if it is missing.
func install(ctx context.Context) error {
	if _, err := os.Stat(mkdocs); err == nil {
		return nil
	}
	return command(ctx, "/", "apt-get", "install", "-y", "-q", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300", "mkdocs", "mkdocs-material")
}

func command(ctx context.Context, dir, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// absolute is a path that does not depend on the working directory.
func absolute(p string) string {
	if abs, err := filepath.Abs(p); err == nil {
		return abs
	}
	return p
}
