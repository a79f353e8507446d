package metric

import (
	"regexp"
	"slices"
	"strings"
)

// Unknown returns the metrics of ours that an expression of PromQL names and that are not
// defined, sorted.
func Unknown(expression string, defs []Def) []string {
	var unknown []string
	for _, name := range regexp.MustCompile(`\begressip_[a-z0-9_]+`).FindAllString(expression, -1) {
		if !slices.ContainsFunc(defs, func(d Def) bool { return d.has(name) }) {
			unknown = append(unknown, name)
		}
	}
	slices.Sort(unknown)
	return slices.Compact(unknown)
}

// has reports whether the series of a metric have a name.
func (d Def) has(name string) bool {
	if d.Type != Histogram {
		return d.Name == name
	}
	suffix, ok := strings.CutPrefix(name, d.Name)
	return ok && slices.Contains([]string{"_bucket", "_sum", "_count"}, suffix)
}
