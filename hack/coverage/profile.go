package main

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
)

// minStatements is the size below which a file is too small to be named.
const minStatements = 10

// count counts statements.
type count struct{ covered, all int }

func (c *count) add(other count) {
	c.covered += other.covered
	c.all += other.all
}

// percent is 100 where there is nothing to cover.
func (c count) percent() float64 {
	if c.all == 0 {
		return 100
	}
	return 100 * float64(c.covered) / float64(c.all)
}

// read returns the statements of each file of a profile, by the file's path in the
// module. A block that the profile has several times, as it does where several test
// programs run the same package, is covered if it is in one of them.
func read(profile io.Reader, module string) (map[string]count, error) {
	type block struct {
		file, place string
	}
	type state struct {
		statements int
		covered    bool
	}
	blocks := map[block]state{}
	scanner := bufio.NewScanner(profile)
	for scanner.Scan() {
		line := scanner.Text()
		if strings.HasPrefix(line, "mode: ") || line == "" {
			continue
		}
		// path/file.go:12.34,56.78 STATEMENTS TIMES
		file, rest, ok := strings.Cut(line, ":")
		fields := strings.Fields(rest)
		if !ok || len(fields) != 3 {
			return nil, fmt.Errorf("%q is no line of a coverage profile", line)
		}
		statements, err := strconv.Atoi(fields[1])
		if err != nil {
			return nil, fmt.Errorf("%q: number of statements: %w", line, err)
		}
		times, err := strconv.ParseUint(fields[2], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%q: how often they ran: %w", line, err)
		}
		key := block{file: strings.TrimPrefix(file, module+"/"), place: fields[0]}
		blocks[key] = state{statements: statements, covered: times > 0 || blocks[key].covered}
	}
	if err := scanner.Err(); err != nil {
		return nil, err
	}
	files := map[string]count{}
	for b, s := range blocks {
		c := count{all: s.statements}
		if s.covered {
			c.covered = s.statements
		}
		sum := files[b.file]
		sum.add(c)
		files[b.file] = sum
	}
	return files, nil
}

// report prints the packages, and the least covered files.
func report(out io.Writer, files map[string]count, least int) error {
	packages := map[string]count{}
	var all count
	var candidates []string
	for _, file := range slices.Sorted(maps.Keys(files)) {
		c := files[file]
		if generated(file) {
			continue
		}
		sum := packages[path.Dir(file)]
		sum.add(c)
		packages[path.Dir(file)] = sum
		if shipped(file) {
			all.add(c)
			if c.all >= minStatements {
				candidates = append(candidates, file)
			}
		}
	}
	slices.SortStableFunc(candidates, func(a, b string) int { return cmp.Compare(files[a].percent(), files[b].percent()) })

	tab := tabwriter.NewWriter(out, 0, 8, 3, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tab, "COVERED\tSTATEMENTS\t  PACKAGE")
	row := func(c count, name string) { fmt.Fprintf(tab, "%.1f%%\t%d\t  %s\n", c.percent(), c.all, name) }
	for _, name := range slices.Sorted(maps.Keys(packages)) {
		row(packages[name], name)
	}
	row(all, "all that is shipped")
	fmt.Fprintln(tab, "\nLEAST COVERED\tSTATEMENTS\t  FILE")
	for _, file := range candidates[:min(least, len(candidates))] {
		row(files[file], file)
	}
	return tab.Flush()
}

// generated reports whether a file is generated.
func generated(file string) bool { return strings.HasPrefix(path.Base(file), "zz_generated") }

// shipped reports whether a file is part of the programs that users run.
func shipped(file string) bool {
	for _, dir := range []string{"test/", "hack/", "internal/testenv/"} {
		if strings.HasPrefix(file, dir) {
			return false
		}
	}
	return true
}
