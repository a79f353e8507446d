package agent

import (
	"errors"
	"strings"
	"testing"

	"github.com/go-logr/logr/testr"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/overlay"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/warning"
)

// The use of egress IPs is shown as it was counted last, and not that of egress IPs that have
// left the node.
func TestUsageOfEgressIPsIsShown(t *testing.T) {
	m, registry := newMetrics("test"), prometheus.NewRegistry()
	unregister, err := m.Register(registry)
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

// Of each family, pods and egress IPs are shown by themselves; and whether the node serves
// IPv6, while that is known.
func TestFamiliesAreShown(t *testing.T) {
	m, registry := newMetrics("test"), prometheus.NewRegistry()
	unregister, err := m.Register(registry)
	if err != nil {
		t.Fatal(err)
	}
	defer unregister()
	const served6 = "egressip_agent_family_served{IPv6}"
	var s dataplane.State
	for ip, kind := range map[string]dataplane.PodKind{
		"10.244.1.5": dataplane.Local, "10.244.1.6": dataplane.Node,
		"fd00:1::5": dataplane.Drop, "fd00:1::6": dataplane.Drop, "fd00:1::7": dataplane.Remote,
	} {
		s.Pods = append(s.Pods, dataplane.Pod{IP: testenv.Addr(ip), Kind: kind})
	}
	s.Hosted = []dataplane.Hosted{{IP: testenv.Addr("10.1.8.200"), NetID: 7}, {IP: testenv.Addr("fd00:7::200"), NetID: 7}, {IP: testenv.Addr("fd00:7::201"), NetID: 8}}
	r := dataplane.Report{Hosted: []dataplane.HostedReport{
		{IP: s.Hosted[0].IP, Configured: true}, {IP: s.Hosted[1].IP, Configured: true}, {IP: s.Hosted[2].IP},
	}}
	m.observeFamilies(s, r)
	got := gathered(t, registry)
	for name, want := range map[string]float64{
		"egressip_agent_pods{IPv4}{local}": 1, "egressip_agent_pods{IPv4}{node}": 1, "egressip_agent_pods{IPv4}{drop}": 0, "egressip_agent_pods{IPv4}{remote}": 0,
		"egressip_agent_pods{IPv6}{local}": 0, "egressip_agent_pods{IPv6}{node}": 0, "egressip_agent_pods{IPv6}{drop}": 2, "egressip_agent_pods{IPv6}{remote}": 1,
		"egressip_agent_hosted_egress_ips{true}{IPv4}": 1, "egressip_agent_hosted_egress_ips{false}{IPv4}": 0,
		"egressip_agent_hosted_egress_ips{true}{IPv6}": 1, "egressip_agent_hosted_egress_ips{false}{IPv6}": 1,
	} {
		if v, ok := got[name]; !ok || v != want {
			t.Errorf("%s is %v, %t, want %v", name, v, ok, want)
		}
	}
	if _, ok := got[served6]; ok {
		t.Error("IPv6 is shown before it is known")
	}
	for _, step := range []struct {
		report dataplane.IPv6Report
		shown  bool
		want   float64
	}{
		{dataplane.IPv6Report{Known: true, Reason: "no forwarding"}, true, 0},
		{dataplane.IPv6Report{Known: true}, true, 1},
		{dataplane.IPv6Report{}, false, 0},
	} {
		m.observeFamilies(s, dataplane.Report{IPv6: step.report})
		if v, shown := gathered(t, registry)[served6]; shown != step.shown || v != step.want {
			t.Errorf("%+v: %s is %v, shown: %t", step.report, served6, v, shown)
		}
	}
}

// Findings are shown by kind, those that are over as 0, and egress IPs that others have by number.
func TestFindingsAreShown(t *testing.T) {
	m, registry := newMetrics("test"), prometheus.NewRegistry()
	unregister, err := m.Register(registry)
	if err != nil {
		t.Fatal(err)
	}
	defer unregister()
	for _, step := range []struct {
		report                dataplane.Report
		ports, unknown, inUse float64
	}{
		{dataplane.Report{Warnings: []warning.Warning{{Reason: warning.PortsRunOut, Object: "a"}, {Reason: warning.PortsRunOut, Object: "b"}, {Reason: warning.Unknown}}}, 2, 1, 0},
		{dataplane.Report{Warnings: []warning.Warning{{Reason: warning.Unknown}}, Hosted: []dataplane.HostedReport{{InUseBy: "02:00:00:00:00:01"}, {}}}, 0, 1, 1},
		{dataplane.Report{}, 0, 0, 0},
	} {
		m.observeFindings(step.report)
		got := gathered(t, registry)
		if got["egressip_agent_warnings{PortsRunOut}"] != step.ports || got["egressip_agent_warnings{Unknown}"] != step.unknown ||
			got["egressip_agent_addresses_in_use_elsewhere"] != step.inUse {
			t.Errorf("%+v: %v", step.report, got)
		}
	}
}

// Without a device, or if it cannot be read, nothing is shown of the overlay, and all else is.
func TestOverlayTrafficIsShown(t *testing.T) {
	for name, c := range map[string]struct {
		ok   bool
		err  error
		want int
	}{
		"a device": {true, nil, 8}, "none": {false, nil, 0}, "unreadable": {false, errors.New("no permission"), 0},
	} {
		m, registry := newMetrics("test"), prometheus.NewRegistry()
		m.addTraffic(testr.New(t), func() (overlay.Traffic, bool, error) {
			return overlay.Traffic{Received: overlay.Counts{Packets: 1, Bytes: 2, Dropped: 3, Errors: 4}}, c.ok, c.err
		})
		unregister, err := m.Register(registry)
		if err != nil {
			t.Fatal(err)
		}
		got, shown := gathered(t, registry), 0
		unregister()
		for metric := range got {
			if strings.HasPrefix(metric, "egressip_agent_overlay_") {
				shown++
			}
		}
		if shown != c.want || c.ok && got["egressip_agent_overlay_dropped_packets_total{receive}"] != 3 || got["egressip_agent_build_info{test}"] != 1 {
			t.Errorf("%s: %d series, want %d: %v", name, shown, c.want, got)
		}
	}
}
