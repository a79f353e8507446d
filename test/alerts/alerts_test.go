package alerts_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/egressip-operator/egressip-operator/controllers"
	"github.com/egressip-operator/egressip-operator/internal/metric"
	"github.com/egressip-operator/egressip-operator/internal/testenv/debian"
	"github.com/egressip-operator/egressip-operator/pkg/agent"
)

const (
	rulesFile = "../../charts/egressip-operator/files/alerts.yaml"
	casesFile = "testdata/alerts_test.yaml"
	runbooks  = "https://github.com/egressip-operator/egressip-operator/blob/main/docs/troubleshooting.md"
)

// rules is a file of rules, cases one of cases for promtool.
type (
	rules struct {
		Groups []group `json:"groups"`
	}
	group struct {
		Name  string `json:"name"`
		Rules []rule `json:"rules"`
	}
	rule struct {
		Alert       string            `json:"alert"`
		Expr        string            `json:"expr"`
		For         string            `json:"for,omitempty"`
		Labels      map[string]string `json:"labels"`
		Annotations map[string]string `json:"annotations"`
	}
	cases struct {
		Tests []struct {
			AlertRuleTest []struct {
				AlertName string `json:"alertname"`
				ExpAlerts []any  `json:"exp_alerts"`
			} `json:"alert_rule_test"`
		} `json:"tests"`
	}
)

