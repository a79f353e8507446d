package main

import (
	"regexp"
	"strings"
	"unicode"
)

// page is a Markdown file.
type page struct {
	text string
	// prose is the text with all code blanked out, so that offsets are the same in both.
	prose string
}

func newPage(text string) page { return page{text: text, prose: blankSpans(blankFences(text))} }

// link is one target that a page names, with the offsets of the target in the page.
type link struct {
	target     string
	start, end int
}

// linkForms are the ways to write a link: inline, as a definition at the end, and in HTML.
func linkForms() []*regexp.Regexp {
	return []*regexp.Regexp{
		regexp.MustCompile(`\]\(([^()\s]+)(?:\s+"[^"]*")?\)`),
		regexp.MustCompile(`(?m)^\[[^\]]+\]:\s+(\S+)`),
		regexp.MustCompile(`(?:href|src)="([^"]*)"`),
	}
}

// links returns the links of a page, without those in code.
func (p page) links() (found []link) {
	for _, form := range linkForms() {
		for _, at := range form.FindAllStringSubmatchIndex(p.prose, -1) {
			found = append(found, link{p.text[at[2]:at[3]], at[2], at[3]})
		}
	}
	return found
}

// anchors returns what may stand behind the # of a link to the page: headings, as GitHub and the
// site name them, and elements with an id.
func (p page) anchors() map[string]bool {
	found := make(map[string]bool)
	heading := regexp.MustCompile(`(?m)^#{1,6} +(.*?)\s*$`)
	for _, at := range heading.FindAllStringSubmatchIndex(p.prose, -1) {
		found[slug(p.text[at[2]:at[3]])] = true
	}
	for _, m := range regexp.MustCompile(`<a (?:id|name)="([^"]*)"`).FindAllStringSubmatch(p.prose, -1) {
		found[m[1]] = true
	}
	return found
}

// slug is the anchor of a heading: its text in small letters, hyphens for spaces, and without
// punctuation.
func slug(heading string) string {
	heading = regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`).ReplaceAllString(heading, "$1")
	return strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case unicode.IsLetter(r), unicode.IsNumber(r), r == '-', r == '_':
			return unicode.ToLower(r)
		}
		return -1
	}, strings.TrimSpace(heading))
}

// blankFences replaces fenced blocks of code by spaces.
func blankFences(text string) string {
	var b strings.Builder
	inside := false
	for line := range strings.Lines(text) {
		fence := strings.HasPrefix(strings.TrimSpace(line), "```")
		if inside || fence {
			b.WriteString(blank(line))
		} else {
			b.WriteString(line)
		}
		inside = inside != fence
	}
	return b.String()
}

// blankSpans replaces code within lines by spaces. It may reach over the end of a line, but not
// over that of a paragraph.
func blankSpans(text string) string {
	out := []byte(text)
	for i := 0; i < len(text); {
		run := backticks(text[i:])
		if run == 0 {
			i++
			continue
		}
		start, end := i+run, -1
		paragraph, _, _ := strings.Cut(text[start:], "\n\n")
		for j := 0; j < len(paragraph); {
			n := backticks(paragraph[j:])
			if n == run {
				end = start + j
				break
			}
			j += max(n, 1)
		}
		if end < 0 { // it is a backtick only
			i = start
			continue
		}
		copy(out[start:end], blank(text[start:end]))
		i = end + run
	}
	return string(out)
}

// backticks counts those that a text begins with.
func backticks(text string) int { return len(text) - len(strings.TrimLeft(text, "`")) }

// blank is spaces and line ends instead of a text, byte by byte.
func blank(text string) string {
	out := []byte(text)
	for i, c := range out {
		if c != '\n' {
			out[i] = ' '
		}
	}
	return string(out)
}
