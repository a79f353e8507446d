package agent

import (
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/egressip-operator/egressip-operator/internal/metric"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/overlay"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/warning"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
	"github.com/egressip-operator/egressip-operator/pkg/probe"
)

// metrics are the agent's own, with the prefix egressip_agent_.
type metrics struct {
	metric.Set

	applySeconds     prometheus.Histogram
	applyErrors      prometheus.Counter
	changes          prometheus.Counter
	repairs          prometheus.Counter
	pods             *prometheus.GaugeVec
	hosted           *prometheus.GaugeVec
	inUse            prometheus.Gauge
	families         *prometheus.GaugeVec
	connections      *prometheus.GaugeVec
	ports            *prometheus.GaugeVec
	warnings         *prometheus.GaugeVec
	statusWrites     prometheus.Counter
	statusErrors     prometheus.Counter
	lastSucceeded    prometheus.Gauge
	silentHosts      prometheus.Gauge
	probes           *prometheus.CounterVec
	roundTripSeconds prometheus.Histogram
	withdrawn        prometheus.Gauge
	info             *prometheus.GaugeVec
	// counts is that of the report which connections and ports show.
	counts int
}

// MetricDefs returns the definitions of the agent's metrics, in order of name.
func MetricDefs() []metric.Def {
	m := newMetrics("")
	m.addTraffic(logr.Discard(), nil)
	return m.Defs()
}

func newMetrics(version string) *metrics {
	m := &metrics{}
	m.addState()
	m.addWork()
	m.info.WithLabelValues(version).Set(1)
	return m
}

// addState adds what shows the state of the node.
func (m *metrics) addState() {
	family := metric.Label{Name: "family", Values: []string{egress.IPv4.String(), egress.IPv6.String()}}
	egressIP := metric.Label{Name: "egress_ip", Is: "egress IP of this node"}
	ofWarnings := metric.Label{Name: "reason"}
	for _, r := range warning.Reasons() {
		ofWarnings.Values = append(ofWarnings.Values, string(r))
	}
	m.pods = m.Gauges(metric.Def{
		Name:   "egressip_agent_pods",
		Help:   "Pod addresses of this node, by family and the path of their egress traffic: the node's address (node), an egress IP of this node (local) or of another one (remote), or none (drop).",
		Labels: []metric.Label{family, {Name: "path", Values: []string{"node", "local", "remote", "drop"}}},
	})
	m.hosted = m.Gauges(metric.Def{
		Name:   "egressip_agent_hosted_egress_ips",
		Help:   "Egress IPs that this node must host, by family and whether the kernel is configured for them.",
		Labels: []metric.Label{{Name: "configured", Values: []string{"true", "false"}}, family},
	})
	m.inUse = m.Gauge(metric.Def{
		Name: "egressip_agent_addresses_in_use_elsewhere",
		Help: "Egress IPs that this node must host and that another machine on the segment has, too.",
	})
	m.families = m.Gauges(metric.Def{
		Name:   "egressip_agent_family_served",
		Help:   "1 if this node can host egress IPs of IPv6 and lead its pods to them, else 0; missing while that is not known.",
		Labels: []metric.Label{{Name: "family", Values: []string{egress.IPv6.String()}}},
	})
	m.connections = m.Gauges(metric.Def{
		Name:   "egressip_agent_egress_ip_connections",
		Help:   "Connections that the kernel tracks with an egress IP of this node as source.",
		Labels: []metric.Label{egressIP}, Series: "1 for each egress IP of the node, at most 512",
	})
	m.ports = m.Gauges(metric.Def{
		Name:   "egressip_agent_egress_ip_ports",
		Help:   "Source ports of an egress IP of this node in use to the destination that takes most of them; there are 64512.",
		Labels: []metric.Label{egressIP}, Series: "1 for each egress IP of the node, at most 512",
	})
	m.warnings = m.Gauges(metric.Def{
		Name:   "egressip_agent_warnings",
		Help:   "Warnings of the node's HostSubnet, by reason.",
		Labels: []metric.Label{ofWarnings},
	})
	m.silentHosts = m.Gauge(metric.Def{
		Name: "egressip_agent_silent_hosts",
		Help: "Hosts that this node probes and considers offline.",
	})
	m.withdrawn = m.Gauge(metric.Def{
		Name: "egressip_agent_withdrawn",
		Help: "1 while this node has given up its egress IPs because it reaches neither the API server nor most hosts, else 0.",
	})
	m.info = m.Gauges(metric.Def{
		Name: "egressip_agent_build_info", Help: "Always 1; the label is the version.",
		Labels: []metric.Label{{Name: "version", Is: "version of the program"}}, Series: "1",
	})
}

