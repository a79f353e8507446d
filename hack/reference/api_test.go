package main

import (
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// TestFields: types, what is checked, and no fields of types of Kubernetes.
func TestFields(t *testing.T) {
	t.Parallel()
	var f field
	err := yaml.Unmarshal([]byte(`
type: object
required: [ips]
properties:
  kind: {type: string}
  ips:
    description: "the | addresses"
    type: array
    maxItems: 8
    items: {type: string, minLength: 1, x-kubernetes-validations: [{rule: isIP(self), message: give an address}]}
  mode: {type: string, enum: [a, b], default: a}
  share: {type: integer, minimum: 0, maximum: 16777215}
  when: {type: string, format: date-time}
  selector: {type: object, properties: {matchLabels: {type: object}, matchExpressions: {type: array}}}
  status: {type: object, properties: {hosts: {type: array, items: {type: object, properties: {name: {type: string, pattern: "^a|b$"}}}}}}
`), &f)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	writeFields(&b, "", f)
	const want = "| `ips` | list of string | the \\| addresses | required; at most 8 entries; each: at least 1 characters; each: give an address |\n" +
		"| `mode` | string |  | default `a`; one of `a`, `b` |\n" +
		"| `selector` | label selector |  |  |\n" +
		"| `share` | integer |  | 0 to 16777215 |\n" +
		"| `status` | object |  |  |\n" +
		"| `status.hosts` | list of object |  |  |\n" +
		"| `status.hosts[].name` | string |  | pattern `^a\\|b$` |\n" +
		"| `when` | time |  |  |\n"
	if b.String() != want {
		t.Errorf("\n%s, want\n%s", b.String(), want)
	}
}