func read(t *testing.T, path string, into any) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.UnmarshalStrict(text, into); err != nil && !strings.Contains(path, "testdata") {
		t.Fatalf("%s: %v", path, err)
	} else if err := yaml.Unmarshal(text, into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

func all(t *testing.T) (list []rule) {
	t.Helper()
	var r rules
	read(t, rulesFile, &r)
	for _, g := range r.Groups {
		list = append(list, g.Rules...)
	}
	return list
}

// promtool runs it. The test is skipped where it cannot be had.
func promtool(t *testing.T, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	path, err := debian.Program(ctx, "prometheus", "usr/bin/promtool")
	if err != nil {
		t.Skip(err)
	}
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	err = cmd.Run()
	return out.String(), err
}

// TestAlerts: Prometheus reads the rules, and each alert does in each case as that says.
func TestAlerts(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"check", "rules", rulesFile}, {"test", "rules", casesFile}} {
		if out, err := promtool(t, args...); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

// TestCasesNotice: for each alert a case fails if it never fires, if it always does, and if it
// does so at once.
func TestCasesNotice(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(casesFile)
	if err != nil {
		t.Fatal(err)
	}
	for name, plant := range map[string]func(*rule) bool{
		"never fires":  func(r *rule) bool { r.Expr = "vector(1) > 2"; return true },
		"always fires": func(r *rule) bool { r.Expr, r.For = "vector(1)", ""; return true },
		"fires at once": func(r *rule) bool {
			waits := r.For != ""
			r.For = ""
			return waits
		},
	} {
		var planted rules
		read(t, rulesFile, &planted)
		var mutants []string
		for _, g := range planted.Groups {
			for i := range g.Rules {
				if plant(&g.Rules[i]) {
					mutants = append(mutants, g.Rules[i].Alert)
				}
			}
		}
		mutant, err := yaml.Marshal(planted)
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		where := filepath.Join(dir, "alerts_test.yaml")
		for path, content := range map[string][]byte{
			where: bytes.Replace(text, []byte("../"+rulesFile), []byte("alerts.yaml"), 1), filepath.Join(dir, "alerts.yaml"): mutant,
		} {
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		out, err := promtool(t, "test", "rules", where)
		for _, alert := range mutants {
			if err == nil || !strings.Contains(out, "alertname: "+alert+",") {
				t.Errorf("%s %s, and no case says so", alert, name)
			}
		}
	}
}

// TestEachAlertHasCases: one in which it fires, and one in which it does not.
func TestEachAlertHasCases(t *testing.T) {
	t.Parallel()
	var c cases
	read(t, casesFile, &c)
	fires, silent := map[string]bool{}, map[string]bool{}
	for _, test := range c.Tests {
		for _, a := range test.AlertRuleTest {
			fires[a.AlertName] = fires[a.AlertName] || len(a.ExpAlerts) > 0
			silent[a.AlertName] = silent[a.AlertName] || len(a.ExpAlerts) == 0
		}
	}
	for _, r := range all(t) {
		if !fires[r.Alert] || !silent[r.Alert] {
			t.Errorf("%s has a case in which it fires: %t, and one in which it does not: %t", r.Alert, fires[r.Alert], silent[r.Alert])
		}
	}
}

// TestAlertsRestOnMetricsOfOurs: each metric, and each label, of an expression is one that a
// component serves, or that Prometheus adds.
func TestAlertsRestOnMetricsOfOurs(t *testing.T) {
	t.Parallel()
	defs := slices.Concat(controllers.MetricDefs(), agent.MetricDefs())
	labels := []string{"instance", "node"}
	for _, d := range defs {
		for _, l := range d.Labels {
			labels = append(labels, l.Name)
		}
	}
	by, matches := regexp.MustCompile(`(?:by|on|without) \(([^)]*)\)`), regexp.MustCompile(`([a-z_]+)!?=~?"`)
	for _, r := range all(t) {
		if unknown := metric.Unknown(r.Expr, defs); len(unknown) > 0 {
			t.Errorf("%s rests on %v, which nothing serves", r.Alert, unknown)
		}
		var used []string
		for _, m := range by.FindAllStringSubmatch(r.Expr, -1) {
			used = append(used, strings.Split(strings.ReplaceAll(m[1], " ", ""), ",")...)
		}
		for _, m := range matches.FindAllStringSubmatch(r.Expr, -1) {
			used = append(used, m[1])
		}
		for _, m := range regexp.MustCompile(`\$labels\.([a-z_]+)`).FindAllStringSubmatch(r.Annotations["description"], -1) {
			used = append(used, m[1])
		}
		for _, label := range used {
			if !slices.Contains(labels, label) {
				t.Errorf("%s uses label %s, which no metric has", r.Alert, label)
			}
		}
	}
}

// TestRunbooks: each alert says what it is about, how bad that is, and leads to a section of its
// name that says what to do; and there is no section of an alert that is gone.
func TestRunbooks(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/troubleshooting.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(page), "\n## Alerts\n")
	section, _, _ = strings.Cut(section, "\n## ")
	if !ok {
		t.Fatal("docs/troubleshooting.md has no section Alerts")
	}
	sections := map[string]string{}
	for part := range strings.SplitSeq(section, "\n### ") {
		if name, text, ok := strings.Cut(part, "\n"); ok && strings.HasPrefix(name, "EgressIP") {
			sections[name] = strings.TrimSpace(text)
		}
	}
	seen := map[string]bool{}
	for _, r := range all(t) {
		if seen[r.Alert] {
			t.Errorf("%s is there twice", r.Alert)
		}
		seen[r.Alert] = true
		if got, want := r.Annotations["runbook_url"], runbooks+"#"+strings.ToLower(r.Alert); got != want {
			t.Errorf("%s leads to %s, want %s", r.Alert, got, want)
		}
		if len(sections[r.Alert]) < 80 {
			t.Errorf("docs/troubleshooting.md says of %s: %q", r.Alert, sections[r.Alert])
		}
		if s := r.Labels["severity"]; s != "critical" && s != "warning" {
			t.Errorf("%s has severity %q", r.Alert, s)
		}
		if r.Annotations["summary"] == "" || r.Annotations["description"] == "" || strings.Contains(r.Annotations["summary"], "{{") {
			t.Errorf("%s says %v", r.Alert, r.Annotations)
		}
	}
	for name := range sections {
		if !seen[name] {
			t.Errorf("docs/troubleshooting.md has a section %s, and there is no such alert", name)
		}
	}
	// Links of the sections lead to headings that exist.
	for _, m := range regexp.MustCompile(`\]\(#([^)]+)\)`).FindAllStringSubmatch(section, -1) {
		if !slices.ContainsFunc(strings.Split(string(page), "\n"), func(line string) bool {
			title, is := strings.CutPrefix(strings.TrimLeft(line, "#"), " ")
			return is && strings.HasPrefix(line, "#") && anchor(title) == m[1]
		}) {
			t.Errorf("there is no heading for #%s", m[1])
		}
	}
}

// anchor is that of a heading, as on GitHub.
func anchor(title string) string {
	kept := regexp.MustCompile(`[^a-z0-9 _-]`).ReplaceAllString(strings.ToLower(title), "")
	return strings.ReplaceAll(kept, " ", "-")
}
