package matrix

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Files, relative to the repository.
const (
	ResultsFile = "test/matrix/results.json"
	Document    = "docs/compatibility-matrix.md"
)

// How a step ended.
const (
	pass = "pass"
	fail = "fail"
)

// Result is what came of one cell.
type Result struct {
	Cell string `json:"cell"`
	// Date is the day on which it was run, Commit what was run.
	Date   string `json:"date"`
	Commit string `json:"commit"`
	// CNI is the version of its program, or of the package of its plugin.
	CNI        string `json:"cni"`
	Kubernetes string `json:"kubernetes"`
	Containerd string `json:"containerd"`
	Kernel     string `json:"kernel"`
	// Steps are "pass" or "fail" by Step.Key; those that were not reached are missing.
	Steps   map[string]string `json:"steps"`
	Seconds int               `json:"seconds"`
}

// Passed reports whether every step did.
func (r Result) Passed() bool {
	for _, s := range Steps() {
		if r.Steps[s.Key] != pass {
			return false
		}
	}
	return true
}

// String lists the steps.
func (r Result) String() string {
	var parts []string
	for _, s := range Steps() {
		parts = append(parts, s.Key+": "+cmp.Or(r.Steps[s.Key], "not run"))
	}
	return strings.Join(parts, ", ")
}

// Outcomes reads what became of each step out of the output of "go test -v".
func Outcomes(output string) map[string]string {
	outcomes := map[string]string{}
	for _, s := range Steps() {
		name := "TestCell/" + strings.ReplaceAll(s.Name, " ", "_") + " ("
		switch {
		case strings.Contains(output, "--- PASS: "+name):
			outcomes[s.Key] = pass
		case strings.Contains(output, "--- FAIL: "+name):
			outcomes[s.Key] = fail
		}
	}
	return outcomes
}

// Read returns the results below a repository: none if there is no file.
func Read(root string) ([]Result, error) {
	data, err := os.ReadFile(filepath.Join(root, ResultsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read results: %w", err)
	}
	var results []Result
	if err := json.Unmarshal(data, &results); err != nil {
		return nil, fmt.Errorf("read results: %s: %w", ResultsFile, err)
	}
	return results, nil
}

// Write puts a result in place of the cell's former one, and the results of all cells into
// the document. Results of cells that are no more go.
func Write(root string, results []Result, fresh ...Result) error {
	byCell := map[string]Result{}
	for _, r := range slices.Concat(results, fresh) {
		byCell[r.Cell] = r
	}
	kept := []Result{}
	for _, c := range Cells() {
		if r, ok := byCell[c.Name()]; ok {
			kept = append(kept, r)
		}
	}
	data, err := json.MarshalIndent(kept, "", "  ")
	if err != nil {
		return fmt.Errorf("write results: %w", err)
	}
	if err := os.WriteFile(filepath.Join(root, ResultsFile), append(data, '\n'), 0o644); err != nil {
		return fmt.Errorf("write results: %w", err)
	}
	path := filepath.Join(root, Document)
	document, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("write table: %w", err)
	}
	text, err := Insert(string(document), Table(kept))
	if err != nil {
		return err
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		return fmt.Errorf("write table: %w", err)
	}
	return nil
}

// The table's place in the document.
const (
	begin = "<!-- matrix: written by \"make matrix\" -->\n"
	end   = "<!-- /matrix -->\n"
)

// Insert puts a table into its place in the document.
func Insert(document, table string) (string, error) {
	before, rest, ok := strings.Cut(document, begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		return "", fmt.Errorf("%s has no place for the table", Document)
	}
	return before + begin + table + end + after, nil
}

// Table renders the results of all cells, run or not.
func Table(results []Result) string {
	var b strings.Builder
	heads := []string{"CNI", "kube-proxy", "node's iptables", "our rules", "played by"}
	for _, s := range Steps() {
		heads = append(heads, s.Key)
	}
	heads = append(heads, "run on", "with")
	row(&b, heads)
	row(&b, slices.Repeat([]string{"---"}, len(heads)))
	for _, c := range Cells() {
		i := slices.IndexFunc(results, func(r Result) bool { return r.Cell == c.Name() })
		family := "IPv4"
		if c.IPv6 {
			family = "IPv6"
		}
		cells := []string{string(c.CNI), string(c.Proxy), string(c.Node), c.Rules, family}
		var r Result
		if i >= 0 {
			r = results[i]
			cells[0] += " " + r.CNI
		}
		for _, s := range Steps() {
			switch r.Steps[s.Key] {
			case pass:
				cells = append(cells, "yes")
			case fail:
				cells = append(cells, "**no**")
			default:
				cells = append(cells, "not run")
			}
		}
		if i < 0 {
			row(&b, append(cells, "not run", ""))
			continue
		}
		row(&b, append(cells, r.Date, fmt.Sprintf("%s; Kubernetes %s, containerd %s, Linux %s", r.Commit, r.Kubernetes, r.Containerd, r.Kernel)))
	}
	return b.String()
}

// row writes a row of a table in Markdown.
func row(b *strings.Builder, cells []string) {
	fmt.Fprintf(b, "| %s |\n", strings.Join(cells, " | "))
}
