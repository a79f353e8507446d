package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"sigs.k8s.io/yaml"
)

// definition is what is read of a CustomResourceDefinition.
type definition struct {
	Spec struct {
		Group string `json:"group"`
		Names struct {
			Kind       string   `json:"kind"`
			Plural     string   `json:"plural"`
			ShortNames []string `json:"shortNames"`
		} `json:"names"`
		Scope    string `json:"scope"`
		Versions []struct {
			Name   string `json:"name"`
			Schema struct {
				OpenAPI field `json:"openAPIV3Schema"`
			} `json:"schema"`
		} `json:"versions"`
	} `json:"spec"`
}

// field is what is read of a schema.
type field struct {
	Description string           `json:"description"`
	Type        string           `json:"type"`
	Format      string           `json:"format"`
	Properties  map[string]field `json:"properties"`
	Items       *field           `json:"items"`
	Values      *field           `json:"additionalProperties"`
	Required    []string         `json:"required"`
	Default     any              `json:"default"`
	Enum        []any            `json:"enum"`
	Pattern     string           `json:"pattern"`
	Minimum     *float64         `json:"minimum"`
	Maximum     *float64         `json:"maximum"`
	MinItems    *int             `json:"minItems"`
	MaxItems    *int             `json:"maxItems"`
	MinLength   *int             `json:"minLength"`
	MaxLength   *int             `json:"maxLength"`
	Rules       []struct {
		Message string `json:"message"`
		Rule    string `json:"rule"`
	} `json:"x-kubernetes-validations"`
}

// definitions are the files of all kinds, in the order of the reference.
func definitions() []string {
	return []string{
		"config/crd/network.openshift.io_netnamespaces.yaml",
		"config/crd/network.openshift.io_hostsubnets.yaml",
		"config/egressip/k8s.ovn.org_egressips.yaml",
		"config/egressip/egressip.network.openshift.io_egressippools.yaml",
		"config/egressip/egressip.network.openshift.io_egressiprequests.yaml",
	}
}

// kinds describes all kinds with their fields.
func kinds(root string) (string, error) {
	constants, err := readConstants(root, "api/v1")
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, name := range definitions() {
		text, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			return "", err
		}
		var d definition
		if err := yaml.Unmarshal(text, &d); err != nil {
			return "", fmt.Errorf("read %s: %w", name, err)
		}
		if len(d.Spec.Versions) != 1 {
			return "", fmt.Errorf("%s has %d versions, and the reference shows one", name, len(d.Spec.Versions))
		}
		v := d.Spec.Versions[0]
		short := ""
		if len(d.Spec.Names.ShortNames) > 0 {
			short = ", short `" + strings.Join(d.Spec.Names.ShortNames, "`, `") + "`"
		}
		fmt.Fprintf(&b, "## %s\n\n`%s/%s`, %s, `%s`%s.\n\n%s\n\n| field | type | meaning | checked by the API server |\n|---|---|---|---|\n",
			d.Spec.Names.Kind, d.Spec.Group, v.Name, scope(d.Spec.Scope), d.Spec.Names.Plural, short, paragraph(v.Schema.OpenAPI.Description))
		writeFields(&b, "", v.Schema.OpenAPI)
		b.WriteString("\n")
	}
	return inOtherWords(b.String(), constants), nil
}

func scope(s string) string {
	if s == "Namespaced" {
		return "in a namespace"
	}
	return "of the cluster"
}

// writeFields writes a row for each field below one, in order of name, spec before status.
func writeFields(b *strings.Builder, path string, f field) {
	for _, name := range slices.Sorted(maps.Keys(f.Properties)) {
		if path == "" && slices.Contains([]string{"apiVersion", "kind", "metadata"}, name) {
			continue
		}
		p := f.Properties[name]
		fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", path+name, typeOf(p), cell(p.Description), cell(strings.Join(checks(p, slices.Contains(f.Required, name)), "; ")))
		switch {
		case ofKubernetes(p):
		case p.Items != nil && p.Items.Properties != nil && !ofKubernetes(*p.Items):
			writeFields(b, path+name+"[].", *p.Items)
		case p.Properties != nil:
			writeFields(b, path+name+".", p)
		}
	}
}

// ofKubernetes reports whether a field is a type of Kubernetes, whose fields are known.
func ofKubernetes(f field) bool {
	_, selector := f.Properties["matchExpressions"]
	_, condition := f.Properties["lastTransitionTime"]
	return selector || condition && f.Properties["observedGeneration"].Type != ""
}

// typeOf is the type of a field, as the reference shows it.
func typeOf(f field) string {
	switch {
	case f.Type == "array" && f.Items != nil && ofKubernetes(*f.Items):
		return "list of conditions"
	case f.Type == "array" && f.Items != nil:
		return "list of " + typeOf(*f.Items)
	case f.Type == "object" && ofKubernetes(f):
		return "label selector"
	case f.Type == "object" && f.Values != nil:
		return "map of " + typeOf(*f.Values)
	case f.Format == "date-time":
		return "time"
	}
	return f.Type
}

// checks are what the API server asks of a field.
func checks(f field, required bool) (all []string) {
	if required {
		all = append(all, "required")
	}
	if f.Default != nil {
		all = append(all, fmt.Sprintf("default `%v`", f.Default))
	}
	if len(f.Enum) > 0 {
		var values []string
		for _, e := range f.Enum {
			values = append(values, fmt.Sprintf("`%v`", e))
		}
		all = append(all, "one of "+strings.Join(values, ", "))
	}
	if f.Pattern != "" {
		all = append(all, "pattern `"+f.Pattern+"`")
	}
	all = append(all, bounds("", f.Minimum, f.Maximum)...)
	all = append(all, bounds(" entries", f.MinItems, f.MaxItems)...)
	all = append(all, bounds(" characters", f.MinLength, f.MaxLength)...)
	for _, r := range f.Rules {
		if r.Message == "" {
			r.Message = "`" + r.Rule + "`"
		}
		all = append(all, r.Message)
	}
	if f.Items != nil && !ofKubernetes(*f.Items) {
		for _, c := range checks(*f.Items, false) {
			all = append(all, "each: "+c)
		}
	}
	return all
}

// bounds says between which numbers something must be.
func bounds[T int | float64](of string, least, most *T) []string {
	number := func(n T) string { return strconv.FormatFloat(float64(n), 'f', -1, 64) }
	switch {
	case least != nil && most != nil:
		return []string{number(*least) + " to " + number(*most) + of}
	case least != nil:
		return []string{"at least " + number(*least) + of}
	case most != nil:
		return []string{"at most " + number(*most) + of}
	}
	return nil
}

// paragraph is a text in one line.
func paragraph(text string) string { return strings.Join(strings.Fields(text), " ") }

// annotationTable is a table of the annotations that have a meaning.
func annotationTable(root string) (string, error) {
	var b strings.Builder
	b.WriteString("| annotation | meaning |\n|---|---|\n")
	for _, dir := range []string{"api/v1", "api/egressip/v1alpha1", "api/ovn/v1", "pkg/egress"} {
		all, err := readConstants(root, dir)
		if err != nil {
			return "", err
		}
		chosen, err := which(all, "annotations", func(c constant) bool { return strings.HasPrefix(c.name, "Annotation") })
		if err != nil {
			return "", err
		}
		for _, c := range chosen {
			fmt.Fprintf(&b, "| `%s` | %s |\n", c.value, cell(sentence(c.about)))
		}
	}
	return b.String(), nil
}
