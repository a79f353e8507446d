package agent

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane"
)

// The use of egress IPs is shown as it was counted last, and not that of egress IPs that have
// left the node.
func TestUsageOfEgressIPsIsShown(t *testing.T) {
	m, registry := newMetrics("test"), prometheus.NewRegistry()
	unregister, err := m.register(registry)
	if err != nil {
		t.Fatal(err)
	}
	defer unregister()
	const connections, ports = "egressip_agent_egress_ip_connections", "egressip_agent_egress_ip_ports"
	reported := func(ip string, u dataplane.Usage) dataplane.HostedReport {
		return dataplane.HostedReport{IP: testenv.Addr(ip), Usage: u}
	}
	m.observeUsage(dataplane.Report{})
	for name := range gathered(t, registry) {
		if name == connections || name == ports {
			t.Errorf("%s before anything was counted", name)
		}
	}
	m.observeUsage(dataplane.Report{Counts: 1, Hosted: []dataplane.HostedReport{
		reported("10.1.8.200", dataplane.Usage{Connections: 30, Ports: 20}), reported("10.1.8.201", dataplane.Usage{}),
	}})
	got := gathered(t, registry)
	for name, want := range map[string]float64{
		connections + "{10.1.8.200}": 30, ports + "{10.1.8.200}": 20, connections + "{10.1.8.201}": 0, ports + "{10.1.8.201}": 0,
	} {
		if v, ok := got[name]; !ok || v != want {
			t.Errorf("%s is %v, %t, want %v", name, v, ok, want)
		}
	}
	m.observeUsage(dataplane.Report{Counts: 2, Hosted: []dataplane.HostedReport{reported("10.1.8.201", dataplane.Usage{Connections: 1, Ports: 1})}})
	got = gathered(t, registry)
	if _, still := got[connections+"{10.1.8.200}"]; still || got[ports+"{10.1.8.201}"] != 1 {
		t.Errorf("after another count: %v", got)
	}
}
