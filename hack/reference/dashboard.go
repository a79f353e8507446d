package main

import (
	"encoding/json"
	"fmt"
)

// The dashboard for Grafana: panels in rows, each of them 24 units wide.

// query is one line, or several, of a panel.
type query struct {
	expr string
	// legend names the lines, with labels in double braces.
	legend string
	// instant asks for the last value alone, for tables and single values.
	instant bool
}

// panel is one panel. Its size is in units of the grid.
type panel struct {
	title, about  string
	kind          string // as Grafana names it
	width, height int
	unit          string // as Grafana names it; empty for numbers
	stacked       bool
	// badFrom is the value from which it is shown in red; 0 for never. goodFrom is the value from
	// which it is shown in green, and in red below.
	badFrom, goodFrom float64
	queries           []query
}

// row is a row of panels that can be folded.
type row struct {
	title  string
	panels []panel
}

// Grafana's names of panels and units.
const (
	stat, timeSeries, timeline, table = "stat", "timeseries", "state-timeline", "table"

	seconds, bytesPerSecond, packetsPerSecond, perSecond, ratio, memory = "s", "Bps", "pps", "ops", "percentunit", "bytes"
)

// quantiles are two lines over a histogram.
func quantiles(histogram, selector string) []query {
	var list []query
	for _, q := range []string{"0.5", "0.99"} {
		list = append(list, query{
			expr:   fmt.Sprintf(`histogram_quantile(%s, sum by (le) (rate(%s_bucket%s[$__rate_interval])))`, q, histogram, selector),
			legend: "quantile " + q,
		})
	}
	return list
}

// number is a panel with one value.
func number(title, about, expr string, badFrom, goodFrom float64) panel {
	return panel{
		title: title, about: about, kind: stat, width: 4, height: 4, badFrom: badFrom, goodFrom: goodFrom,
		queries: []query{{expr: expr, legend: title, instant: true}},
	}
}

// lines is a panel with lines over time, half as wide as the row.
func lines(title, about, unit string, queries ...query) panel {
	return panel{title: title, about: about, kind: timeSeries, width: 12, height: 8, unit: unit, queries: queries}
}

// stackedLines is lines, one on top of the other.
func stackedLines(title, about, unit string, queries ...query) panel {
	p := lines(title, about, unit, queries...)
	p.stacked = true
	return p
}

const ofNode = `{node=~"$node"}`

