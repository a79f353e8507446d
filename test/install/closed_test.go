package install_test

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

// open are values whose keys are those of objects of Kubernetes, which an API server knows better,
// and Helm's own.
func open() []string {
	return []string{
		".agent.affinity.nodeAffinity", ".agent.affinity.podAffinity", ".agent.affinity.podAntiAffinity", ".agent.extraEnv[].valueFrom", ".agent.resources.claims[]",
		".controller.affinity.nodeAffinity", ".controller.affinity.podAffinity", ".controller.affinity.podAntiAffinity", ".controller.extraEnv[].valueFrom", ".controller.resources.claims[]",
		".global", ".networkPolicy.metricsFrom[].ipBlock", ".networkPolicy.metricsFrom[].namespaceSelector", ".networkPolicy.metricsFrom[].podSelector",
	}
}

// schemaOf is the schema of the chart's values.
type schemaOf map[string]any

func readSchema(t *testing.T) schemaOf {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(chart, "values.schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	var s schemaOf
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// resolved follows a reference.
func (s schemaOf) resolved(node map[string]any) map[string]any {
	if ref, ok := node["$ref"].(string); ok {
		return s["definitions"].(map[string]any)[strings.TrimPrefix(ref, "#/definitions/")].(map[string]any)
	}
	return node
}

// walk calls each for a part of the schema, and for all below it, with its path.
func (s schemaOf) walk(path string, node map[string]any, each func(path string, node map[string]any)) {
	node = s.resolved(node)
	each(path, node)
	properties, _ := node["properties"].(map[string]any)
	for name, below := range properties {
		s.walk(path+"."+name, below.(map[string]any), each)
	}
	if below, ok := node["additionalProperties"].(map[string]any); ok {
		s.walk(path+".*", below, each)
	}
	if below, ok := node["items"].(map[string]any); ok {
		s.walk(path+"[]", below, each)
	}
}

// TestSchemaIsClosed: at each level of the values, also below lists, a key that is not known is
// refused, and each value has a type or a list of what it may be. What is open is named above.
func TestSchemaIsClosed(t *testing.T) {
	s := readSchema(t)
	var found []string
	nodes := 0
	s.walk("", s, func(path string, node map[string]any) {
		nodes++
		kinds, _ := json.Marshal(node["type"])
		if node["type"] == nil && node["enum"] == nil {
			t.Errorf("value %s may be anything", path)
		}
		if !strings.Contains(string(kinds), `"object"`) {
			if strings.Contains(string(kinds), `"array"`) && node["items"] == nil {
				t.Errorf("list %s may have anything", path)
			}
			return
		}
		switch closed := node["additionalProperties"].(type) {
		case bool:
			if closed {
				t.Errorf("value %s takes unknown keys", path)
			}
		case map[string]any: // all keys are the user's
		default:
			found = append(found, path)
		}
	})
	slices.Sort(found)
	if diff := cmp.Diff(open(), found); diff != "" || nodes < 100 {
		t.Errorf("%d parts; those that take unknown keys (-named +found):\n%s", nodes, diff)
	}
}

// TestSchemaHasEachValue: the schema and values.yaml have the same values, apart from those of
// former versions, those without a default, and Helm's own.
func TestSchemaHasEachValue(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(chart, "values.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var values map[string]any
	if err := yaml.Unmarshal(text, &values); err != nil {
		t.Fatal(err)
	}
	s := readSchema(t)
	var compare func(path string, node map[string]any, values map[string]any)
	compare = func(path string, node map[string]any, values map[string]any) {
		properties, ok := s.resolved(node)["properties"].(map[string]any)
		if !ok {
			return // its keys are the user's
		}
		for name := range values {
			if properties[name] == nil {
				t.Errorf("values.yaml has %s.%s, the schema does not", path, name)
			}
		}
		for name, below := range properties {
			value, ok := values[name]
			switch at := path + "." + name; {
			case at == ".iptablesBackend", at == ".global", strings.Contains(at, ".resources."), strings.Contains(at, ".affinity."):
			case !ok:
				t.Errorf("the schema has %s, values.yaml does not", at)
			default:
				if deeper, ok := value.(map[string]any); ok {
					compare(at, below.(map[string]any), deeper)
				}
			}
		}
	}
	compare("", s, values)
	if len(values) < 15 {
		t.Errorf("values.yaml has %v only", slices.Sorted(maps.Keys(values)))
	}
}
