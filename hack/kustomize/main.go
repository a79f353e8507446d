// Command kustomize writes config/ from the chart, so that the two ways of
// installing cannot drift apart:
//
//	helm template ... | kustomize [-o config]
//
// Each object goes to the directory of its kind; what says that Helm made it is
// left out.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	sigsyaml "sigs.k8s.io/yaml"
)

func main() { os.Exit(run()) }

func run() int {
	out := flag.String("o", "config", "directory to write to")
	flag.Parse()
	if err := write(os.Stdin, *out); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func write(in io.Reader, dir string) error {
	files := map[string]*bytes.Buffer{}
	decoder := yaml.NewYAMLOrJSONDecoder(in, 4096)
	for {
		var object unstructured.Unstructured
		err := decoder.Decode(&object)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read the rendered chart: %w", err)
		}
		if len(object.Object) == 0 {
			continue
		}
		if _, hook := object.GetAnnotations()["helm.sh/hook"]; hook {
			continue // kubectl runs none
		}
		path, ok := place(object.GetKind())
		if !ok {
			return fmt.Errorf("%s %s: no place in %s for this kind", object.GetKind(), object.GetName(), dir)
		}
		withoutHelm(object.Object)
		text, err := sigsyaml.Marshal(object.Object)
		if err != nil {
			return fmt.Errorf("write %s %s: %w", object.GetKind(), object.GetName(), err)
		}
		if files[path] == nil {
			files[path] = bytes.NewBufferString("# Generated from the chart by \"make generate\".\n")
		}
		files[path].WriteString("---\n")
		files[path].Write(text)
	}
	for _, path := range slices.Sorted(maps.Keys(files)) {
		if err := os.WriteFile(filepath.Join(dir, path), files[path].Bytes(), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func place(kind string) (string, bool) {
	path, ok := map[string]string{
		"ServiceAccount":                   "rbac/rbac.yaml",
		"ClusterRole":                      "rbac/rbac.yaml",
		"ClusterRoleBinding":               "rbac/rbac.yaml",
		"Role":                             "rbac/rbac.yaml",
		"RoleBinding":                      "rbac/rbac.yaml",
		"Deployment":                       "manager/controller.yaml",
		"PodDisruptionBudget":              "manager/controller.yaml",
		"DaemonSet":                        "agent/agent.yaml",
		"ValidatingAdmissionPolicy":        "admission/policy.yaml",
		"ValidatingAdmissionPolicyBinding": "admission/policy.yaml",
		"MutatingAdmissionPolicy":          "canonical/policy.yaml",
		"MutatingAdmissionPolicyBinding":   "canonical/policy.yaml",
	}[kind]
	return path, ok
}

// withoutHelm removes the labels that Helm's conventions require, at any depth: pod
// templates have them too.
func withoutHelm(v any) {
	switch v := v.(type) {
	case map[string]any:
		for _, label := range []string{"helm.sh/chart", "app.kubernetes.io/managed-by", "app.kubernetes.io/instance"} {
			delete(v, label)
		}
		for _, child := range v {
			withoutHelm(child)
		}
	case []any:
		for _, child := range v {
			withoutHelm(child)
		}
	}
}
