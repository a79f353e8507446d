package scraped_test

import (
	"strings"
	"testing"

	"github.com/egressip-operator/egressip-operator/internal/metric"
	"github.com/egressip-operator/egressip-operator/internal/testenv/scraped"
)

// Each way in which what is served can differ from what is documented is found.
func TestWrong(t *testing.T) {
	t.Parallel()
	defs := []metric.Def{
		{Name: "egressip_a_total", Help: "A.", Type: metric.Counter, Labels: []metric.Label{{Name: "x", Values: []string{"1"}}}},
		{Name: "egressip_hosts", Help: "B.", Type: metric.Gauge},
	}
	const (
		a = "# HELP egressip_a_total A.\n# TYPE egressip_a_total counter\negressip_a_total{x=\"1\"} 1\n"
		b = "# HELP egressip_hosts B.\n# TYPE egressip_hosts gauge\negressip_hosts 1\n"
	)
	for text, want := range map[string]string{
		a + b: "",
		a:     "egressip_hosts is documented, and not served",
		a + b + "# HELP egressip_c C.\n# TYPE egressip_c gauge\negressip_c 1\n": "egressip_c is served, and not documented",
		a + b + "foreign_x 1\n":                                         "foreign_x is served",
		a + b + "# HELP go_x C.\n# TYPE go_x gauge\ngo_x 1\n":           "",
		a + strings.Replace(b, "B.", "C.", 1):                           "egressip_hosts has the help",
		a + strings.Replace(b, " gauge", " counter", 1):                 "egressip_hosts is a counter",
		b + strings.ReplaceAll(a, `x="1"`, `x="2"`):                     `"2" is not documented`,
		b + strings.ReplaceAll(a, `x="1"`, `y="1"`):                     "label y, which is not documented",
		a + strings.ReplaceAll(b, "egressip_hosts 1", "egressip_hosts"): "not in Prometheus' format",
	} {
		got := strings.Join(scraped.Wrong(text, defs), "\n")
		if want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	minutes := []metric.Def{{Name: "egressip_c_minutes", Help: "C.", Type: metric.Gauge}}
	if got := scraped.Wrong("# HELP egressip_c_minutes C.\n# TYPE egressip_c_minutes gauge\negressip_c_minutes 1\n", minutes); len(got) != 1 {
		t.Errorf("a metric in minutes: %q", got)
	}
}