// rows are all panels.
func rows() []row {
	return []row{
		{"Overview", []panel{
			number("Dropped", "NetNamespaces and EgressIPs whose traffic to the outside is dropped.", `max(egressip_dropped_namespaces)`, 1, 0),
			number("Unserved", "Requested egress IPs that can neither be used nor stand by.", `sum(max by (family, reason) (egressip_unserved_requests)) or vector(0)`, 1, 0),
			number("Active", "Egress IPs in use.", `sum(max by (family) (egressip_requests{state="Active"}))`, 0, 0),
			number("Hosts offline", "Hosts that take no egress traffic.", `max(egressip_hosts{online="false"})`, 1, 0),
			number("Agents not ready", "Hosts whose agent is gone, or could not make the kernel as planned.", `count(max by (host) (egressip_host_agent_ready) == 0) or vector(0)`, 1, 0),
			number("Controllers that lead", "There must be one.", `sum(egressip_leading)`, 0, 1),
		}},
		{"Egress IPs", []panel{
			stackedLines("Requests", "Requested egress IPs by state.", "", query{expr: `sum by (state) (max by (family, state) (egressip_requests))`, legend: "{{state}}"}),
			lines("Unserved requests", "Why requested egress IPs can neither be used nor stand by.", "", query{expr: `max by (family, reason) (egressip_unserved_requests) > 0`, legend: "{{reason}} {{family}}"}),
			stackedLines("Moves", "Egress IPs that moved to another host, by reason.", "", query{expr: `sum by (reason) (increase(egressip_moves_total[$__rate_interval])) > 0`, legend: "{{reason}}"}),
			lines("Duration of moves", "From the release of an egress IP to the status that names its new host.", seconds, quantiles("egressip_move_duration_seconds", "")...),
			lines("Connections", "Connections with each egress IP as source.", "", query{expr: `sum by (egress_ip) (egressip_agent_egress_ip_connections` + ofNode + `)`, legend: "{{egress_ip}}"}),
			lines("Source ports in use", "Share of an egress IP's source ports that the destination with most connections takes.", ratio, query{expr: `max by (egress_ip) (egressip_agent_egress_ip_ports` + ofNode + `) / 64512`, legend: "{{egress_ip}}"}),
			stackedLines("Pods", "Pod addresses by the path of their traffic to the outside.", "", query{expr: `sum by (path) (egressip_agent_pods` + ofNode + `)`, legend: "{{path}}"}),
			lines("Pools", "Addresses of pools that requests have, or that are kept.", "", query{expr: `max by (pool, state) (egressip_pool_addresses)`, legend: "{{pool}} {{state}}"}),
		}},
		{"Hosts", []panel{
			{title: "Online", about: "Whether each host takes egress traffic.", kind: timeline, width: 12, height: 8, goodFrom: 1, queries: []query{{expr: `max by (host) (egressip_host_online)`, legend: "{{host}}"}}},
			{title: "Agent ready", about: "Whether each host's agent is there, and the kernel as planned.", kind: timeline, width: 12, height: 8, goodFrom: 1, queries: []query{{expr: `max by (host) (egressip_host_agent_ready)`, legend: "{{host}}"}}},
			lines("Probes lost", "Share of probes without an answer in time.", ratio,
				query{expr: `sum(rate(egressip_probes_total{outcome="missed"}[$__rate_interval])) / sum(rate(egressip_probes_total{outcome!="late"}[$__rate_interval]))`, legend: "controllers"},
				query{expr: `sum by (node) (rate(egressip_agent_probes_total{outcome="missed",node=~"$node"}[$__rate_interval])) / sum by (node) (rate(egressip_agent_probes_total{outcome!="late",node=~"$node"}[$__rate_interval]))`, legend: "{{node}}"}),
			lines("Round trip of agents' probes", "They travel the overlay.", seconds, quantiles("egressip_agent_probe_round_trip_seconds", ofNode)...),
			{title: "Warnings", about: "Condition Warnings of HostSubnets, by reason.", kind: table, width: 12, height: 8, queries: []query{{expr: `sum by (node, reason) (egressip_agent_warnings` + ofNode + `) > 0`, legend: "", instant: true}}},
			lines("Egress IPs that are not configured, or elsewhere", "Of those that nodes must host.", "",
				query{expr: `sum by (node) (egressip_agent_hosted_egress_ips{configured="false",node=~"$node"}) > 0`, legend: "{{node}} not configured"},
				query{expr: `egressip_agent_addresses_in_use_elsewhere` + ofNode + ` > 0`, legend: "{{node}} in use elsewhere"},
				query{expr: `egressip_agent_withdrawn` + ofNode + ` > 0`, legend: "{{node}} withdrawn"}),
		}},
		{"Kernel", []panel{
			lines("Duration of passes", "How long agents take to compare the kernel with the plan and to correct it.", seconds, quantiles("egressip_agent_apply_duration_seconds", ofNode)...),
			lines("Time since the kernel was as planned", "", seconds, query{expr: `time() - egressip_agent_last_success_timestamp_seconds` + ofNode, legend: "{{node}}"}),
			lines("Changes", "Changes that agents made, per second.", perSecond, query{expr: `sum by (node) (rate(egressip_agent_kernel_changes_total` + ofNode + `[$__rate_interval]))`, legend: "{{node}}"}),
			lines("Errors and repairs", "Passes that failed, and changes although the plan was the same.", "",
				query{expr: `sum by (node) (increase(egressip_agent_apply_errors_total` + ofNode + `[$__rate_interval])) > 0`, legend: "{{node}} errors"},
				query{expr: `sum by (node) (increase(egressip_agent_repairs_total` + ofNode + `[$__rate_interval])) > 0`, legend: "{{node}} repairs"}),
			lines("Overlay, bytes", "", bytesPerSecond, query{expr: `sum by (node, direction) (rate(egressip_agent_overlay_bytes_total` + ofNode + `[$__rate_interval]))`, legend: "{{node}} {{direction}}"}),
			lines("Overlay, packets", "", packetsPerSecond, query{expr: `sum by (node, direction) (rate(egressip_agent_overlay_packets_total` + ofNode + `[$__rate_interval]))`, legend: "{{node}} {{direction}}"}),
			lines("Overlay, losses", "Packets that the overlay's device dropped or could not send.", packetsPerSecond,
				query{expr: `sum by (node, direction) (rate(egressip_agent_overlay_dropped_packets_total` + ofNode + `[$__rate_interval]))`, legend: "{{node}} {{direction}} dropped"},
				query{expr: `sum by (node, direction) (rate(egressip_agent_overlay_errors_total` + ofNode + `[$__rate_interval]))`, legend: "{{node}} {{direction}} errors"}),
			lines("Status of HostSubnets", "Writes of agents, per second.", perSecond,
				query{expr: `sum(rate(egressip_agent_status_writes_total` + ofNode + `[$__rate_interval]))`, legend: "writes"},
				query{expr: `sum(rate(egressip_agent_status_write_errors_total` + ofNode + `[$__rate_interval]))`, legend: "errors"}),
		}},
		{"Controller", []panel{
			lines("Duration of passes", "", seconds, quantiles("egressip_reconcile_duration_seconds", "")...),
			lines("Duration of decisions", "", seconds, quantiles("egressip_allocation_duration_seconds", "")...),
			lines("Status writes", "", perSecond,
				query{expr: `sum by (kind) (rate(egressip_status_writes_total[$__rate_interval]))`, legend: "{{kind}}"},
				query{expr: `sum by (kind) (rate(egressip_status_write_errors_total[$__rate_interval]))`, legend: "{{kind}} errors"}),
			lines("Failures", "Passes with errors, and events that were lost.", "",
				query{expr: `sum(increase(egressip_reconcile_errors_total[$__rate_interval]))`, legend: "passes with errors"},
				query{expr: `sum by (reason) (increase(egressip_events_lost_total[$__rate_interval])) > 0`, legend: "events lost: {{reason}}"}),
			lines("Round trip of the controllers' probes", "", seconds, quantiles("egressip_probe_round_trip_seconds", "")...),
			lines("Memory", "Of controllers and agents.", memory,
				query{expr: `process_resident_memory_bytes and on (instance) egressip_leading`, legend: "controller {{instance}}"},
				query{expr: `max(process_resident_memory_bytes and on (instance) egressip_agent_build_info)`, legend: "greatest agent"}),
		}},
	}
}

