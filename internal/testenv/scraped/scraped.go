// Package scraped checks what a component's metrics endpoint answers.
package scraped

import (
	"fmt"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/egressip-operator/egressip-operator/internal/metric"
)

// Wrong returns what is wrong with the text that an endpoint served: metrics of ours that are
// not defined, or not so; that are defined and not there, except those in silent; names and texts
// against Prometheus' rules; and metrics of libraries that the documentation does not name.
func Wrong(text string, defs []metric.Def, silent ...string) (wrong []string) {
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		return []string{fmt.Sprintf("not in Prometheus' format: %v", err)}
	}
	defined := make(map[string]metric.Def, len(defs))
	for _, d := range defs {
		defined[d.Name] = d
		if _, there := families[d.Name]; !there && !slices.Contains(silent, d.Name) {
			wrong = append(wrong, d.Name+" is documented, and not served")
		}
	}
	var own []*dto.MetricFamily
	for name, f := range families {
		if !strings.HasPrefix(name, "egressip_") {
			if !slices.ContainsFunc(metric.Libraries(), func(l metric.Library) bool { return strings.HasPrefix(name, l.Prefix) }) {
				wrong = append(wrong, name+" is served, and no library of the documentation has it")
			}
			continue
		}
		own = append(own, f)
		d, ok := defined[name]
		if !ok {
			wrong = append(wrong, name+" is served, and not documented")
			continue
		}
		wrong = append(wrong, differs(d, f)...)
	}
	problems, err := promlint.NewWithMetricFamilies(own).Lint()
	if err != nil {
		wrong = append(wrong, err.Error())
	}
	for _, p := range problems {
		wrong = append(wrong, p.Metric+": "+p.Text)
	}
	slices.Sort(wrong)
	return wrong
}

// differs returns how a metric differs from its definition.
func differs(d metric.Def, f *dto.MetricFamily) (wrong []string) {
	if kind := strings.ToLower(f.GetType().String()); kind != d.Type {
		wrong = append(wrong, fmt.Sprintf("%s is a %s, documented as %s", d.Name, kind, d.Type))
	}
	if f.GetHelp() != d.Help {
		wrong = append(wrong, fmt.Sprintf("%s has the help %q, documented as %q", d.Name, f.GetHelp(), d.Help))
	}
	for _, m := range f.GetMetric() {
		for _, l := range m.GetLabel() {
			i := slices.IndexFunc(d.Labels, func(x metric.Label) bool { return x.Name == l.GetName() })
			switch {
			case i < 0:
				wrong = append(wrong, fmt.Sprintf("%s has label %s, which is not documented", d.Name, l.GetName()))
			case len(d.Labels[i].Values) > 0 && !slices.Contains(d.Labels[i].Values, l.GetValue()):
				wrong = append(wrong, fmt.Sprintf("%s has %s=%q, and %q is not documented", d.Name, l.GetName(), l.GetValue(), l.GetValue()))
			}
		}
		if len(m.GetLabel()) != len(d.Labels) {
			wrong = append(wrong, fmt.Sprintf("%s has %d labels, documented are %d", d.Name, len(m.GetLabel()), len(d.Labels)))
		}
	}
	return wrong
}
