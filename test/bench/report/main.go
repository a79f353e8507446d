// Command report writes docs/benchmarks.md and its plots from what benchmarks measured.
//
//	go run ./test/bench/report [-docs docs] [-results test/bench/paths/results]
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"github.com/egressip-operator/egressip-operator/test/bench/figures"
)

func main() {
	docs := flag.String("docs", "docs", "folder of the documentation")
	results := flag.String("results", "test/bench/paths/results", "folder of ways.json and growth.json")
	flag.Parse()
	if err := run(*docs, *results); err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(1)
	}
}

func run(docs, results string) error {
	files, err := render(results)
	if err != nil {
		return err
	}
	for name, content := range files {
		path := filepath.Join(docs, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // documentation
			return err
		}
		if err := os.WriteFile(path, content, 0o644); err != nil { //nolint:gosec // documentation
			return err
		}
	}
	return nil
}

// render returns the files of the report, by their paths in the documentation.
func render(results string) (map[string][]byte, error) {
	var ways, growth figures.Report
	for name, to := range map[string]*figures.Report{"ways.json": &ways, "growth.json": &growth} {
		encoded, err := os.ReadFile(filepath.Join(results, name))
		if err != nil {
			return nil, err
		}
		if err := json.Unmarshal(encoded, to); err != nil {
			return nil, fmt.Errorf("read %s: %w", name, err)
		}
	}
	return map[string][]byte{
		"benchmarks.md":                page(ways, growth),
		"images/benchmarks-ways.svg":   plot(ways, "Ratios of ways with an egress IP to those without"),
		"images/benchmarks-growth.svg": plot(growth, "Ratios with more pods to those with one"),
	}, nil
}