// object is one of JSON.
type object = map[string]any

// dashboardJSON is the dashboard in Grafana's format.
func dashboardJSON() (string, error) {
	source := object{"type": "prometheus", "uid": "${datasource}"}
	var panels []object
	id, y := 0, 0
	for _, r := range rows() {
		id++
		panels = append(panels, object{
			"id": id, "type": "row", "title": r.title, "collapsed": false, "panels": []object{},
			"gridPos": object{"x": 0, "y": y, "w": 24, "h": 1},
		})
		y++
		x, height := 0, 0
		for _, p := range r.panels {
			if x+p.width > 24 {
				x, y, height = 0, y+height, 0
			}
			id++
			panels = append(panels, p.json(id, x, y, source))
			x, height = x+p.width, max(height, p.height)
		}
		y += height
	}
	text, err := json.MarshalIndent(object{
		"uid": "egressip-operator", "title": "Egress IPs", "tags": []string{"egressip", "networking"},
		"description":   "Egress IPs of egressip-operator. Generated: see hack/reference.",
		"schemaVersion": 39, "version": 1, "editable": true, "graphTooltip": 1, "refresh": "30s", "timezone": "browser",
		"time":        object{"from": "now-6h", "to": "now"},
		"annotations": object{"list": []object{}}, "links": []object{},
		"templating": object{"list": []object{
			{"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "refresh": 1, "hide": 0},
			{
				"name": "node", "label": "Node", "type": "query", "datasource": source,
				"query":      object{"query": "label_values(egressip_agent_build_info, node)", "refId": "node"},
				"definition": "label_values(egressip_agent_build_info, node)",
				"refresh":    2, "sort": 1, "multi": true, "includeAll": true, "allValue": ".*", "hide": 0,
				"current": object{"text": []string{"All"}, "value": []string{"$__all"}},
			},
		}},
		"panels": panels,
	}, "", "  ")
	return string(text) + "\n", err
}

// json is the panel at a place of the grid.
func (p panel) json(id, x, y int, source object) object {
	var targets []object
	for i, q := range p.queries {
		target := object{"refId": string(rune('A' + i)), "datasource": source, "expr": q.expr, "legendFormat": q.legend, "range": !q.instant, "instant": q.instant, "editorMode": "code"}
		if p.kind == table {
			target["format"] = "table"
		}
		targets = append(targets, target)
	}
	defaults := object{"unit": p.unit, "min": 0}
	if p.unit == "" {
		defaults["unit"] = "short"
	}
	switch {
	case p.badFrom > 0:
		defaults["thresholds"] = steps("green", "red", p.badFrom)
	case p.goodFrom > 0:
		defaults["thresholds"] = steps("red", "green", p.goodFrom)
	default:
		defaults["thresholds"] = object{"mode": "absolute", "steps": []object{{"color": "blue", "value": nil}}}
	}
	options := object{}
	switch p.kind {
	case stat:
		options = object{"colorMode": "background", "graphMode": "area", "reduceOptions": object{"calcs": []string{"lastNotNull"}, "fields": "", "values": false}}
	case timeSeries:
		stacking := object{"mode": "none", "group": "A"}
		if p.stacked {
			stacking["mode"] = "normal"
		}
		defaults["custom"] = object{"lineWidth": 1, "fillOpacity": 10, "showPoints": "never", "stacking": stacking}
		options = object{"legend": object{"displayMode": "list", "placement": "bottom", "showLegend": true}, "tooltip": object{"mode": "multi", "sort": "desc"}}
	case timeline:
		defaults["color"] = object{"mode": "thresholds"}
		defaults["mappings"] = []object{{"type": "value", "options": object{"0": object{"text": "no"}, "1": object{"text": "yes"}}}}
		options = object{"showValue": "never", "mergeValues": true, "rowHeight": 0.8, "legend": object{"showLegend": false, "displayMode": "list", "placement": "bottom"}}
	case table:
		options = object{"showHeader": true}
	}
	return object{
		"id": id, "type": p.kind, "title": p.title, "description": p.about, "datasource": source, "targets": targets,
		"gridPos":     object{"x": x, "y": y, "w": p.width, "h": p.height},
		"fieldConfig": object{"defaults": defaults, "overrides": []object{}}, "options": options,
	}
}

// steps are the colours below and from a value on.
func steps(below, from string, value float64) object {
	return object{"mode": "absolute", "steps": []object{{"color": below, "value": nil}, {"color": from, "value": value}}}
}
