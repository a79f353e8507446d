package install_test

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/egressip-operator/egressip-operator/internal/testenv/binaries"
)

// TestSupportedVersionsAgree: the chart, the documents and the module that the oldest API
// server is built from (make kubernetes-versions) name the same oldest version.
func TestSupportedVersionsAgree(t *testing.T) {
	const root = "../.."
	var oldest string
	for _, place := range []struct{ file, pattern string }{
		{"charts/egressip-operator/Chart.yaml", `(?m)^kubeVersion: ">=(1\.\d+)\.0-0"$`},
		{"README.md", `(?m)^- Kubernetes (1\.\d+) or later`},
		{"docs/compatibility.md", `(?m)^The oldest supported API server is Kubernetes (1\.\d+)`},
		{filepath.Join(binaries.OldestDir, "go.mod"), `k8s\.io/kubernetes v(1\.\d+)\.`},
	} {
		text, err := os.ReadFile(filepath.Join(root, place.file))
		if err != nil {
			t.Fatal(err)
		}
		found := regexp.MustCompile(place.pattern).FindSubmatch(text)
		switch {
		case found == nil:
			t.Errorf("%s names no oldest version of Kubernetes: it has no %s", place.file, place.pattern)
		case oldest == "":
			oldest = string(found[1])
		case oldest != string(found[1]):
			t.Errorf("%s names Kubernetes %s, the chart %s", place.file, found[1], oldest)
		}
	}
}
