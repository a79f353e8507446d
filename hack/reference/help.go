package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// programHelp builds a program and describes it and all its commands, as it does itself.
func programHelp(ctx context.Context, root, pkg string) (string, error) {
	dir, err := os.MkdirTemp("", "reference-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	program := filepath.Join(dir, "program")
	build := exec.CommandContext(ctx, "go", "build", "-o", program, pkg)
	build.Dir = root
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // as everything else is compiled, also by the race detector's run
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", pkg, err, out)
	}
	return commandHelp(func(args ...string) (string, error) {
		cmd := exec.CommandContext(ctx, program, append(args, "--help")...)
		cmd.Env = []string{"HOME=/root"} // defaults must not be those of this shell
		out, err := cmd.CombinedOutput()
		if err != nil {
			return "", fmt.Errorf("%s %s --help: %w\n%s", pkg, strings.Join(args, " "), err, out)
		}
		return string(out), nil
	})
}

// commandHelp describes a command and those below it.
func commandHelp(help func(args ...string) (string, error), args ...string) (string, error) {
	text, err := help(args...)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	sections := helpSections(text)
	if len(args) > 0 {
		fmt.Fprintf(&b, "## %s\n\n", strings.Join(args, " "))
	}
	b.WriteString(sections[""] + "\n\n```\n" + unindent(sections["Usage"]) + "\n```\n\n")
	if examples := sections["Examples"]; examples != "" {
		b.WriteString("```\n" + unindent(examples) + "\n```\n\n")
	}
	if table := flagTable(sections["Flags"]); table != "" {
		b.WriteString(table + "\n")
	}
	for line := range strings.Lines(sections["Available Commands"]) {
		name, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		if name == "help" || name == "completion" || name == "" {
			continue
		}
		below, err := commandHelp(help, append(args, name)...)
		if err != nil {
			return "", err
		}
		b.WriteString(below)
	}
	return b.String(), nil
}

// helpSections takes the output of --help apart, by the titles at the beginning of lines. What comes
// before the first has the name "".
func helpSections(text string) map[string]string {
	sections := make(map[string]string)
	title := regexp.MustCompile(`^(Usage|Aliases|Examples|Available Commands|Flags|Global Flags|Additional help topics):$`)
	name := ""
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, " \n")
		if m := title.FindStringSubmatch(line); m != nil {
			name = m[1]
			continue
		}
		if strings.HasPrefix(line, `Use "`) {
			break
		}
		sections[name] += line + "\n"
	}
	for name, text := range sections {
		sections[name] = strings.Trim(text, "\n")
	}
	return sections
}

// unindent takes two spaces from each line.
func unindent(text string) string {
	return strings.TrimPrefix(strings.ReplaceAll(text, "\n  ", "\n"), "  ")
}

// flagTable is a table of flags, out of the lines that describe them.
func flagTable(text string) string {
	form := regexp.MustCompile(`^ +(?:(-\w), +)?(--[\w-]+)(?: (\S+))? {2,}(.*)$`)
	value := regexp.MustCompile(`^(.*?)(?: \(default (.*)\))?$`)
	var b strings.Builder
	for line := range strings.Lines(text) {
		m := form.FindStringSubmatch(strings.TrimRight(line, "\n"))
		if m == nil || m[2] == "--help" {
			continue
		}
		name := m[2]
		if m[3] != "" {
			name += "=" + m[3]
		}
		if m[1] != "" {
			name = m[1] + ", " + name
		}
		v := value.FindStringSubmatch(m[4])
		is := ""
		if v[2] != "" {
			is = "`" + v[2] + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", name, is, cell(v[1]))
	}
	if b.Len() == 0 {
		return ""
	}
	return "| flag | default | meaning |\n|---|---|---|\n" + b.String()
}
