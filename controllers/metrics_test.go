package controllers

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
	"github.com/egressip-operator/egressip-operator/pkg/online"
)

// Requests and claims are counted by family and state, what is no address with IPv4; and each
// namespace whose traffic is dropped once.
func TestMetricsOfEachFamily(t *testing.T) {
	m, registry := newMetrics(), prometheus.NewRegistry()
	unregister, err := m.Register(registry)
	if err != nil {
		t.Fatal(err)
	}
	defer unregister()
	m.observe(view{}, egress.Resolution{
		Groups: []egress.GroupResult{
			{Name: "shop", Requests: []egress.RequestResult{{IP: "192.168.7.200", State: egress.Active}, {IP: "fd00:7::200", State: egress.Unassigned, Reason: egress.ReasonNotClaimed}}, Dropped: true},
			{Name: "till", Requests: []egress.RequestResult{{IP: "a.b.c.d", State: egress.Invalid}, {IP: "fd00:7::1%eth0", State: egress.Invalid}}, Dropped: true},
			{Name: "stock", Requests: []egress.RequestResult{{IP: "fd00:7::201", State: egress.Active}}, Dropped: true},
		},
		Hosts: []egress.HostResult{{
			Claims: []egress.ClaimResult{
				{IP: netip.MustParseAddr("192.168.7.200"), State: egress.Active},
				{IP: netip.MustParseAddr("fd00:7::201"), State: egress.Active},
				{IP: netip.MustParseAddr("fd00:7::202"), State: egress.Conflict},
			},
			Invalid: []string{"a.b.c.d"},
		}},
	}, map[string]bool{"stock": true})
	got := shownBy(t, registry)
	for name, want := range map[string]float64{
		"egressip_requests IPv4 Active": 1, "egressip_requests IPv6 Active": 1, "egressip_requests IPv6 Unassigned": 1, "egressip_requests IPv4 Unassigned": 0,
		"egressip_requests IPv4 Invalid": 1, "egressip_requests IPv6 Invalid": 1,
		"egressip_claims IPv4 Active": 1, "egressip_claims IPv6 Active": 1, "egressip_claims IPv6 Conflict": 1, "egressip_claims IPv4 Conflict": 0,
		"egressip_claims IPv4 Invalid": 1, "egressip_claims IPv6 Invalid": 0,
		"egressip_dropped_namespaces":                2,
		"egressip_unserved_requests IPv6 NotClaimed": 1,
	} {
		if v, ok := got[name]; !ok || v != want {
			t.Errorf("%s is %v, %t, want %v", name, v, ok, want)
		}
	}
}

// Reasons that are over are shown as 0: a series that ends would be shown for minutes.
func TestMetricsOfReasonsThatEnd(t *testing.T) {
	t.Parallel()
	m, registry := newMetrics(), prometheus.NewRegistry()
	unregister, err := m.Register(registry)
	if err != nil {
		t.Fatal(err)
	}
	defer unregister()
	const series = "egressip_unserved_requests IPv4 HostOffline"
	for _, want := range []float64{1, 0, 0} {
		var r egress.Resolution
		if want > 0 {
			r.Groups = []egress.GroupResult{{Requests: []egress.RequestResult{{IP: "192.168.7.200", State: egress.HostOffline, Reason: egress.ReasonHostOffline}}}}
		}
		m.observe(view{}, r, nil)
		if got, ok := shownBy(t, registry)[series]; !ok || got != want {
			t.Errorf("%s is %v, %t, want %v", series, got, ok, want)
		}
	}
}

// Each host is shown by name: whether it takes traffic, and whether its agent works as far as is
// known. A host whose Node is gone, or that is gone itself, is not shown.
func TestMetricsOfHosts(t *testing.T) {
	t.Parallel()
	m, registry := newMetrics(), prometheus.NewRegistry()
	unregister, err := m.Register(registry)
	if err != nil {
		t.Fatal(err)
	}
	defer unregister()
	host := func(name string, agentReady metav1.ConditionStatus) *v1.HostSubnet {
		h := &v1.HostSubnet{ObjectMeta: metav1.ObjectMeta{Name: name}}
		if agentReady != "" {
			h.Status.Conditions = []metav1.Condition{{Type: v1.ConditionAgentReady, Status: agentReady}}
		}
		return h
	}
	type shown struct{ online, agent float64 }
	for _, step := range []struct {
		view view
		want map[string]shown
	}{
		{view{
			hosts:    []*v1.HostSubnet{host("a", metav1.ConditionTrue), host("b", metav1.ConditionFalse), host("c", ""), host("d", metav1.ConditionTrue)},
			verdicts: map[string]online.Verdict{"a": {Online: true}, "b": {Online: true}, "c": {}, "d": {Online: true, Reason: online.ReasonNoAgent}},
		}, map[string]shown{"a": {1, 1}, "b": {1, 0}, "c": {0, 0}, "d": {1, 0}}},
		{view{
			hosts:    []*v1.HostSubnet{host("a", metav1.ConditionTrue), host("b", metav1.ConditionTrue), host("d", metav1.ConditionTrue)},
			verdicts: map[string]online.Verdict{"a": {Online: true}, "b": {Online: true}, "d": {}},
			gone:     map[string]bool{"d": true},
		}, map[string]shown{"a": {1, 1}, "b": {1, 1}}},
	} {
		m.observe(step.view, egress.Resolution{}, nil)
		got := shownBy(t, registry)
		for name, want := range step.want {
			if is := (shown{got["egressip_host_online "+name], got["egressip_host_agent_ready "+name]}); is != want {
				t.Errorf("%s is shown as %v, want %v", name, is, want)
			}
		}
		n := 0
		for name := range got {
			if strings.HasPrefix(name, "egressip_host_online ") || strings.HasPrefix(name, "egressip_host_agent_ready ") {
				n++
			}
		}
		if n != 2*len(step.want) {
			t.Errorf("%d series of hosts, want %d: %v", n, 2*len(step.want), got)
		}
	}
}

// Pools are shown by name, and no longer when they are gone.
func TestMetricsOfPools(t *testing.T) {
	t.Parallel()
	m, registry := newMetrics(), prometheus.NewRegistry()
	unregister, err := m.Register(registry)
	if err != nil {
		t.Fatal(err)
	}
	defer unregister()
	m.observePools([]egress.Pool{{Name: "a"}, {Name: "b"}}, []egress.DrawnPool{{Given: 3, Kept: 2, Refused: 1}, {}})
	got := shownBy(t, registry)
	if got["egressip_pool_addresses a given"] != 3 || got["egressip_pool_addresses a kept"] != 2 || got["egressip_pool_refused_requests a"] != 1 {
		t.Errorf("%v", got)
	}
	m.observePools([]egress.Pool{{Name: "b"}}, []egress.DrawnPool{{Given: 1}})
	got = shownBy(t, registry)
	if _, still := got["egressip_pool_addresses a kept"]; still || got["egressip_pool_addresses b given"] != 1 {
		t.Errorf("%v", got)
	}
}

// shownBy returns the values of gauges, by name and values of labels.
func shownBy(t *testing.T, registry prometheus.Gatherer) map[string]float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, of := range f.GetMetric() {
			name := f.GetName()
			for _, l := range of.GetLabel() {
				name += " " + l.GetValue()
			}
			got[name] = of.GetGauge().GetValue()
		}
	}
	return got
}
