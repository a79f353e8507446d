package warning

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// places are the tests, each with its file, that make the cause of a warning, see it, and see it
// gone without its cause.
func places() map[Reason][2]string {
	others := [2]string{"../packet_warnings_test.go", "TestWarningsNameWhatOthersHave"}
	return map[Reason][2]string{
		ForwardingOff:         others,
		NoDefaultRoute:        others,
		ForwardRejects:        others,
		RoutedElsewhere:       others,
		HostUnreachable:       {"../../agent/loop_test.go", "TestLoopWarnsOfUnreachedHosts"},
		IPv6NotServed:         {"../packet_serve6_test.go", "TestIPv6ThatANodeCannotServe"},
		OverlayPortClosed:     others,
		OverlayPortShared:     others,
		PortsRunOut:           {"../packet_warnings_reset_test.go", "TestWarningOfPortsThatRunOut"},
		DefaultRouteElsewhere: others,
		ReversePathFilter:     others,
		ForeignNATFirst:       others,
		RulesFlushed:          {"../packet_warnings_rules_test.go", "TestWarningOfRulesThatAreFlushed"},
		FirstPlaceLost:        {"../packet_first_test.go", "TestOthersPutTheirRulesBeforeOurs"},
		SetsRestored:          {"../packet_warnings_test.go", "TestWarningOfRestoredSets"},
		MarksOverlap:          others,
		IPv6NotDropped:        {"../packet_warnings_rules_test.go", "TestWarningOfIPv6ThatIsNotDropped"},
		SourcesUnchecked:      {"../packet_links_test.go", "TestSourcesThatCannotBeChecked"},
		FilterFirst:           {"../packet_warnings_test.go", "TestWarningOfAFilterBeforeTheGuard"},
		RulesUnreadable:       {"../packet_warnings_rules_test.go", "TestWarningOfRulesThatCannotBeRead"},
		MTUDiffers:            {"../packet_warnings_host_test.go", "TestWarningOfASmallerMTU"},
		IPv6NetworksUnknown:   {"../../agent/decide_test.go", "TestIPv6WithoutNetworksWarns"},
		StrictWithoutEffect:   {"../../agent/decide_warnings_test.go", "TestStrictWithoutNetworksWarns"},
		AddressesOutside:      {"../../agent/decide_warnings_test.go", "TestAddressesThatAreNotPublishedWarn"},
		AnsweredForAll:        {"../segment_test.go", "TestMachineThatAnswersForEverybody"},
		NotWatched:            {"../packet_warnings_segment_test.go", "TestWarningOfOwnersThatAreNotHeard"},
		NotExcluded:           {"../packet_excluded_test.go", "TestAllElseWorksWithoutExcludedNetworks"},
		NotReset:              {"../packet_warnings_reset_test.go", "TestWarningOfResetsThatComeLate"},
		Incomplete:            {"../packet_warnings_host_test.go", "TestWarningOfAnOldIPTables"},
		Unknown:               {"../packet_warnings_host_test.go", "TestWarningOfAKernelThatCannotBeSeen"},
	}
}

// Each reason has a place among the others, and a test that makes and unmakes its cause.
//
// Mutants killed: reason-without-a-place.
func TestEachReasonIsMadeAndUnmade(t *testing.T) {
	var declared []Reason
	for _, decl := range parsed(t, "warning.go").Decls {
		constants, ok := decl.(*ast.GenDecl)
		if !ok || constants.Tok != token.CONST {
			continue
		}
		for _, spec := range constants.Specs {
			if c, ok := spec.(*ast.ValueSpec); ok && named(c.Type, "Reason") {
				declared = append(declared, Reason(c.Names[0].Name))
			}
		}
	}
	if !slices.Equal(declared, Reasons()) {
		t.Errorf("declared are, with the worst first,\n%s\nand the list has\n%s", declared, Reasons())
	}
	where := places()
	for _, r := range declared {
		file, test := where[r][0], where[r][1]
		if file == "" {
			t.Errorf("no test makes and unmakes the cause of %s", r)
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil || !strings.Contains(string(text), "func "+test+"(") || !strings.Contains(string(text), string(r)) {
			t.Errorf("%s is made and unmade by %s in %s: it is not there (%v)", r, test, file, err)
		}
	}
}

// Each warning is made with an object and a remedy, but the one that stands for many. It reads
// the files, so that hack/mutants, which leaves them as they are, cannot plant a mistake here.
func TestEachWarningHasAnObjectAndARemedy(t *testing.T) {
	files, err := filepath.Glob("../*.go")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, file := range append(files, "facts.go", "single.go", "warning.go") {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		for _, decl := range parsed(t, file).Decls {
			f, ok := decl.(*ast.FuncDecl)
			if !ok || f.Name.Name == "Tidy" {
				continue
			}
			ast.Inspect(f, func(n ast.Node) bool {
				literal, ok := n.(*ast.CompositeLit)
				if !ok || !named(literal.Type, "Warning") && !elided(literal) {
					return true
				}
				found++
				for _, field := range []string{"Reason", "Object", "Problem", "Remedy"} {
					if !hasField(literal, field) {
						t.Errorf("%s: a warning in %s has no %s", file, f.Name.Name, field)
					}
				}
				return true
			})
		}
	}
	if found < 30 {
		t.Errorf("found only %d places that make warnings", found)
	}
}

func parsed(t *testing.T, file string) *ast.File {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// named reports whether an expression is a type of that name, of this package or of another.
func named(e ast.Expr, name string) bool {
	if s, ok := e.(*ast.SelectorExpr); ok {
		return s.Sel.Name == name
	}
	i, ok := e.(*ast.Ident)
	return ok && i.Name == name
}

// elided reports whether a literal without a type is one of a warning, in a list of such.
func elided(l *ast.CompositeLit) bool { return l.Type == nil && hasField(l, "Reason") }

func hasField(l *ast.CompositeLit, name string) bool {
	return slices.ContainsFunc(l.Elts, func(e ast.Expr) bool {
		pair, ok := e.(*ast.KeyValueExpr)
		return ok && named(pair.Key, name)
	})
}
