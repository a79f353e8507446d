package main

import (
	"cmp"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// repository is where links lead whose targets are no pages of the site.
const repository = "https://github.com/egressip-operator/egressip-operator/blob/main/"

// stage copies the pages of the site and their pictures into a directory, with the paths that they
// have in the repository, and written as MkDocs reads them.
func stage(root, into string, nav []string, pages map[string]page) error {
	files := make(map[string]string)
	for _, name := range nav {
		files[name] = normalise(relink(name, nav, pages))
		for _, l := range pages[name].links() {
			if file, _ := resolve(name, l.target); !outside(l.target) && path.Ext(file) == ".svg" {
				picture, err := os.ReadFile(filepath.Join(root, file))
				if err != nil {
					return fmt.Errorf("picture of %s: %w", name, err)
				}
				files[file] = string(picture)
			}
		}
	}
	for name, text := range files {
		to := filepath.Join(into, name)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(to, []byte(text), 0o644); err != nil { //nolint:gosec // a site is for all
			return err
		}
	}
	return nil
}

// relink is a page whose links to files that are not on the site lead to the repository, and those
// to directories to the page in them.
func relink(name string, nav []string, pages map[string]page) string {
	p := pages[name]
	found := p.links()
	slices.SortFunc(found, func(a, b link) int { return cmp.Compare(b.start, a.start) })
	text := p.text
	for _, l := range found {
		if outside(l.target) {
			continue
		}
		file, anchor := resolve(name, l.target)
		var target string
		switch {
		case slices.Contains(nav, file) || path.Ext(file) == ".svg":
			continue
		case slices.Contains(nav, path.Join(file, "README.md")):
			file, _, _ = strings.Cut(l.target, "#")
			target = path.Join(file, "README.md")
		default:
			target = repository + file
		}
		if anchor != "" {
			target += "#" + anchor
		}
		text = text[:l.start] + target + text[l.end:]
	}
	return text
}

// normalise writes Markdown as GitHub reads it in the way that Python-Markdown reads it: what
// belongs to the item of a list is indented by four spaces, and an empty line comes before lists,
// tables and blocks of code.
func normalise(text string) string {
	return strings.Join(blocks(strings.Split(text, "\n")), "\n")
}

func blocks(lines []string) (out []string) {
	item := regexp.MustCompile(`^([-*]|\d+\.) +`)
	loose := false // the last item has more than a paragraph
	for i := 0; i < len(lines); {
		line := lines[i]
		marker := item.FindString(line)
		switch {
		case strings.HasPrefix(line, "```"):
			end := i + 1
			for end < len(lines) && !strings.HasPrefix(lines[end], "```") {
				end++
			}
			end = min(end+1, len(lines))
			out = append(afterEmpty(out), lines[i:end]...)
			if i = end; i < len(lines) {
				out = afterEmpty(out)
			}
			for i < len(lines) && lines[i] == "" {
				i++
			}
		case marker != "":
			end := itemEnd(lines, i+1, len(marker))
			var body []string
			for _, l := range lines[i+1 : end] {
				body = append(body, strings.TrimPrefix(l, l[:min(len(l)-len(strings.TrimLeft(l, " ")), len(marker))]))
			}
			if !inList(out) || loose {
				out = afterEmpty(out)
			}
			body = blocks(append([]string{line[len(marker):]}, body...))
			loose = slices.Contains(body, "")
			for j, l := range body {
				switch {
				case j == 0:
					out = append(out, marker+l)
				case l == "":
					out = append(out, "")
				default:
					out = append(out, "    "+l)
				}
			}
			i = end
		case strings.HasPrefix(line, "|") && len(out) > 0 && !strings.HasPrefix(out[len(out)-1], "|"):
			out = append(afterEmpty(out), line)
			i++
		default:
			out = append(out, line)
			i++
		}
	}
	return out
}

// itemEnd returns where the item of a list ends whose first line is before that: by a line that is
// not indented, unless that goes on with its paragraph.
func itemEnd(lines []string, from, indent int) int {
	end := from
	for i := from; i < len(lines); i++ {
		switch {
		case strings.TrimSpace(lines[i]) == "":
			continue
		case !strings.HasPrefix(lines[i], strings.Repeat(" ", indent)):
			return end
		}
		end = i + 1
	}
	return end
}

// inList reports whether what was written last belongs to a list.
func inList(out []string) bool {
	for _, line := range slices.Backward(out) {
		if line != "" {
			return strings.HasPrefix(line, "    ") || regexp.MustCompile(`^([-*]|\d+\.) `).MatchString(line)
		}
	}
	return false
}

// afterEmpty adds an empty line, unless there is one or nothing yet.
func afterEmpty(out []string) []string {
	if len(out) > 0 && out[len(out)-1] != "" {
		return append(out, "")
	}
	return out
}
