package agent

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// metrics are the agent's own, with the prefix egressip_agent_.
type metrics struct {
	applySeconds  prometheus.Histogram
	applyErrors   prometheus.Counter
	changes       prometheus.Counter
	pods          *prometheus.GaugeVec
	hosted        *prometheus.GaugeVec
	families      *prometheus.GaugeVec
	connections   *prometheus.GaugeVec
	ports         *prometheus.GaugeVec
	statusWrites  prometheus.Counter
	statusErrors  prometheus.Counter
	lastSucceeded prometheus.Gauge
	silentHosts   prometheus.Gauge
	withdrawn     prometheus.Gauge
	info          *prometheus.GaugeVec
	// counts is that of the report which connections and ports show.
	counts int
}

func newMetrics(version string) *metrics {
	m := &metrics{
		applySeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "egressip_agent_apply_duration_seconds",
			Help:    "How long it took to compare the kernel with the planned state and to correct it.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 14),
		}),
		applyErrors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "egressip_agent_apply_errors_total",
			Help: "Passes after which the kernel did not match the plan.",
		}),
		changes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "egressip_agent_kernel_changes_total",
			Help: "Changes made to the kernel: addresses, rules, routes, set and map entries.",
		}),
		pods: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "egressip_agent_pods",
			Help: "Pod addresses of this node, by family and the path of their egress traffic.",
		}, []string{"family", "path"}),
		hosted: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "egressip_agent_hosted_egress_ips",
			Help: "Egress IPs that this node must host, by family and whether the kernel is configured for them.",
		}, []string{"configured", "family"}),
		families: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "egressip_agent_family_served",
			Help: "1 if this node can host egress IPs of IPv6 and lead its pods to them, else 0; missing while that is not known.",
		}, []string{"family"}),
		connections: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "egressip_agent_egress_ip_connections",
			Help: "Connections that the kernel tracks with an egress IP of this node as source.",
		}, []string{"egress_ip"}),
		ports: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "egressip_agent_egress_ip_ports",
			Help: "Source ports of an egress IP of this node in use to the destination that takes most of them; there are 64512.",
		}, []string{"egress_ip"}),
		statusWrites: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "egressip_agent_status_writes_total",
			Help: "Writes of the status of this node's HostSubnet.",
		}),
		statusErrors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "egressip_agent_status_write_errors_total",
			Help: "Failed writes of the status of this node's HostSubnet.",
		}),
		lastSucceeded: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "egressip_agent_last_success_timestamp_seconds",
			Help: "When the kernel last matched the plan, in seconds since the epoch.",
		}),
		silentHosts: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "egressip_agent_silent_hosts",
			Help: "Hosts that this node probes and considers offline.",
		}),
		withdrawn: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "egressip_agent_withdrawn",
			Help: "1 while this node has given up its egress IPs because it reaches neither the API server nor most hosts, else 0.",
		}),
		info: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "egressip_agent_build_info",
			Help: "Always 1; the label is the version.",
		}, []string{"version"}),
	}
	m.info.WithLabelValues(version).Set(1)
	return m
}

// register registers the metrics with r until unregister is called.
func (m *metrics) register(r prometheus.Registerer) (unregister func(), err error) {
	all := []prometheus.Collector{
		m.applySeconds, m.applyErrors, m.changes, m.pods, m.hosted, m.families, m.connections, m.ports,
		m.statusWrites, m.statusErrors, m.lastSucceeded, m.silentHosts, m.withdrawn, m.info,
	}
	unregister = func() {
		for _, c := range all {
			r.Unregister(c)
		}
	}
	var errs []error
	for _, c := range all {
		errs = append(errs, r.Register(c))
	}
	return unregister, errors.Join(errs...)
}

// observe counts one pass.
func (m *metrics) observe(s dataplane.State, r dataplane.Report, began, ended time.Time, err error) {
	m.applySeconds.Observe(ended.Sub(began).Seconds())
	m.changes.Add(float64(r.Changes))
	if err != nil {
		m.applyErrors.Inc()
	} else {
		m.lastSucceeded.Set(float64(ended.UnixMilli()) / 1000)
	}
	m.observeFamilies(s, r)
	m.observeUsage(r)
}

// observeFamilies shows what there is of each family.
func (m *metrics) observeFamilies(s dataplane.State, r dataplane.Report) {
	var paths [2]map[dataplane.PodKind]int
	var hosted, configured [2]int
	for _, f := range []egress.Family{egress.IPv4, egress.IPv6} {
		paths[f] = map[dataplane.PodKind]int{}
	}
	for _, p := range s.Pods {
		paths[egress.FamilyOf(p.IP)][p.Kind]++
	}
	for _, h := range s.Hosted {
		hosted[egress.FamilyOf(h.IP)]++
	}
	for _, h := range r.Hosted {
		if h.Configured {
			configured[egress.FamilyOf(h.IP)]++
		}
	}
	for _, f := range []egress.Family{egress.IPv4, egress.IPv6} {
		for path, kind := range map[string]dataplane.PodKind{
			"node": dataplane.Node, "local": dataplane.Local, "remote": dataplane.Remote, "drop": dataplane.Drop,
		} {
			pods := paths[f][kind]
			if kind == dataplane.Drop {
				pods += paths[f][dataplane.Refuse]
			}
			m.pods.WithLabelValues(f.String(), path).Set(float64(pods))
		}
		m.hosted.WithLabelValues("true", f.String()).Set(float64(configured[f]))
		m.hosted.WithLabelValues("false", f.String()).Set(float64(max(hosted[f]-configured[f], 0)))
	}
	// Every node serves IPv4, and what fails there are errors of the pass.
	switch served := m.families.WithLabelValues(egress.IPv6.String()); {
	case !r.IPv6.Known:
		m.families.DeleteLabelValues(egress.IPv6.String())
	case r.IPv6.Reason == "":
		served.Set(1)
	default:
		served.Set(0)
	}
}

// observeUsage shows how much egress IPs are used, each time that has been counted.
func (m *metrics) observeUsage(r dataplane.Report) {
	if r.Counts == m.counts {
		return
	}
	m.counts = r.Counts
	m.connections.Reset()
	m.ports.Reset()
	for _, h := range r.Hosted {
		m.connections.WithLabelValues(h.IP.String()).Set(float64(h.Usage.Connections))
		m.ports.WithLabelValues(h.IP.String()).Set(float64(h.Usage.Ports))
	}
}
