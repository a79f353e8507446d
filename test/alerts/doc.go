// Package alerts tests the alerts of the chart with Prometheus' own tool: each fires on its fault,
// and is silent without it.
package alerts
