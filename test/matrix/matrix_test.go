package matrix

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/egressip-operator/egressip-operator/internal/testenv/binaries"
)

// The document has the table of the results that are kept, and no other.
func TestDocumentHasTheResults(t *testing.T) {
	root, err := binaries.Repository()
	if err != nil {
		t.Fatal(err)
	}
	results, err := Read(root)
	if err != nil {
		t.Fatal(err)
	}
	document, err := os.ReadFile(filepath.Join(root, Document))
	if err != nil {
		t.Fatal(err)
	}
	want, err := Insert(string(document), Table(results))
	if err != nil || want != string(document) {
		t.Errorf("%s has not the table of %s: run \"go run ./hack/matrix -table\" (%v)", Document, ResultsFile, err)
	}
}

// A cell that was not run says so, and so do the steps after one that failed.
func TestTableSaysWhatWasNotRun(t *testing.T) {
	first := Cells()[0]
	table := Table([]Result{{Cell: first.Name(), CNI: "v1", Date: "2026-01-02", Steps: map[string]string{"story": "pass", "packets": "fail"}}})
	lines := strings.Split(table, "\n")
	if want := "| bridge v1 | iptables | nft | nftables | IPv4 | yes | **no** | not run |"; !strings.HasPrefix(lines[2], want) || !strings.Contains(lines[2], "| 2026-01-02 |") {
		t.Errorf("got %s\nwant %s...", lines[2], want)
	}
	if strings.Contains(lines[3], "yes") || strings.Count(lines[3], "not run") != len(Steps())+1 {
		t.Errorf("a cell without a result: %s", lines[3])
	}
}

func TestOutcomes(t *testing.T) {
	const output = "=== RUN   TestCell/drift_is_repaired\n--- FAIL: TestCell (9s)\n    --- PASS: TestCell/every_kind_of_packet (30.70s)\n    --- FAIL: TestCell/drift_is_repaired (1.00s)\n"
	got := Outcomes(output)
	if len(got) != 2 || got["packets"] != "pass" || got["drift"] != "fail" {
		t.Errorf("got %v", got)
	}
}

func TestCellNames(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range Cells() {
		if seen[c.Name()] {
			t.Errorf("two cells are named %s", c.Name())
		}
		seen[c.Name()] = true
		if found, err := Find(c.Name()); err != nil || found != c {
			t.Errorf("Find(%q) = %+v, %v", c.Name(), found, err)
		}
	}
	if _, err := Find("calico+ipvs"); err == nil || !strings.Contains(err.Error(), "flannel+iptables") {
		t.Errorf("an unknown cell: %v", err)
	}
}
