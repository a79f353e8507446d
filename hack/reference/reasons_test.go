package main

import (
	"go/ast"
	"go/token"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestReasonsAreConstants: the reference has the constants. A reason of a condition or an event that
// is a text in the code would be missing there.
func TestReasonsAreConstants(t *testing.T) {
	t.Parallel()
	for _, dir := range []string{"controllers", "pkg/agent", "pkg/egress", "pkg/online", "pkg/dataplane", "pkg/dataplane/warning"} {
		files, err := sources(filepath.Join(root, dir))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			for _, text := range literalReasons(f.tree) {
				t.Errorf("%s/%s: reason %s must be a constant with a comment, for the reference", dir, f.name, text)
			}
		}
	}
}

// literalReasons returns the texts that are used as reasons.
func literalReasons(tree ast.Node) (found []string) {
	word := regexp.MustCompile(`^"[A-Z][A-Za-z0-9]+"$`)
	text := func(e ast.Expr) {
		if l, ok := e.(*ast.BasicLit); ok && l.Kind == token.STRING && word.MatchString(l.Value) {
			found = append(found, l.Value)
		}
	}
	ast.Inspect(tree, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.KeyValueExpr:
			if key, ok := n.Key.(*ast.Ident); ok && (key.Name == "Reason" || key.Name == "reason") {
				text(n.Value)
			}
		case *ast.CallExpr:
			if f, ok := n.Fun.(*ast.SelectorExpr); ok && strings.HasPrefix(f.Sel.Name, "Event") && len(n.Args) > 3 {
				text(n.Args[2])
			}
		}
		return true
	})
	return found
}

// TestIncompleteRemedies: a constant without a remedy, a remedy without a constant, and a constant
// without a comment fail.
func TestIncompleteRemedies(t *testing.T) {
	t.Parallel()
	constants := []constant{{name: "ReasonA", value: "A", about: "it is so"}, {name: "ReasonB", value: "B", about: "it is | not"}}
	table, err := reasonTable(constants, map[string]string{"A": "nothing", "B": "mend it"})
	if err != nil || !strings.Contains(table, "| `A` | It is so. | nothing |\n") || !strings.Contains(table, `It is \| not.`) {
		t.Errorf("%v\n%s", err, table)
	}
	_, err = reasonTable(constants, map[string]string{"A": "nothing", "C": "mend it"})
	for _, want := range []string{"B: hack/reference/remedies.go does not say", "C: hack/reference/remedies.go has it, and there is no"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in: %v", want, err)
		}
	}
	all := func(constant) bool { return true }
	if _, err := which([]constant{{name: "ReasonA", file: "a.go"}}, "reasons", all); err == nil || !strings.Contains(err.Error(), "ReasonA in a.go has no comment") {
		t.Errorf("a constant without a comment: %v", err)
	}
	if _, err := which(nil, "reasons", all); err == nil {
		t.Error("a table without constants")
	}
}
