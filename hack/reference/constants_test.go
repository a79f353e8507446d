package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestReadConstants: with types, comments in other words, and those of a group.
func TestReadConstants(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"a.go": `package a

type Reason string

const (
	// ReasonGood: it is
	// as ModeOne says.
	ReasonGood Reason = "Good"
	ReasonBare Reason = "Bare"
)

// ModeOne is the mode.
const ModeOne = "one"

const number = 3
`,
		"a_test.go": "package a\n\nconst inTests = \"x\"\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	is, err := readConstants(dir, ".")
	if err != nil {
		t.Fatal(err)
	}
	want := []constant{
		{name: "ReasonGood", typ: "Reason", value: "Good", about: "it is as `one` says.", file: "a.go"},
		{name: "ReasonBare", typ: "Reason", value: "Bare", file: "a.go"},
		{name: "ModeOne", value: "one", about: "mode.", file: "a.go"},
	}
	if diff := cmp.Diff(want, is, cmp.AllowUnexported(constant{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