// addWork adds what shows what the agent does.
func (m *metrics) addWork() {
	m.applySeconds = m.Histogram(metric.Def{
		Name:    "egressip_agent_apply_duration_seconds",
		Help:    "How long it took to compare the kernel with the planned state and to correct it.",
		Buckets: prometheus.ExponentialBuckets(0.001, 2, 14),
	})
	m.applyErrors = m.Counter(metric.Def{
		Name: "egressip_agent_apply_errors_total", Help: "Passes after which the kernel did not match the plan.",
	})
	m.lastSucceeded = m.Gauge(metric.Def{
		Name: "egressip_agent_last_success_timestamp_seconds",
		Help: "When the kernel last matched the plan, in seconds since the epoch; 0 if never.",
	})
	m.changes = m.Counter(metric.Def{
		Name: "egressip_agent_kernel_changes_total",
		Help: "Changes made to the kernel: addresses, rules, routes, set and map entries.",
	})
	m.repairs = m.Counter(metric.Def{
		Name: "egressip_agent_repairs_total",
		Help: "Changes made to the kernel although it had matched the same plan before: something else had changed what is ours.",
	})
	m.statusWrites = m.Counter(metric.Def{
		Name: "egressip_agent_status_writes_total", Help: "Writes of the status of this node's HostSubnet.",
	})
	m.statusErrors = m.Counter(metric.Def{
		Name: "egressip_agent_status_write_errors_total", Help: "Failed writes of the status of this node's HostSubnet.",
	})
	m.probes = m.Counters(metric.Def{
		Name:   "egressip_agent_probes_total",
		Help:   "Probes of this node to others, by outcome. A late answer is counted as missed before.",
		Labels: []metric.Label{{Name: "outcome", Values: probe.Outcomes()}},
	})
	m.roundTripSeconds = m.Histogram(metric.Def{
		Name:    "egressip_agent_probe_round_trip_seconds",
		Help:    "Time until another node answered a probe of this one.",
		Buckets: prometheus.ExponentialBuckets(0.0001, 2, 12),
	})
}

// addTraffic adds what the overlay device counts, which count reads at each scrape.
func (m *metrics) addTraffic(log logr.Logger, count func() (overlay.Traffic, bool, error)) {
	direction := []metric.Label{{Name: "direction", Values: []string{"receive", "transmit"}}}
	defs := []metric.Def{
		{Name: "egressip_agent_overlay_packets_total", Help: "Packets of the overlay, by direction, since its device was made.", Labels: direction},
		{Name: "egressip_agent_overlay_bytes_total", Help: "Bytes of the overlay's packets, by direction, without what the tunnel adds.", Labels: direction},
		{Name: "egressip_agent_overlay_dropped_packets_total", Help: "Packets that the overlay's device dropped, by direction. What its tc programs drop, such as packets of namespaces without an active egress IP, is not among them.", Labels: direction},
		{Name: "egressip_agent_overlay_errors_total", Help: "Packets that the overlay's device could not receive or transmit, by direction.", Labels: direction},
	}
	m.Sampled(defs, func(is func(int, float64, ...string)) {
		t, ok, err := count()
		if err != nil {
			log.V(1).Info("the overlay's counters are missing in the metrics", "error", err.Error())
		}
		if err != nil || !ok {
			return
		}
		for way, c := range map[string]overlay.Counts{"receive": t.Received, "transmit": t.Sent} {
			for i, n := range []uint64{c.Packets, c.Bytes, c.Dropped, c.Errors} {
				is(i, float64(n), way)
			}
		}
	})
}

// probed counts the outcome of a probe.
func (m *metrics) probed(o probe.Outcome, roundTrip time.Duration) {
	m.probes.WithLabelValues(o.String()).Inc()
	if roundTrip > 0 {
		m.roundTripSeconds.Observe(roundTrip.Seconds())
	}
}

// observe counts one pass. again says that the kernel had matched the same plan before.
func (m *metrics) observe(s dataplane.State, r dataplane.Report, began, ended time.Time, again bool, err error) {
	m.applySeconds.Observe(ended.Sub(began).Seconds())
	m.changes.Add(float64(r.Changes))
	if again {
		m.repairs.Add(float64(r.Changes))
	}
	if err != nil {
		m.applyErrors.Inc()
	} else {
		m.lastSucceeded.Set(float64(ended.UnixMilli()) / 1000)
	}
	m.observeFamilies(s, r)
	m.observeUsage(r)
	m.observeFindings(r)
}

// observeFindings shows what else the report has.
func (m *metrics) observeFindings(r dataplane.Report) {
	inUse := 0
	for _, h := range r.Hosted {
		if h.InUseBy != "" {
			inUse++
		}
	}
	m.inUse.Set(float64(inUse))
	found := make(map[warning.Reason]int)
	for _, w := range r.Warnings {
		found[w.Reason]++
	}
	for _, reason := range warning.Reasons() {
		m.warnings.WithLabelValues(string(reason)).Set(float64(found[reason]))
	}
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
