package controllers

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// metrics are the controller's own, with the prefix egressip_. Only the leader
// moves them.
type metrics struct {
	requests          *prometheus.GaugeVec
	claims            *prometheus.GaugeVec
	dropped           prometheus.Gauge
	hosts             *prometheus.GaugeVec
	moves             prometheus.Counter
	statusWrites      *prometheus.CounterVec
	allocationSeconds prometheus.Histogram
	passSeconds       prometheus.Histogram
}

func newMetrics() *metrics {
	return &metrics{
		requests: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "egressip_requests",
			Help: "Egress IPs that namespaces request, by what has become of them.",
		}, []string{"state"}),
		claims: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "egressip_claims",
			Help: "Egress IPs that hosts claim, by what has become of them.",
		}, []string{"state"}),
		dropped: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "egressip_dropped_namespaces",
			Help: "Namespaces whose traffic to the outside is dropped, because none of the egress IPs that they request is active.",
		}),
		hosts: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "egressip_hosts",
			Help: "Hosts, by whether they are held for online.",
		}, []string{"online"}),
		moves: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "egressip_moves_total",
			Help: "Egress IPs that moved to another host.",
		}),
		statusWrites: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "egressip_status_writes_total",
			Help: "Writes of the status of objects, by their kind.",
		}, []string{"kind"}),
		allocationSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "egressip_allocation_duration_seconds",
			Help:    "How long it took to decide who has which egress IP.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14),
		}),
		passSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "egressip_reconcile_duration_seconds",
			Help:    "How long a pass over the cluster took, writes included.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 14),
		}),
	}
}

// register adds all metrics to the registry; unregister takes out those that
// were added, so that the controller can run again in one process.
func (m *metrics) register(registry prometheus.Registerer) (unregister func(), err error) {
	var added []prometheus.Collector
	unregister = func() {
		for _, c := range added {
			registry.Unregister(c)
		}
	}
	var errs []error
	for _, c := range []prometheus.Collector{
		m.requests, m.claims, m.dropped, m.hosts, m.moves, m.statusWrites, m.allocationSeconds, m.passSeconds,
	} {
		if err := registry.Register(c); err != nil {
			errs = append(errs, fmt.Errorf("register a metric: %w", err))
			continue
		}
		added = append(added, c)
	}
	return unregister, errors.Join(errs...)
}

// observe counts what the brain found.
func (m *metrics) observe(w world, resolution egress.Resolution) {
	requests, claims := make(map[egress.State]int), make(map[egress.State]int)
	dropped := 0
	for _, n := range resolution.Namespaces {
		for _, request := range n.Requests {
			requests[request.State]++
		}
		if n.Dropped {
			dropped++
		}
	}
	for _, h := range resolution.Hosts {
		for _, claim := range h.Claims {
			claims[claim.State]++
		}
		claims[egress.Invalid] += len(h.Invalid)
	}
	for _, state := range []egress.State{
		egress.Active, egress.Standby, egress.Unassigned, egress.HostOffline, egress.Conflict, egress.Invalid,
	} {
		m.requests.WithLabelValues(string(state)).Set(float64(requests[state]))
		m.claims.WithLabelValues(string(state)).Set(float64(claims[state]))
	}
	m.dropped.Set(float64(dropped))
	online := 0
	for _, verdict := range w.verdicts {
		if verdict.Online {
			online++
		}
	}
	m.hosts.WithLabelValues("true").Set(float64(online))
	m.hosts.WithLabelValues("false").Set(float64(len(w.verdicts) - online))
}

// assigned tells whether an address in that state has a host that bears it.
func assigned(state v1.EgressIPState) bool {
	return state == v1.StateActive || state == v1.StateStandby || state == v1.StateHostOffline
}
