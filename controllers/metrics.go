package controllers

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// metrics are the controller's own, with the prefix egressip_. Only the leader changes
// them.
type metrics struct {
	requests          *prometheus.GaugeVec
	claims            *prometheus.GaugeVec
	dropped           prometheus.Gauge
	hosts             *prometheus.GaugeVec
	moves             prometheus.Counter
	statusWrites      *prometheus.CounterVec
	statusErrors      *prometheus.CounterVec
	eventsLost        *prometheus.CounterVec
	allocationSeconds prometheus.Histogram
	passSeconds       prometheus.Histogram
}

func newMetrics() *metrics {
	return &metrics{
		requests: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "egressip_requests",
			Help: "Egress IPs that NetNamespaces and EgressIPs request, by family and state.",
		}, []string{"family", "state"}),
		claims: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "egressip_claims",
			Help: "Egress IPs claimed by hosts, by family and state.",
		}, []string{"family", "state"}),
		dropped: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "egressip_dropped_namespaces",
			Help: "NetNamespaces and EgressIPs that request egress IPs of a family of which none is active, so that its traffic to the outside is dropped.",
		}),
		hosts: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "egressip_hosts",
			Help: "Hosts by online state.",
		}, []string{"online"}),
		moves: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "egressip_moves_total",
			Help: "Egress IPs that moved to another host.",
		}),
		statusWrites: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "egressip_status_writes_total",
			Help: "Status writes by kind of object.",
		}, []string{"kind"}),
		statusErrors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "egressip_status_write_errors_total",
			Help: "Status writes that failed, by kind of object. Each is tried again.",
		}, []string{"kind"}),
		eventsLost: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "egressip_events_lost_total",
			Help: "Events that are not written, by reason. What they report is in statuses, too.",
		}, []string{"reason"}),
		allocationSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "egressip_allocation_duration_seconds",
			Help:    "Time to decide which host has which egress IP.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14),
		}),
		passSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "egressip_reconcile_duration_seconds",
			Help:    "Duration of a pass over the cluster, including writes.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 14),
		}),
	}
}

// register adds all metrics to the registry. unregister removes those that were
// added, so that the controller can run again in the same process.
func (m *metrics) register(registry prometheus.Registerer) (unregister func(), err error) {
	var added []prometheus.Collector
	unregister = func() {
		for _, c := range added {
			registry.Unregister(c)
		}
	}
	var errs []error
	for _, c := range []prometheus.Collector{
		m.requests, m.claims, m.dropped, m.hosts, m.moves, m.statusWrites, m.statusErrors, m.eventsLost, m.allocationSeconds, m.passSeconds,
	} {
		if err := registry.Register(c); err != nil {
			errs = append(errs, fmt.Errorf("register a metric: %w", err))
			continue
		}
		added = append(added, c)
	}
	return unregister, errors.Join(errs...)
}

// observe sets the gauges from a decision. Namespaces in moving are not counted as
// dropped.
func (m *metrics) observe(v view, resolution egress.Resolution, moving map[string]bool) {
	var requests, claims [2]map[egress.State]int
	for _, f := range []egress.Family{egress.IPv4, egress.IPv6} {
		requests[f], claims[f] = map[egress.State]int{}, map[egress.State]int{}
	}
	dropped := 0
	for _, n := range resolution.Groups {
		for _, request := range n.Requests {
			requests[egress.RequestFamily(request.IP)][request.State]++
		}
		if n.Dropped && !moving[n.Name] {
			dropped++
		}
	}
	for _, h := range resolution.Hosts {
		for _, claim := range h.Claims {
			claims[egress.FamilyOf(claim.IP)][claim.State]++
		}
		for _, written := range h.Invalid {
			claims[egress.RequestFamily(written)][egress.Invalid]++
		}
	}
	for _, state := range []egress.State{
		egress.Active, egress.Standby, egress.Unassigned, egress.HostOffline, egress.Conflict, egress.Invalid,
	} {
		for _, f := range []egress.Family{egress.IPv4, egress.IPv6} {
			m.requests.WithLabelValues(f.String(), string(state)).Set(float64(requests[f][state]))
			m.claims.WithLabelValues(f.String(), string(state)).Set(float64(claims[f][state]))
		}
	}
	m.dropped.Set(float64(dropped))
	online := 0
	for _, verdict := range v.verdicts {
		if verdict.Online {
			online++
		}
	}
	m.hosts.WithLabelValues("true").Set(float64(online))
	m.hosts.WithLabelValues("false").Set(float64(len(v.verdicts) - online))
}

// assigned reports whether an address in that state has a host.
func assigned(state v1.EgressIPState) bool {
	return state == v1.StateActive || state == v1.StateStandby || state == v1.StateHostOffline
}
