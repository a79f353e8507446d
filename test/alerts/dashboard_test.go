package alerts_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// TestExpressionsOfTheDashboard: Prometheus reads each of them.
func TestExpressionsOfTheDashboard(t *testing.T) {
	t.Parallel()
	var d struct {
		Panels []struct {
			Title   string `json:"title"`
			Targets []struct {
				Expr string `json:"expr"`
			} `json:"targets"`
		} `json:"panels"`
	}
	text, err := os.ReadFile("../../charts/egressip-operator/files/dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	// As recording rules: promtool reads expressions in rules only.
	var records []map[string]string
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			expr := strings.NewReplacer("$__rate_interval", "5m", "$node", ".*").Replace(target.Expr)
			if strings.Contains(expr, "$") {
				t.Errorf("panel %q: a variable that is not known in %s", p.Title, expr)
			}
			records = append(records, map[string]string{"record": fmt.Sprintf("panel%d", len(records)), "expr": expr})
		}
	}
	if len(records) < 30 {
		t.Fatalf("%d expressions", len(records))
	}
	file, err := yaml.Marshal(map[string]any{"groups": []any{map[string]any{"name": "dashboard", "rules": records}}})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "rules.yaml")
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := promtool(t, "check", "rules", path); err != nil {
		t.Errorf("promtool: %v\n%s", err, out)
	}
}
