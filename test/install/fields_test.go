package install_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// fieldsFile has the fields that definitions had in the last release, a line each, but for
// HostSubnet.status.agent.watches of 0.1.0, which went before there was this test.
const fieldsFile = "testdata/fields.golden"

var updateFields = flag.Bool("update", false, "write the golden file again") //nolint:gochecknoglobals // a flag

// fields returns the fields of the definitions, with their types.
func fields(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(chart, "files/crds/*.yaml"))
	if err != nil || len(files) < 5 {
		t.Fatalf("definitions %v, %v", files, err)
	}
	var all []string
	var below func(path string, node map[string]any)
	below = func(path string, node map[string]any) {
		properties, _ := node["properties"].(map[string]any)
		for name, field := range properties {
			field := field.(map[string]any)
			all = append(all, fmt.Sprint(path, ".", name, " ", field["type"]))
			below(path+"."+name, field)
		}
		for key, mark := range map[string]string{"items": "[]", "additionalProperties": ".*"} {
			if deeper, ok := node[key].(map[string]any); ok {
				below(path+mark, deeper)
			}
		}
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var crd struct {
			Spec struct {
				Group    string
				Names    struct{ Kind string }
				Versions []struct {
					Name   string
					Schema struct{ OpenAPIV3Schema map[string]any }
				}
			}
		}
		if err := yaml.Unmarshal(text, &crd); err != nil {
			t.Fatal(err)
		}
		for _, v := range crd.Spec.Versions {
			below(crd.Spec.Group+"/"+v.Name+" "+crd.Spec.Names.Kind, v.Schema.OpenAPIV3Schema)
		}
	}
	slices.Sort(all)
	return all
}

// TestFieldsStay: no field of the last release's definitions is removed, or has another type. The
// API server refuses the whole status of an agent of that release that has a field which it does not
// know, and so controllers would not learn what the agent does. -update writes the fields of today:
// after a release.
func TestFieldsStay(t *testing.T) {
	is := fields(t)
	if *updateFields {
		if err := os.WriteFile(fieldsFile, []byte(strings.Join(is, "\n")+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(fieldsFile)
	if err != nil {
		t.Fatal(err)
	}
	was := strings.Split(strings.TrimSpace(string(text)), "\n")
	for _, field := range was {
		if !slices.Contains(is, field) {
			t.Errorf("field %s of the last release has gone: agents of that release would not be able to report", field)
		}
	}
	if len(was) < 50 {
		t.Errorf("%d fields in %s", len(was), fieldsFile)
	}
}
