package controllers

import (
	"context"
	"maps"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/metric"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
	"github.com/egressip-operator/egressip-operator/pkg/online"
	"github.com/egressip-operator/egressip-operator/pkg/probe"
)

// metrics are the controller's own, with the prefix egressip_. Only the leader changes
// them, except those of probes.
type metrics struct {
	metric.Set

	leading           prometheus.Gauge
	info              *prometheus.GaugeVec
	requests          *prometheus.GaugeVec
	unserved          *prometheus.GaugeVec
	claims            *prometheus.GaugeVec
	dropped           prometheus.Gauge
	hosts             *prometheus.GaugeVec
	hostOnline        *prometheus.GaugeVec
	hostAgentReady    *prometheus.GaugeVec
	poolAddresses     *prometheus.GaugeVec
	poolRefused       *prometheus.GaugeVec
	moves             *prometheus.CounterVec
	moveSeconds       prometheus.Histogram
	statusWrites      *prometheus.CounterVec
	statusErrors      *prometheus.CounterVec
	eventsLost        *prometheus.CounterVec
	recordProblem     prometheus.Gauge
	allocationSeconds prometheus.Histogram
	passSeconds       prometheus.Histogram
	passErrors        prometheus.Counter
	probes            *prometheus.CounterVec
	roundTripSeconds  prometheus.Histogram

	// shown is what hostOnline and hostAgentReady show, reasons what unserved does; both
	// belong to the goroutine of passes.
	shown   map[string]hostShown
	reasons map[unservedKey]int
	// pools are those that are shown; they belong to the goroutine of the pools.
	pools map[string]bool
}

// hostShown is what is shown of a host.
type hostShown struct{ online, agentReady bool }

// unservedKey are the labels of unserved.
type unservedKey struct {
	family egress.Family
	reason egress.Reason
}

// MetricDefs returns the definitions of the controller's metrics, in order of name.
func MetricDefs() []metric.Def { return newMetrics().Defs() }

func newMetrics() *metrics {
	m := &metrics{shown: make(map[string]hostShown), reasons: make(map[unservedKey]int)}
	m.addState()
	m.addWork()
	return m
}

// addState adds what shows the state of the cluster.
func (m *metrics) addState() {
	family := metric.Label{Name: "family", Values: []string{egress.IPv4.String(), egress.IPv6.String()}}
	state := metric.Label{Name: "state"}
	for _, s := range states() {
		state.Values = append(state.Values, string(s))
	}
	host := metric.Label{Name: "host", Is: "name of a HostSubnet"}
	pool := metric.Label{Name: "pool", Is: "name of an EgressIPPool"}
	m.leading = m.Gauge(metric.Def{
		Name: "egressip_leading",
		Help: "1 while this controller leads, else 0. Only the leader's other metrics say something, except those of probes.",
	})
	m.info = m.Gauges(metric.Def{
		Name: "egressip_build_info", Help: "Always 1; the label is the version.",
		Labels: []metric.Label{{Name: "version", Is: "version of the program"}}, Series: "1",
	})
	m.requests = m.Gauges(metric.Def{
		Name:   "egressip_requests",
		Help:   "Egress IPs that NetNamespaces and EgressIPs request, by family and state.",
		Labels: []metric.Label{family, state},
	})
	m.unserved = m.Gauges(metric.Def{
		Name:   "egressip_unserved_requests",
		Help:   "Requested egress IPs that can neither be used nor stand by, by family and reason.",
		Labels: []metric.Label{family, {Name: "reason", Is: "reason in the status of the request"}},
		Series: "2 for each reason that occurred; there are about 40 reasons",
	})
	m.claims = m.Gauges(metric.Def{
		Name:   "egressip_claims",
		Help:   "Egress IPs claimed by hosts, by family and state.",
		Labels: []metric.Label{family, state},
	})
	m.dropped = m.Gauge(metric.Def{
		Name: "egressip_dropped_namespaces",
		Help: "NetNamespaces and EgressIPs that request egress IPs of a family of which none is active, so that its traffic to the outside is dropped.",
	})
	m.hosts = m.Gauges(metric.Def{
		Name: "egressip_hosts", Help: "Hosts by online state.",
		Labels: []metric.Label{{Name: "online", Values: []string{"true", "false"}}},
	})
	m.hostOnline = m.Gauges(metric.Def{
		Name:   "egressip_host_online",
		Help:   "1 if the host takes egress traffic, else 0. Hosts whose Node is gone are left out.",
		Labels: []metric.Label{host}, Series: "1 for each host",
	})
	m.hostAgentReady = m.Gauges(metric.Def{
		Name:   "egressip_host_agent_ready",
		Help:   "1 if the host's agent reports that the kernel is as planned, and probes do not find the agent gone, else 0. Hosts whose Node is gone are left out.",
		Labels: []metric.Label{host}, Series: "1 for each host",
	})
	m.poolAddresses = m.Gauges(metric.Def{
		Name:   "egressip_pool_addresses",
		Help:   "Addresses of a pool that requests have (given), or that are kept for requests that are gone.",
		Labels: []metric.Label{pool, {Name: "state", Values: []string{"given", "kept"}}}, Series: "2 for each EgressIPPool",
	})
	m.poolRefused = m.Gauges(metric.Def{
		Name:   "egressip_pool_refused_requests",
		Help:   "EgressIPRequests that a pool gives no address.",
		Labels: []metric.Label{pool}, Series: "1 for each EgressIPPool",
	})
}

