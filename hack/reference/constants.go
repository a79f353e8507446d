package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// constant is one of a package's whose value is text.
type constant struct {
	// typ is the name of its type, "" where it has none of its own.
	name, typ, value string
	// about is its comment as one line, without the name that the comment begins with.
	about string
	// file is the base name of the file that it is in.
	file string
}

// readConstants returns the constants of a package's files, without those of tests, in their order.
func readConstants(root, dir string) ([]constant, error) {
	files, err := sources(filepath.Join(root, dir))
	if err != nil {
		return nil, err
	}
	var found []constant
	for _, f := range files {
		for _, d := range f.tree.Decls {
			if group, ok := d.(*ast.GenDecl); ok && group.Tok == token.CONST {
				found = append(found, constantsIn(f.name, group)...)
			}
		}
	}
	for i := range found {
		found[i].about = inOtherWords(found[i].about, found)
	}
	return found, nil
}

// source is a parsed file.
type source struct {
	name string
	tree *ast.File
}

// sources parses the files of a directory, without those of tests.
func sources(dir string) ([]source, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var files []source
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".go") || strings.HasSuffix(e.Name(), "_test.go") {
			continue
		}
		tree, err := parser.ParseFile(token.NewFileSet(), filepath.Join(dir, e.Name()), nil, parser.ParseComments)
		if err != nil {
			return nil, err
		}
		files = append(files, source{e.Name(), tree})
	}
	return files, nil
}

func constantsIn(file string, group *ast.GenDecl) (found []constant) {
	for _, spec := range group.Specs {
		v, ok := spec.(*ast.ValueSpec)
		if !ok || len(v.Names) != 1 || len(v.Values) != 1 {
			continue
		}
		literal, ok := v.Values[0].(*ast.BasicLit)
		if !ok || literal.Kind != token.STRING {
			continue
		}
		value, err := strconv.Unquote(literal.Value)
		if err != nil {
			continue
		}
		c := constant{name: v.Names[0].Name, value: value, file: file}
		if typ, ok := v.Type.(*ast.Ident); ok {
			c.typ = typ.Name
		}
		comment := v.Doc
		if comment == nil && spec == group.Specs[0] {
			comment = group.Doc
		}
		c.about = strings.Join(strings.Fields(comment.Text()), " ")
		for _, beginning := range []string{c.name, ":", " ", "is the "} {
			c.about = strings.TrimPrefix(c.about, beginning)
		}
		found = append(found, c)
	}
	return found
}

// inOtherWords writes values for the names of constants in a text: readers of the reference know no
// others.
func inOtherWords(text string, constants []constant) string {
	names := regexp.MustCompile(`\b[A-Z][a-z]+[A-Z]\w*\b`)
	return names.ReplaceAllStringFunc(text, func(name string) string {
		if at := slices.IndexFunc(constants, func(c constant) bool { return c.name == name }); at >= 0 {
			return "`" + constants[at].value + "`"
		}
		return name
	})
}

// which returns the constants that a rule chooses; an error if there are none, or one has no
// comment.
func which(constants []constant, what string, rule func(constant) bool) ([]constant, error) {
	var chosen []constant
	for _, c := range constants {
		if !rule(c) {
			continue
		}
		if c.about == "" {
			return nil, fmt.Errorf("constant %s in %s has no comment, and the reference needs one", c.name, c.file)
		}
		chosen = append(chosen, c)
	}
	if len(chosen) == 0 {
		return nil, fmt.Errorf("there are no constants for the table of %s", what)
	}
	return chosen, nil
}

// sentence is a text that begins with a capital and ends with a period.
func sentence(text string) string {
	if text == "" {
		return text
	}
	if !strings.HasPrefix(text, "IPv") && !strings.HasPrefix(text, "`") {
		text = strings.ToUpper(text[:1]) + text[1:]
	}
	return strings.TrimSuffix(text, ".") + "."
}

// cell is a text as it stands in the cell of a table.
func cell(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	return strings.NewReplacer("|", `\|`, "<", "&lt;").Replace(text)
}
