package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
)

// pkg is a package with fuzz tests or benchmarks.
type pkg struct {
	dir              string // as the go command takes it
	fuzz, benchmarks []string
}

// find returns the packages below the directories that have fuzz tests or
// benchmarks, in a fixed order.
func find(dirs ...string) ([]pkg, error) {
	found := map[string]*pkg{}
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case d.IsDir() && path != dir && skipped(path, d.Name()):
				return fs.SkipDir
			case d.IsDir() || !strings.HasSuffix(path, "_test.go"):
				return nil
			}
			fuzz, benchmarks, err := inFile(path)
			if err != nil || len(fuzz)+len(benchmarks) == 0 {
				return err
			}
			at := filepath.Dir(path)
			if found[at] == nil {
				found[at] = &pkg{dir: relative(at)}
			}
			found[at].fuzz = append(found[at].fuzz, fuzz...)
			found[at].benchmarks = append(found[at].benchmarks, benchmarks...)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	var packages []pkg
	for _, dir := range slices.Sorted(maps.Keys(found)) {
		packages = append(packages, *found[dir])
	}
	return packages, nil
}

// skipped reports whether the go command ignores a directory, or it is another module.
func skipped(path, name string) bool {
	if name == "testdata" || name == "vendor" || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") {
		return true
	}
	modules, err := filepath.Glob(filepath.Join(path, "go.mod"))
	return err == nil && len(modules) > 0
}

// relative is a directory as an argument of the go command.
func relative(dir string) string {
	if filepath.IsAbs(dir) {
		return dir
	}
	return "./" + filepath.ToSlash(dir)
}

// inFile returns the names of the fuzz tests and the benchmarks of a file.
func inFile(path string) (fuzz, benchmarks []string, err error) {
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
	if err != nil {
		return nil, nil, err
	}
	for _, declaration := range file.Decls {
		f, ok := declaration.(*ast.FuncDecl)
		if !ok || f.Recv != nil || f.Type.Params.NumFields() != 1 {
			continue
		}
		switch {
		case takes(f, "F") && strings.HasPrefix(f.Name.Name, "Fuzz"):
			fuzz = append(fuzz, f.Name.Name)
		case takes(f, "B") && strings.HasPrefix(f.Name.Name, "Benchmark"):
			benchmarks = append(benchmarks, f.Name.Name)
		}
	}
	return fuzz, benchmarks, nil
}

// takes reports whether the parameter of a function is a *testing.NAME.
func takes(f *ast.FuncDecl, name string) bool {
	star, ok := f.Type.Params.List[0].Type.(*ast.StarExpr)
	if !ok {
		return false
	}
	selector, ok := star.X.(*ast.SelectorExpr)
	return ok && selector.Sel.Name == name
}