// addWork adds what shows what the controller does.
func (m *metrics) addWork() {
	m.moves = m.Counters(metric.Def{
		Name:   "egressip_moves_total",
		Help:   "Egress IPs that moved to another host, by the reason for which the former host released it; Reassigned if the controller did not have it released.",
		Labels: []metric.Label{{Name: "reason", Values: moveReasons()}},
	})
	m.moveSeconds = m.Histogram(metric.Def{
		Name:    "egressip_move_duration_seconds",
		Help:    "Time from the release of an egress IP by the controller to the status that names its new host.",
		Buckets: prometheus.ExponentialBuckets(0.02, 2, 12),
	})
	kind := metric.Label{Name: "kind", Values: []string{kindNetNamespace, kindEgressIP, kindHostSubnet}}
	m.statusWrites = m.Counters(metric.Def{
		Name: "egressip_status_writes_total", Help: "Status writes by kind of object.", Labels: []metric.Label{kind},
	})
	m.statusErrors = m.Counters(metric.Def{
		Name: "egressip_status_write_errors_total", Help: "Status writes that failed, by kind of object. Each is tried again.", Labels: []metric.Label{kind},
	})
	m.eventsLost = m.Counters(metric.Def{
		Name:   "egressip_events_lost_total",
		Help:   "Events that are not written, by reason. What they report is in statuses, too.",
		Labels: []metric.Label{{Name: "reason", Values: []string{lostQueueFull, lostRateLimited, lostRefused, lostUnanswered}}},
	})
	m.recordProblem = m.Gauge(metric.Def{
		Name: "egressip_record_problem",
		Help: "1 while the record of use cannot be written to its volume (--record-dir): it is in memory alone.",
	})
	m.allocationSeconds = m.Histogram(metric.Def{
		Name:    "egressip_allocation_duration_seconds",
		Help:    "Time to decide which host has which egress IP.",
		Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14),
	})
	m.passSeconds = m.Histogram(metric.Def{
		Name:    "egressip_reconcile_duration_seconds",
		Help:    "Duration of a pass over the cluster, including writes.",
		Buckets: prometheus.ExponentialBuckets(0.001, 2, 14),
	})
	m.passErrors = m.Counter(metric.Def{
		Name: "egressip_reconcile_errors_total",
		Help: "Passes over the cluster in which something failed. Each is followed by another one.",
	})
	m.probes = m.Counters(metric.Def{
		Name:   "egressip_probes_total",
		Help:   "Probes of this controller to hosts, by outcome. A late answer is counted as missed before.",
		Labels: []metric.Label{{Name: "outcome", Values: probe.Outcomes()}},
	})
	m.roundTripSeconds = m.Histogram(metric.Def{
		Name:    "egressip_probe_round_trip_seconds",
		Help:    "Time until a host answered a probe of this controller.",
		Buckets: prometheus.ExponentialBuckets(0.0001, 2, 12),
	})
}

// states are all states of requests and claims.
func states() []egress.State {
	return []egress.State{egress.Active, egress.Standby, egress.Unassigned, egress.HostOffline, egress.Conflict, egress.Invalid}
}

