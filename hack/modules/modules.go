// Package modules says which Go modules a program is made of, and under which licences these are.
package modules

import (
	"bytes"
	"context"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Module is a Go module that is linked into a program.
type Module struct {
	Path, Version string
	// Sum is its checksum as in go.sum; the standard library has none.
	Sum string
	// Licence is its licence's SPDX identifier.
	Licence string
	texts   []text
}

// text is a file of a module that has to go with what is made of it.
type text struct {
	name, content string
}

// Of returns the modules that are linked into a binary, the standard library first. All of
// them have a licence that is known here.
func Of(ctx context.Context, binary string) ([]Module, error) {
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		return nil, fmt.Errorf("read the modules of %s: %w", binary, err)
	}
	goroot, err := output(ctx, "env", "GOROOT")
	if err != nil {
		return nil, err
	}
	standard, err := withLicence(Module{Path: "std", Version: info.GoVersion}, strings.TrimSpace(goroot))
	if err != nil {
		return nil, err
	}
	modules := []Module{standard}
	var names []string
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		names = append(names, m.Path+"@"+m.Version)
	}
	if len(names) == 0 {
		return modules, nil
	}
	list, err := output(ctx, append([]string{"mod", "download", "-json"}, names...)...)
	if err != nil {
		return nil, err
	}
	for d := json.NewDecoder(strings.NewReader(list)); ; {
		var m struct{ Path, Version, Sum, Dir string }
		err := d.Decode(&m)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read what go mod download says: %w", err)
		}
		module, err := withLicence(Module{Path: m.Path, Version: m.Version, Sum: m.Sum}, m.Dir)
		if err != nil {
			return nil, err
		}
		modules = append(modules, module)
	}
	slices.SortStableFunc(modules[1:], func(a, b Module) int { return strings.Compare(a.Path, b.Path) })
	return modules, nil
}

// withLicence adds a module's licence, and what else has to go with it, out of its directory.
func withLicence(m Module, dir string) (Module, error) {
	files, err := os.ReadDir(dir)
	if err != nil {
		return m, fmt.Errorf("look for the licence of %s: %w", m.Path, err)
	}
	name := regexp.MustCompile(`(?i)^(licen[cs]e|copying|notice|patents)([-._].*)?$`)
	for _, f := range files {
		if !f.Type().IsRegular() || !name.MatchString(f.Name()) {
			continue
		}
		content, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			return m, err
		}
		m.texts = append(m.texts, text{f.Name(), string(content)})
		if m.Licence == "" {
			m.Licence = identify(string(content))
		}
	}
	if m.Licence == "" {
		return m, fmt.Errorf("module %s %s has no licence that is known here: %d files in %s", m.Path, m.Version, len(m.texts), dir)
	}
	return m, nil
}

// identify returns the SPDX identifier of a licence by its text; empty for one that is none of
// those under which a program may be passed on as a whole.
func identify(licence string) string {
	words := strings.Join(strings.Fields(licence), " ")
	has := func(parts ...string) bool {
		return !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(words, part) })
	}
	switch {
	case has("Apache License", "Version 2.0"):
		return "Apache-2.0"
	case has("Mozilla Public License Version 2.0"), has("Mozilla Public License, version 2.0"):
		return "MPL-2.0"
	case has("Permission is hereby granted, free of charge", "without restriction"):
		return "MIT"
	case has("Permission to use, copy, modify, and", "distribute this software for any purpose with or without fee"):
		return "ISC"
	case has("Redistribution and use in source and binary forms", "Neither the name"):
		return "BSD-3-Clause"
	case has("Redistribution and use in source and binary forms"):
		return "BSD-2-Clause"
	}
	return ""
}

// Licences returns our own licence and those of modules, as one text.
func Licences(own []byte, modules []Module) []byte {
	line := strings.Repeat("=", 80)
	var b bytes.Buffer
	b.Write(own)
	for _, m := range modules {
		for _, t := range m.texts {
			fmt.Fprintf(&b, "\n%s\n%s %s: %s\n%s\n\n%s\n", line, m.Path, m.Version, t.name, line, strings.TrimSpace(t.content))
		}
	}
	return b.Bytes()
}

// output runs the go command and returns what it prints.
func output(ctx context.Context, args ...string) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("go %s: %w: %s", args[0], err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}
