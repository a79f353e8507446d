package main

import (
	"bytes"
	_ "embed"
	"fmt"
	"os"
	"regexp"
	"strings"
	"text/template"
)

//go:embed notes.md.tmpl
var page string

// notes are what the release's page says.
func (r *release) notes() ([]byte, error) {
	changelog, err := os.ReadFile("CHANGELOG.md")
	if err != nil {
		return nil, err
	}
	section := "[" + r.number() + "]"
	if r.prerelease() {
		section = "[Unreleased]"
	}
	changes, err := changesIn(string(changelog), section)
	if err != nil {
		return nil, err
	}
	t, err := template.New("notes").Parse(page)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = t.Execute(&b, map[string]string{
		"Changes": r.absolute(changes), "Number": r.number(), "Version": r.Version, "URL": r.URL,
		"Image": registry + ":" + r.number() + "@" + r.Digest, "Digest": r.Digest, "Registry": registry,
	})
	return b.Bytes(), err
}

// changesIn returns a section of a changelog, without its heading.
func changesIn(changelog, section string) (string, error) {
	_, rest, ok := strings.Cut(changelog, "\n## "+section)
	if !ok {
		return "", fmt.Errorf("CHANGELOG.md has no section %s: see docs/release.md", section)
	}
	_, rest, _ = strings.Cut(rest, "\n")
	changes, _, _ := strings.Cut(rest, "\n## ")
	changes, _, _ = strings.Cut(changes, "\n[Unreleased]: ")
	if strings.TrimSpace(changes) == "" {
		return "", fmt.Errorf("section %s of CHANGELOG.md is empty: see docs/release.md", section)
	}
	return strings.TrimSpace(changes) + "\n", nil
}

// absolute has links into the repository lead to this version's files.
func (r *release) absolute(text string) string {
	at := r.Version
	if r.prerelease() {
		at = r.revision
	}
	return regexp.MustCompile(`\]\(((?:docs|charts|config|test)/|[A-Z]+\.md)`).ReplaceAllString(text, "]("+repository+"/blob/"+at+"/$1")
}
