package install_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// alertsIn returns the rules of groups, by the names of alerts.
func alertsIn(t *testing.T, groups []any) map[string]map[string]any {
	t.Helper()
	alerts := make(map[string]map[string]any)
	for _, g := range groups {
		rules, _, err := unstructured.NestedSlice(g.(map[string]any), "rules")
		if err != nil || len(rules) == 0 {
			t.Fatalf("group %v: %v", g, err)
		}
		for _, r := range rules {
			rule := r.(map[string]any)
			alerts[rule["alert"].(string)] = rule
		}
	}
	return alerts
}

// TestRules: the chart's PrometheusRule has the alerts that are tested in test/alerts, and nothing
// else, unless values leave some out or add labels.
func TestRules(t *testing.T) {
	const object = "PrometheusRule egressip-operator"
	text, err := os.ReadFile(filepath.Join(chart, "files/alerts.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var file map[string]any
	if err := yaml.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	rendered := func(set ...string) map[string]map[string]any {
		all, err := render(t, append(set, "prometheusRule.enabled=true")...)
		if err != nil {
			t.Fatal(err)
		}
		groups, _, err := unstructured.NestedSlice(all[object], "spec", "groups")
		if err != nil {
			t.Fatal(err)
		}
		return alertsIn(t, groups)
	}
	want := alertsIn(t, file["groups"].([]any))
	if diff := cmp.Diff(want, rendered()); diff != "" || len(want) < 15 {
		t.Errorf("%d alerts (-file +chart):\n%s", len(want), diff)
	}
	got := rendered("prometheusRule.disabled={EgressIPWarning,EgressIPPoolRefuses}", "prometheusRule.alertLabels.team=net", "prometheusRule.alertLabels.severity=page",
		"prometheusRule.runbookURL=https://wiki.example.com/egress")
	if len(got) != len(want)-2 || got["EgressIPWarning"] != nil {
		t.Errorf("without two alerts: %d of %d", len(got), len(want))
	}
	for name, rule := range got {
		url, _, _ := unstructured.NestedString(rule, "annotations", "runbook_url")
		labels, _, _ := unstructured.NestedStringMap(rule, "labels")
		if url != "https://wiki.example.com/egress#"+strings.ToLower(name) || labels["team"] != "net" || labels["severity"] != "page" {
			t.Errorf("%s: %s, %v", name, url, labels)
		}
	}
	if _, err := render(t, "prometheusRule.enabled=true", "prometheusRule.disabled={EgressIPNone}"); err == nil || !strings.Contains(err.Error(), "there is no alert EgressIPNone") {
		t.Errorf("an alert that does not exist is left out: %v", err)
	}
	all, err := render(t)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := all[object]; ok {
		t.Error("without values, the chart makes a PrometheusRule")
	}
}

// TestDashboard: the ConfigMap has the dashboard as it is generated, where Grafana's sidecar looks.
func TestDashboard(t *testing.T) {
	const object = "ConfigMap egressip-dashboard"
	file, err := os.ReadFile(filepath.Join(chart, "files/dashboard.json"))
	if err != nil {
		t.Fatal(err)
	}
	all, err := render(t, "dashboard.enabled=true", "dashboard.namespace=monitoring", "dashboard.annotations.grafana_folder=Network")
	if err != nil {
		t.Fatal(err)
	}
	c := unstructured.Unstructured{Object: all[object]}
	text, _, err := unstructured.NestedString(c.Object, "data", "egressip-operator.json")
	if err != nil || strings.TrimSpace(text) != strings.TrimSpace(string(file)) {
		t.Errorf("%d bytes, want %d, %v", len(text), len(file), err)
	}
	if c.GetLabels()["grafana_dashboard"] != "1" || c.GetNamespace() != "monitoring" || c.GetAnnotations()["grafana_folder"] != "Network" {
		t.Errorf("in %s, with labels %v and annotations %v", c.GetNamespace(), c.GetLabels(), c.GetAnnotations())
	}
	if all, err = render(t); err != nil || all[object] != nil {
		t.Errorf("without values, the chart makes a dashboard, %v", err)
	}
}
