package main

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/egressip-operator/egressip-operator/controllers"
	"github.com/egressip-operator/egressip-operator/internal/metric"
	"github.com/egressip-operator/egressip-operator/pkg/agent"
)

// dashboard is the part of Grafana's format that is checked.
type dashboard struct {
	UID           string `json:"uid"`
	Title         string `json:"title"`
	SchemaVersion int    `json:"schemaVersion"`
	Templating    struct {
		List []struct {
			Name, Type string
			Query      any
		} `json:"list"`
	} `json:"templating"`
	Panels []struct {
		ID         int               `json:"id"`
		Type       string            `json:"type"`
		Title      string            `json:"title"`
		Datasource map[string]string `json:"datasource"`
		GridPos    *place            `json:"gridPos"`
		Targets    []struct {
			RefID        string            `json:"refId"`
			Expr         string            `json:"expr"`
			LegendFormat string            `json:"legendFormat"`
			Datasource   map[string]string `json:"datasource"`
		} `json:"targets"`
		FieldConfig *struct {
			Defaults  map[string]any   `json:"defaults"`
			Overrides []map[string]any `json:"overrides"`
		} `json:"fieldConfig"`
		Options map[string]any `json:"options"`
	} `json:"panels"`
}

// place is that of a panel in the grid.
type place struct{ X, Y, W, H int }

func (p place) overlaps(o place) bool {
	return p.X < o.X+o.W && o.X < p.X+p.W && p.Y < o.Y+o.H && o.Y < p.Y+p.H
}

func load(t *testing.T) (d dashboard) {
	t.Helper()
	text, err := dashboardJSON()
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(text), &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// A Grafana takes the dashboard: what it needs of each panel is there, once, and panels do not
// overlap; and it asks for the source of data rather than to know its name.
func TestDashboardIsWhole(t *testing.T) {
	t.Parallel()
	d := load(t)
	if d.UID == "" || d.Title == "" || d.SchemaVersion < 36 || len(d.UID) > 40 {
		t.Errorf("uid %q, title %q, version %d", d.UID, d.Title, d.SchemaVersion)
	}
	if len(d.Templating.List) == 0 || d.Templating.List[0].Type != "datasource" || d.Templating.List[0].Name != "datasource" || d.Templating.List[0].Query != "prometheus" {
		t.Errorf("variables %+v, want the source of data first", d.Templating.List)
	}
	types := []string{"row", stat, timeSeries, timeline, table}
	ids, titles := map[int]bool{}, map[string]bool{}
	group := ""
	for i, p := range d.Panels {
		if p.Type == "row" {
			group = p.Title
		}
		if p.ID <= 0 || ids[p.ID] || titles[group+p.Title] || p.Title == "" || !slices.Contains(types, p.Type) {
			t.Errorf("panel %d: id %d, title %q, type %q", i, p.ID, p.Title, p.Type)
		}
		ids[p.ID], titles[group+p.Title] = true, true
		if p.GridPos == nil || p.GridPos.X < 0 || p.GridPos.W < 1 || p.GridPos.H < 1 || p.GridPos.X+p.GridPos.W > 24 {
			t.Fatalf("panel %q is at %+v", p.Title, p.GridPos)
		}
		for _, other := range d.Panels[:i] {
			if p.GridPos.overlaps(*other.GridPos) {
				t.Errorf("panels %q and %q overlap", p.Title, other.Title)
			}
		}
		if p.Type == "row" {
			continue
		}
		if p.Datasource["uid"] != "${datasource}" || p.Datasource["type"] != "prometheus" || len(p.Targets) == 0 || p.FieldConfig == nil || p.FieldConfig.Overrides == nil || p.Options == nil {
			t.Errorf("panel %q: %+v", p.Title, p)
		}
		refs := map[string]bool{}
		for _, target := range p.Targets {
			if target.RefID == "" || refs[target.RefID] || target.Datasource["uid"] != "${datasource}" || target.Expr == "" {
				t.Errorf("panel %q: %+v", p.Title, target)
			}
			refs[target.RefID] = true
		}
	}
}

// Every expression rests on metrics that are served, and every legend on labels that they have;
// and every metric of ours is on the dashboard, or is listed here with a reason.
func TestDashboardRestsOnMetricsOfOurs(t *testing.T) {
	t.Parallel()
	defs := slices.Concat(controllers.MetricDefs(), agent.MetricDefs())
	labels := []string{"instance", "node"}
	for _, d := range defs {
		for _, l := range d.Labels {
			labels = append(labels, l.Name)
		}
	}
	var all strings.Builder
	for _, p := range load(t).Panels {
		for _, target := range p.Targets {
			all.WriteString(target.Expr + "\n")
			if unknown := metric.Unknown(target.Expr, defs); len(unknown) > 0 {
				t.Errorf("panel %q asks for %v, which nothing serves", p.Title, unknown)
			}
			for _, m := range regexp.MustCompile(`{{(\w+)}}`).FindAllStringSubmatch(target.LegendFormat, -1) {
				if !slices.Contains(labels, m[1]) || !strings.Contains(target.Expr, m[1]) && strings.Contains(target.Expr, "by (") {
					t.Errorf("panel %q: the legend has %s, and %s has no such label", p.Title, m[1], target.Expr)
				}
			}
		}
	}
	elsewhere := map[string]string{
		"egressip_build_info":            "a version changes with upgrades only",
		"egressip_claims":                "follow from requests",
		"egressip_pool_refused_requests": "an alert says so",
		"egressip_record_problem":        "an alert says so",
		"egressip_agent_family_served":   "warning IPv6NotServed says so",
		"egressip_agent_silent_hosts":    "the controller's verdicts are shown",
	}
	for _, d := range defs {
		if shown := strings.Contains(all.String(), d.Name); shown == (elsewhere[d.Name] != "") {
			t.Errorf("%s is shown: %t, left out because %q", d.Name, shown, elsewhere[d.Name])
		}
	}
}
