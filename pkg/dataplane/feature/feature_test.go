package feature

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// update is a flag of the test binary, which has no other place for it.
var update = flag.Bool("update", false, "write the table of the docs again") //nolint:gochecknoglobals // a flag

func names(list []Feature) (names []Name) {
	for _, f := range list {
		names = append(names, f.Name)
	}
	return names
}

func TestMissing(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		kernel Kernel
		want   []Name
	}{
		"has all":                          {Kernel{Release: "6.18.0"}, nil},
		"its version decides":              {Kernel{Release: "5.4.0-1-generic"}, []Name{ConnectionFilter, MapMemory}},
		"the first that has it":            {Kernel{Release: "5.8"}, []Name{MapMemory}},
		"a later one":                      {Kernel{Release: "5.18.0"}, nil},
		"a version of one number":          {Kernel{Release: "5"}, nil},
		"no version":                       {Kernel{Release: "next"}, nil},
		"what was tried counts":            {Kernel{Release: "6.1.0-56-amd64", Lacks: []Name{TableOwner, TCX}}, []Name{TCX, TableOwner}},
		"as on a kernel with things added": {Kernel{Release: "5.10.0", Lacks: []Name{TableOwner}}, []Name{MapMemory, TableOwner}},
	} {
		if diff := cmp.Diff(c.want, names(Missing(c.kernel))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestTableIsWhole(t *testing.T) {
	t.Parallel()
	all := All()
	for i, f := range all {
		if f.Use == "" || f.Without == "" || f.Since.before(Version{4, 0}) {
			t.Errorf("%s: %+v", f.Name, f)
		}
		if i > 0 && f.Since.before(all[i-1].Since) {
			t.Errorf("%s comes too late", f.Name)
		}
		if slices.Contains(names(all[:i]), f.Name) {
			t.Errorf("%s is there twice", f.Name)
		}
		// Statuses hold the lines, one for each host.
		if line := f.String(); len(line) > 256 || strings.Contains(line, "\n") {
			t.Errorf("%d bytes: %q", len(line), line)
		}
	}
}

// The table of docs/kernels.md is written from this one, with -update.
func TestTableOfTheDocs(t *testing.T) {
	t.Parallel()
	const begin, end = "<!-- begin of the features -->\n", "<!-- end of the features -->\n"
	path := filepath.Join("..", "..", "..", "docs", "kernels.md")
	doc, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(doc), begin)
	got, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no %q and %q", path, begin, end)
	}
	var want strings.Builder
	want.WriteString("| feature | since Linux | with it | without it | found by |\n|---|---|---|---|---|\n")
	for _, f := range All() {
		by := "trying"
		if f.ByVersion {
			by = "version"
		}
		fmt.Fprintf(&want, "| `%s` | %v | %s | %s | %s |\n", f.Name, f.Since, f.Use, f.Without, by)
	}
	if *update {
		if err := os.WriteFile(path, []byte(before+begin+want.String()+end+after), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want.String(), got); diff != "" {
		t.Errorf("%s (-update writes it again; -want +got):\n%s", path, diff)
	}
}