// lead shows that this controller leads until ctx ends.
func (m *metrics) lead(ctx context.Context) error {
	m.leading.Set(1)
	defer m.leading.Set(0)
	<-ctx.Done()
	return nil
}

// probed counts the outcome of a probe.
func (m *metrics) probed(o probe.Outcome, roundTrip time.Duration) {
	m.probes.WithLabelValues(o.String()).Inc()
	if roundTrip > 0 {
		m.roundTripSeconds.Observe(roundTrip.Seconds())
	}
}

// observe sets the gauges from a decision. Namespaces in moving are not counted as
// dropped.
func (m *metrics) observe(v view, resolution egress.Resolution, moving map[string]bool) {
	var requests, claims [2]map[egress.State]int
	for _, f := range []egress.Family{egress.IPv4, egress.IPv6} {
		requests[f], claims[f] = map[egress.State]int{}, map[egress.State]int{}
	}
	unserved := make(map[unservedKey]int)
	dropped := 0
	for _, n := range resolution.Groups {
		for _, request := range n.Requests {
			f := egress.RequestFamily(request.IP)
			requests[f][request.State]++
			if request.State != egress.Active && request.State != egress.Standby {
				unserved[unservedKey{f, request.Reason}]++
			}
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
	for _, state := range states() {
		for _, f := range []egress.Family{egress.IPv4, egress.IPv6} {
			m.requests.WithLabelValues(f.String(), string(state)).Set(float64(requests[f][state]))
			m.claims.WithLabelValues(f.String(), string(state)).Set(float64(claims[f][state]))
		}
	}
	for key := range m.reasons {
		unserved[key] += 0 // shown as 0 from now on
	}
	m.reasons = unserved
	for key, n := range unserved {
		m.unserved.WithLabelValues(key.family.String(), string(key.reason)).Set(float64(n))
	}
	m.dropped.Set(float64(dropped))
	m.observeHosts(v)
}

// observeHosts shows the hosts. What is as it was is left alone: there may be thousands.
func (m *metrics) observeHosts(v view) {
	isOnline := 0
	for _, verdict := range v.verdicts {
		if verdict.Online {
			isOnline++
		}
	}
	m.hosts.WithLabelValues("true").Set(float64(isOnline))
	m.hosts.WithLabelValues("false").Set(float64(len(v.verdicts) - isOnline))
	shown := make(map[string]hostShown, len(v.hosts))
	for _, h := range v.hosts {
		if v.gone[h.Name] {
			continue
		}
		verdict := v.verdicts[h.Name]
		now := hostShown{
			online: verdict.Online,
			agentReady: verdict.Reason != online.ReasonNoAgent &&
				conditionStatus(h.Status.Conditions, v1.ConditionAgentReady, metav1.ConditionFalse) == metav1.ConditionTrue,
		}
		if was, known := m.shown[h.Name]; !known || was != now {
			m.hostOnline.WithLabelValues(h.Name).Set(one(now.online))
			m.hostAgentReady.WithLabelValues(h.Name).Set(one(now.agentReady))
		}
		shown[h.Name] = now
	}
	maps.DeleteFunc(m.shown, func(name string, _ hostShown) bool { _, still := shown[name]; return still })
	for gone := range m.shown {
		m.hostOnline.DeleteLabelValues(gone)
		m.hostAgentReady.DeleteLabelValues(gone)
	}
	m.shown = shown
}

// observePools shows what pools have given.
func (m *metrics) observePools(pools []egress.Pool, drawn []egress.DrawnPool) {
	now := make(map[string]bool, len(pools))
	for i, p := range pools {
		now[p.Name] = true
		m.poolAddresses.WithLabelValues(p.Name, "given").Set(float64(drawn[i].Given))
		m.poolAddresses.WithLabelValues(p.Name, "kept").Set(float64(drawn[i].Kept))
		m.poolRefused.WithLabelValues(p.Name).Set(float64(drawn[i].Refused))
	}
	for gone := range m.pools {
		if !now[gone] {
			m.poolAddresses.DeletePartialMatch(prometheus.Labels{"pool": gone})
			m.poolRefused.DeleteLabelValues(gone)
		}
	}
	m.pools = now
}

// one is 1 for true and 0 for false.
func one(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// assigned reports whether an address in that state has a host.
func assigned(state v1.EgressIPState) bool {
	return state == v1.StateActive || state == v1.StateStandby || state == v1.StateHostOffline
}
