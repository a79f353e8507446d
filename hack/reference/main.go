// Command reference writes what the documentation and the chart have from code:
//
//	reference [-root DIR]
//
//	docs/metrics.md                the tables of metrics, from the definitions of both components
//	docs/reference/api.md          kinds and annotations, from their definitions and comments
//	docs/reference/commands.md     commands and flags of the program, from its --help
//	docs/reference/kubectl-egressip.md   likewise those of the plugin
//	docs/reference/conditions.md   conditions, states and reasons, from constants and their comments
//	docs/reference/events.md       events
//	charts/.../dashboard.json      the dashboard for Grafana
//	charts/.../README.md           the table of values, from values.yaml
//
// A test fails if they are not as it would write them.
package main

import (
	"context"
	"errors"
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
	files, err := generate(context.Background(), *root)
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
func generate(ctx context.Context, root string) ([]file, error) {
	dashboard, err := dashboardJSON()
	if err != nil {
		return nil, fmt.Errorf("write the dashboard: %w", err)
	}
	files := []file{{"charts/egressip-operator/files/dashboard.json", dashboard}}
	for _, page := range []struct {
		path  string
		parts func() (map[string]string, error)
	}{
		{"docs/metrics.md", func() (map[string]string, error) {
			return map[string]string{
				"controller": metricsTable(controllers.MetricDefs()),
				"agent":      metricsTable(agent.MetricDefs()),
				"libraries":  librariesTable(),
			}, nil
		}},
		{"charts/egressip-operator/README.md", one("values", func() (string, error) {
			values, err := readValues(root)
			return valuesTable(values), err
		})},
		{"docs/reference/api.md", func() (map[string]string, error) {
			kinds, err := kinds(root)
			annotations, err2 := annotationTable(root)
			return map[string]string{"kinds": kinds, "annotations": annotations}, errors.Join(err, err2)
		}},
		{"docs/reference/commands.md", one("egressip-operator", func() (string, error) { return programHelp(ctx, root, ".") })},
		{"docs/reference/kubectl-egressip.md", one("kubectl-egressip", func() (string, error) { return programHelp(ctx, root, "./cmd/kubectl-egressip") })},
		{"docs/reference/conditions.md", func() (map[string]string, error) { return reasonTables(root) }},
		{"docs/reference/events.md", one("events", func() (string, error) { return eventTable(root) })},
	} {
		parts, err := page.parts()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", page.path, err)
		}
		f, err := withParts(root, page.path, parts)
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	return files, nil
}

// one is a page with a single part.
func one(name string, part func() (string, error)) func() (map[string]string, error) {
	return func() (map[string]string, error) {
		text, err := part()
		return map[string]string{name: text}, err
	}
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
