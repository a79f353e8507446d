package walls

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
)

const module = "github.com/egressip-operator/egressip-operator"

// TestWalls: the production code of this module keeps to the table of
// docs/architecture.md. It fails by a new package without a room, a new import
// across a wall, and a row that no longer fits.
func TestWalls(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	rooms, err := Parse(string(text))
	if err != nil {
		t.Fatalf("docs/architecture.md: %v", err)
	}
	for _, err := range Check(module, rooms, listImports(t)) {
		t.Error(err)
	}
}

// listImports asks the go command for what each package of the module, and each
// package that it needs, imports.
func listImports(t *testing.T) Imports {
	t.Helper()
	noteSources(t)
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "-json=ImportPath,Imports,ImportMap", "./...")
	cmd.Dir = "../.."
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, &stderr)
	}
	imports := Imports{}
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var pkg struct {
			ImportPath string
			Imports    []string
			// ImportMap has the imports whose path is another one than the source
			// says, such as those that the standard library vendors.
			ImportMap map[string]string
		}
		if err := decoder.Decode(&pkg); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		for i, path := range pkg.Imports {
			if mapped, ok := pkg.ImportMap[path]; ok {
				pkg.Imports[i] = mapped
			}
		}
		imports[pkg.ImportPath] = pkg.Imports
	}
	return imports
}

// noteSources reads the directories of the module: the go command then knows that a
// cached result of this test no longer holds once one of their files changes.
func noteSources(t *testing.T) {
	t.Helper()
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && slices.Contains([]string{".git", "build", "_output", "testdata"}, d.Name()) {
			return fs.SkipDir
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
