package install_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	openapi "github.com/google/gnostic-models/openapiv2"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/kube-openapi/pkg/util/proto"
	"k8s.io/kube-openapi/pkg/util/proto/validation"
)

// schemasVariable asks for a test that needs the source of three versions of Kubernetes.
const schemasVariable = "EGRESSIP_TEST_SCHEMAS"

// kubernetes are versions between the oldest and the newest that are supported, by what
// "helm template --kube-version" is told.
func kubernetes() []string { return []string{"1.31.14", "1.34.4", "1.37.2"} }

// combinations are values that make the chart's templates take different ways.
func combinations() map[string][]string {
	return map[string][]string{
		"defaults":             nil,
		"everything":           everything(),
		"pod network":          {"controller.hostNetwork=false", "networkPolicy.enabled=true", "networkPolicy.metricsFrom[0].podSelector.matchLabels.a=b", "agent.updateStrategy=OnDelete"},
		"one node":             {"controller.replicas=1", "controller.priorityClassName=", "agent.priorityClassName=", "agent.tolerations=null", "controller.tolerations=null", "controller.affinity=null"},
		"as little as can be":  {"crds.install=false", "egressIPAPI.enabled=false", "admissionPolicy.install=false", "controller.findNetworks=false", "tests.enabled=false", "metrics.secure=false", "agent.metricsPort=0", "controller.metricsPort=0", "agent.criSocket=none", "agent.resources=null", "controller.resources=null"},
		"a value of 0.1.0":     {"iptablesBackend=nft"},
		"limited and reported": {"controller.kubeAPIQPS=50", "podMonitor.enabled=true", "metrics.secure=false", "prometheusRule.enabled=true", "dashboard.enabled=true"},
	}
}

// models are the schemas of a version of Kubernetes, by group, version and kind.
type models map[string]proto.Schema

// modelsOf reads the schemas that the source of a version has.
func modelsOf(t *testing.T, version string) models {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "mod", "download", "-json", "k8s.io/kubernetes@v"+version).Output()
	if err != nil {
		t.Fatalf("get Kubernetes %s: %v: %s", version, err, out)
	}
	var module struct{ Dir string }
	if err := json.Unmarshal(out, &module); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(module.Dir, "api/openapi-spec/swagger.json"))
	if err != nil {
		t.Fatal(err)
	}
	document, err := openapi.ParseDocument(text)
	if err != nil {
		t.Fatal(err)
	}
	all, err := proto.NewOpenAPIData(document)
	if err != nil {
		t.Fatal(err)
	}
	found := models{}
	for _, name := range all.ListModels() {
		schema := all.LookupModel(name)
		kinds, _ := schema.GetExtensions()["x-kubernetes-group-version-kind"].([]any)
		for _, k := range kinds {
			kind := map[string]string{}
			for key, value := range k.(map[any]any) {
				kind[fmt.Sprint(key)] = fmt.Sprint(value)
			}
			found[strings.TrimPrefix(kind["group"]+"/"+kind["version"], "/")+" "+kind["kind"]] = schema
		}
	}
	if len(found) < 100 {
		t.Fatalf("Kubernetes %s has %d kinds", version, len(found))
	}
	return found
}

// wrong returns what is wrong with an object, and whether its kind is known.
func (m models) wrong(object map[string]any) (errs []error, known bool) {
	u := unstructured.Unstructured{Object: object}
	schema, known := m[u.GetAPIVersion()+" "+u.GetKind()]
	if !known {
		return nil, false
	}
	return validation.ValidateModel(object, schema, u.GetKind()+" "+u.GetName()), true
}

// TestSchemas: what the chart makes with many values, and what config/ has, fits the schemas of the
// oldest, a middle and the newest version of Kubernetes, without a field that these do not know.
// Kinds that Kubernetes itself does not have are named.
func TestSchemas(t *testing.T) {
	if os.Getenv(schemasVariable) == "" {
		t.Skipf("%s is not set: see \"make manifests\"", schemasVariable)
	}
	for _, version := range kubernetes() {
		t.Run(version, func(t *testing.T) {
			known := modelsOf(t, version)
			strange := map[string]bool{}
			look := func(from string, all map[string]map[string]any) {
				t.Helper()
				for name, object := range all {
					errs, ok := known.wrong(object)
					if !ok {
						strange[fmt.Sprint(object["apiVersion"], " ", object["kind"])] = true
					}
					for _, err := range errs {
						t.Errorf("%s: %s: %v", from, name, err)
					}
				}
			}
			for name, values := range combinations() {
				args := []string{"template", "egressip-operator", chart, "--namespace", namespace, "--kube-version", version}
				for _, s := range values {
					args = append(args, "--set", s)
				}
				out, err := run(t.Context(), t, "helm", args...)
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				look("the chart with "+name, objects(t, out))
			}
			for _, dir := range []string{"default", "egressip"} {
				out, err := run(t.Context(), t, "kubectl", "kustomize", "../../config/"+dir)
				if err != nil {
					t.Fatal(err)
				}
				look("config/"+dir, objects(t, out))
			}
			want := []string{"monitoring.coreos.com/v1 PodMonitor", "monitoring.coreos.com/v1 PrometheusRule"}
			if got := slices.Sorted(maps.Keys(strange)); !slices.Equal(got, want) {
				t.Errorf("kinds that Kubernetes %s does not have: %v, want %v", version, got, want)
			}
			// What would not fit is found.
			all, err := render(t)
			if err != nil {
				t.Fatal(err)
			}
			agent := all["DaemonSet egressip-agent"]
			if err := unstructured.SetNestedField(agent, "x", "spec", "template", "spec", "hostNetwrok"); err != nil {
				t.Fatal(err)
			}
			if err := unstructured.SetNestedField(agent, "many", "spec", "template", "spec", "terminationGracePeriodSeconds"); err != nil {
				t.Fatal(err)
			}
			if errs, ok := known.wrong(agent); !ok || len(errs) != 2 {
				t.Errorf("a wrong DaemonSet: %v", errs)
			}
		})
	}
}
