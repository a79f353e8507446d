package controllers

import (
	"net/netip"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// Requests and claims are counted by family and state, what is no address with IPv4; and each
// namespace whose traffic is dropped once.
func TestMetricsOfEachFamily(t *testing.T) {
	m, registry := newMetrics(), prometheus.NewRegistry()
	unregister, err := m.register(registry)
	if err != nil {
		t.Fatal(err)
	}
	defer unregister()
	m.observe(view{}, egress.Resolution{
		Groups: []egress.GroupResult{
			{Name: "shop", Requests: []egress.RequestResult{{IP: "192.168.7.200", State: egress.Active}, {IP: "fd00:7::200", State: egress.Unassigned}}, Dropped: true},
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
	for name, want := range map[string]float64{
		"egressip_requests IPv4 Active": 1, "egressip_requests IPv6 Active": 1, "egressip_requests IPv6 Unassigned": 1, "egressip_requests IPv4 Unassigned": 0,
		"egressip_requests IPv4 Invalid": 1, "egressip_requests IPv6 Invalid": 1,
		"egressip_claims IPv4 Active": 1, "egressip_claims IPv6 Active": 1, "egressip_claims IPv6 Conflict": 1, "egressip_claims IPv4 Conflict": 0,
		"egressip_claims IPv4 Invalid": 1, "egressip_claims IPv6 Invalid": 0,
		"egressip_dropped_namespaces": 2,
	} {
		if v, ok := got[name]; !ok || v != want {
			t.Errorf("%s is %v, %t, want %v", name, v, ok, want)
		}
	}
}
