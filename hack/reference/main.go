// Command reference writes what the documentation and the chart have from code:
//
//	reference [-root DIR]
//
//	docs/metrics.md                the tables of metrics, from the definitions of both components
//	charts/.../dashboard.json      the dashboard for Grafana
//	charts/.../README.md           the table of values, from values.yaml
//
// A test fails if they are not as it would write them.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/egressip-operator/egressip-operator/controllers"
	"github.com/egressip-operator/egressip-operator/pkg/agent"
)

func main() { os.Exit(run()) }

func run() int {
	root := flag.String("root", ".", "directory of the repository")
	flag.Parse()
	files, err := generate(*root)
	if err != nil {
		fmt.Fprintln(os.Stderr, "reference:", err)
		return 1
	}
	for _, f := range files {
		if err := os.WriteFile(filepath.Join(*root, f.path), []byte(f.content), 0o644); err != nil {
			fmt.Fprintln(os.Stderr, "reference:", err)
			return 1
		}
	}
	return 0
}

// file is one that is written, with its path in the repository.
type file struct{ path, content string }

// generate returns all files as they should be.
func generate(root string) ([]file, error) {
	metrics, err := withParts(root, "docs/metrics.md", map[string]string{
		"controller": metricsTable(controllers.MetricDefs()),
		"agent":      metricsTable(agent.MetricDefs()),
		"libraries":  librariesTable(),
	})
	if err != nil {
		return nil, err
	}
	dashboard, err := dashboardJSON()
	if err != nil {
		return nil, fmt.Errorf("write the dashboard: %w", err)
	}
	values, err := readValues(root)
	if err != nil {
		return nil, err
	}
	readme, err := withParts(root, "charts/egressip-operator/README.md", map[string]string{"values": valuesTable(values)})
	if err != nil {
		return nil, err
	}
	return []file{metrics, readme, {"charts/egressip-operator/files/dashboard.json", dashboard}}, nil
}

// withParts returns a file with parts of it written again: each is between two comments that name
// it.
func withParts(root, path string, parts map[string]string) (file, error) {
	content, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		return file{}, err
	}
	text := string(content)
	for name, part := range parts {
		begin, end := "<!-- begin of "+name+" -->\n", "<!-- end of "+name+" -->\n"
		before, rest, ok := strings.Cut(text, begin)
		_, after, ok2 := strings.Cut(rest, end)
		if !ok || !ok2 {
			return file{}, fmt.Errorf("%s has no %q and %q", path, begin, end)
		}
		text = before + begin + part + end + after
	}
	return file{path: path, content: text}, nil
}
