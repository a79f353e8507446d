package main

import (
	"fmt"
	"strings"

	"github.com/egressip-operator/egressip-operator/internal/metric"
)

// metricsTable is a table of metrics.
func metricsTable(defs []metric.Def) string {
	var b strings.Builder
	b.WriteString("| metric | type | labels | meaning | series of a process |\n|---|---|---|---|---|\n")
	for _, d := range defs {
		var labels []string
		for _, l := range d.Labels {
			labels = append(labels, "`"+l.Name+"`: "+describe(l))
		}
		bound := d.Bound()
		if d.Type == metric.Histogram {
			bound = fmt.Sprintf("%d, of %d buckets", len(d.Buckets)+3, len(d.Buckets)+1)
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", d.Name, d.Type, strings.Join(labels, "; "), d.Help, bound)
	}
	return b.String()
}

// describe returns the values of a label; those of many are not listed.
func describe(l metric.Label) string {
	const many = 12
	switch {
	case l.Is != "":
		return l.Is
	case len(l.Values) > many:
		return fmt.Sprintf("one of %d, from `%s` to `%s`", len(l.Values), l.Values[0], l.Values[len(l.Values)-1])
	}
	return "`" + strings.Join(l.Values, "`, `") + "`"
}

// librariesTable is a table of the libraries whose metrics are served.
func librariesTable() string {
	var b strings.Builder
	b.WriteString("| prefix | of | says |\n|---|---|---|\n")
	for _, l := range metric.Libraries() {
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", l.Prefix, l.Of, l.Says)
	}
	return b.String()
}
