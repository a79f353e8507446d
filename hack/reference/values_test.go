package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Each value is explained, and has a place in the schema; and what the schema allows has a default,
// so that it is in the table. Objects of the chart take no unknown keys.
func TestValuesAndTheirSchema(t *testing.T) {
	t.Parallel()
	values, err := readValues(root)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(root, "charts/egressip-operator/values.schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	var whole schema
	if err := json.Unmarshal(text, &whole); err != nil {
		t.Fatal(err)
	}
	allowed := map[string]bool{}
	whole.walk(t, whole, "", allowed)
	explained := map[string]bool{ // by their names
		"image.repository": true, "image.pullPolicy": true, "crds.install": true,
	}
	for _, v := range values {
		if v.about == "" && !explained[v.name] {
			for _, suffix := range []string{".resources", ".nodeSelector", ".tolerations", ".podAnnotations", ".podLabels", ".extraEnv", ".maxUnavailable"} {
				explained[v.name] = explained[v.name] || strings.HasSuffix(v.name, suffix)
			}
			if !explained[v.name] {
				t.Errorf("values.yaml has no comment on %s", v.name)
			}
		}
		if !allowed[v.name] {
			t.Errorf("the schema does not know %s", v.name)
		}
		delete(allowed, v.name)
	}
	delete(allowed, "iptablesBackend") // of version 0.1.0
	delete(allowed, "global")          // Helm's own
	for name := range allowed {
		t.Errorf("the schema knows %s, and values.yaml does not", name)
	}
	if len(values) < 60 {
		t.Errorf("%d values", len(values))
	}
}

// schema is a part of the schema.
type schema struct {
	Ref                  string            `json:"$ref"`
	Type                 any               `json:"type"`
	Properties           map[string]schema `json:"properties"`
	Definitions          map[string]schema `json:"definitions"`
	AdditionalProperties any               `json:"additionalProperties"`
	Items                *schema           `json:"items"`
}

// walk adds the names that a part allows.
func (whole schema) walk(t *testing.T, s schema, name string, allowed map[string]bool) {
	t.Helper()
	if ref, ok := strings.CutPrefix(s.Ref, "#/definitions/"); ok {
		target, ok := whole.Definitions[ref]
		if !ok {
			t.Errorf("%s: no definition of %s", name, ref)
		}
		s = target
	}
	switch {
	case len(s.Properties) > 0 && s.AdditionalProperties != false:
		t.Errorf("the schema takes unknown keys in %q", name)
	case len(s.Properties) == 0 || isMap(name):
		allowed[name] = true
		return
	}
	for key, below := range s.Properties {
		whole.walk(t, below, strings.TrimPrefix(name+"."+key, "."), allowed)
	}
}
