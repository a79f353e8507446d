package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	yaml "go.yaml.in/yaml/v3"
	sigsyaml "sigs.k8s.io/yaml"
)

// value is one of the chart's values that has no values of its own below it.
type value struct {
	name, is, about string
}

// readValues returns the values of the chart in their order, with their defaults and comments.
func readValues(root string) ([]value, error) {
	path := filepath.Join(root, "charts/egressip-operator/values.yaml")
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var document yaml.Node
	if err := yaml.Unmarshal(text, &document); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return valuesIn(document.Content[0], "", "")
}

// valuesIn returns the values of a mapping. about is the comment above it, which is that of its
// first value, too, if that is a switch.
func valuesIn(mapping *yaml.Node, prefix, about string) (values []value, err error) {
	for i := 0; i < len(mapping.Content); i += 2 {
		key, is := mapping.Content[i], mapping.Content[i+1]
		name, comment := prefix+key.Value, prose(key.HeadComment)
		if is.Kind == yaml.MappingNode && len(is.Content) > 0 && !isMap(name) {
			below, err := valuesIn(is, name+".", comment)
			if err != nil {
				return nil, err
			}
			values = append(values, below...)
			continue
		}
		if i == 0 && comment == "" {
			comment = about
		}
		var decoded any
		if err := is.Decode(&decoded); err != nil {
			return nil, fmt.Errorf("value %s: %w", name, err)
		}
		json, err := sigsyaml.Marshal(decoded)
		if err == nil {
			json, err = sigsyaml.YAMLToJSON(json)
		}
		if err != nil {
			return nil, fmt.Errorf("value %s: %w", name, err)
		}
		values = append(values, value{name: name, is: string(json), about: comment})
	}
	return values, nil
}

// isMap reports whether the keys of a value are the user's, or those of an object of Kubernetes.
func isMap(name string) bool {
	_, last, ok := strings.Cut(name, ".")
	if !ok {
		last = name
	}
	switch last {
	case "resources", "affinity", "nodeSelector", "labels", "annotations":
		return true
	}
	return false
}

// prose is a comment in one line.
func prose(comment string) string {
	var words []string
	for line := range strings.Lines(comment) {
		words = append(words, strings.Fields(strings.TrimPrefix(strings.TrimSpace(line), "#"))...)
	}
	return strings.Join(words, " ")
}

// valuesTable is a table of values.
func valuesTable(values []value) string {
	var b strings.Builder
	b.WriteString("| value | default | |\n|---|---|---|\n")
	for _, v := range values {
		fmt.Fprintf(&b, "| `%s` | `%s` | %s |\n", v.name, v.is, v.about)
	}
	return b.String()
}
