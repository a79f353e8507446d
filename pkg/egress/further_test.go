package egress_test

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// further gives a host networks at other interfaces than the uplink, whose network is known.
func (g *given) further(name string, networks ...v1.OtherNetwork) *given {
	g.edit(name, func(h *v1.HostSubnet) {
		h.Status.Agent.UplinkCIDR = h.HostIP + "/24"
		h.Status.Agent.OtherNetworks = networks
	})
	return g
}

// severalNetworks are those of one host, of which some contain others.
func severalNetworks() []v1.OtherNetwork {
	return []v1.OtherNetwork{
		{Interface: "eth3", CIDR: "172.16.5.0/24", Gateway: "172.16.5.3"},
		{Interface: "eth1", CIDR: "172.16.5.0/24", Gateway: "172.16.5.1"},
		{Interface: "eth2", CIDR: "172.16.0.0/16"},
		{Interface: "bond0", CIDR: "192.168.7.128/25", Gateway: "192.168.7.129"},
		{Interface: "eth1", CIDR: "fd00:5::/64", Gateway: "fe80::1"},
		{Interface: "eth5", CIDR: "10.5.0.0/24", Gateway: "fe80::7"},
		{Interface: "eth5", CIDR: "fd00:55::/64", Gateway: "10.5.0.1"},
		{Interface: "eth4", CIDR: "0.0.0.0/0"},
		{Interface: "eth4", CIDR: "10.3.3.3/32"},
		{Interface: "eth4", CIDR: "nothing"},
		{Interface: "", CIDR: "10.4.0.0/16"},
	}
}

// An egress IP goes to the uplink, if a network of that contains it, else to the most specific
// network of another interface, of two to the first interface by name. It leaves by the gateway
// of the host's routes, or else by that of its group.
//
// Mutants killed: widest-network-wins, last-interface-wins, uplink-comes-last,
// gateway-becomes-an-egress-ip-elsewhere, groups-overrule-routes.
func TestNetworkOfAnEgressIP(t *testing.T) {
	for _, test := range []struct {
		ip                 string
		device, gateway    string
		reason             egress.Reason
		says               string
		withoutAnnotations bool
	}{
		{ip: "192.168.7.200"},
		{ip: "172.16.5.9", device: "eth1", gateway: "172.16.5.1"},
		{ip: "172.16.6.9", device: "eth2", gateway: "172.16.6.1"},
		{ip: "172.16.6.9", device: "eth2", withoutAnnotations: true},
		{ip: "fd00:5::9", device: "eth1", gateway: "fe80::1"},
		{ip: "10.5.0.9", device: "eth5", gateway: "fe80::7"},
		{ip: "fd00:55::9", device: "eth5", withoutAnnotations: true},
		{ip: "172.16.5.1", reason: egress.ReasonBadAddress, says: "it is the gateway of 172.16.5.0/24"},
		{ip: "172.16.5.255", reason: egress.ReasonBadAddress, says: "broadcast address"},
		{ip: "10.9.9.9", reason: egress.ReasonOutsideNetwork, says: "it is outside 192.168.7.0/24, 10.5.0.0/24 at eth5, 172.16.0.0/16 at eth2, 172.16.5.0/24 at eth1, 172.16.5.0/24 at eth3, 192.168.7.128/25 at bond0"},
		{ip: "10.3.3.3", reason: egress.ReasonOutsideNetwork, says: "it is outside"},
		{ip: "fd00:6::9", reason: egress.ReasonOutsideNetwork, says: "it is outside fd00:5::/64 at eth1"},
	} {
		g := new(given).namespace("red", test.ip).host("w0", test.ip).further("w0", severalNetworks()...)
		g.edit("w0", func(h *v1.HostSubnet) { h.Status.Agent.Families = []string{v1.FamilyIPv4, v1.FamilyIPv6} })
		if !test.withoutAnnotations {
			g.NetNamespaces[0].Annotations = map[string]string{v1.AnnotationGateways: "172.16.6.1, fd00:5::2"}
		}
		cluster, problems := egress.Snapshot(g.Objects)
		if len(problems) > 0 {
			t.Errorf("%s: problems %v", test.ip, problems)
		}
		resolution := egress.Resolve(cluster)
		plan, _ := egress.PlanFor(cluster, resolution, "w0", nil, nil)
		if test.reason != "" {
			host, _ := resolution.Host("w0")
			if len(plan.Hosted) > 0 || len(host.Claims) != 1 || host.Claims[0].Reason != test.reason || !strings.Contains(host.Claims[0].Message, test.says) {
				t.Errorf("%s: hosted %v, claims %+v", test.ip, plan.Hosted, host.Claims)
			}
			continue
		}
		want := egress.HostedIP{IP: testenv.Addr(test.ip), NetID: 1001, Group: "red", Interface: test.device}
		if test.gateway != "" {
			want.Gateway = testenv.Addr(test.gateway)
		}
		if len(plan.Hosted) != 1 || plan.Hosted[0] != want {
			t.Errorf("%s: hosted %+v, want %+v", test.ip, plan.Hosted, want)
		}
	}
}

// Where a cloud says which network a host has, it leads to the host nothing else.
//
// Mutants killed: clouds-have-further-networks, clouds-of-the-kernel.
func TestCloudsHaveNoFurtherNetworks(t *testing.T) {
	g := new(given).namespace("red", "172.16.5.9").host("w0", "172.16.5.9").further("w0", severalNetworks()...)
	g.edit("w0", func(h *v1.HostSubnet) { h.Status.Placement = &v1.PlacementStatus{Network: "192.168.7.0/24"} })
	cluster, _ := egress.Snapshot(g.Objects)
	for _, fresh := range []bool{false, true} {
		d, _ := egress.DecideHost(egress.HostInput{
			Host: "w0", Cluster: cluster, NetworksKnown: fresh,
			Networks: []egress.FurtherNetwork{{Interface: "eth1", CIDR: testenv.Prefix("172.16.5.0/24")}},
		})
		if len(d.Plan.Hosted) > 0 || d.Result.Claims[0].Reason != egress.ReasonOutsideNetwork {
			t.Errorf("fresh: %t: hosted %v, %+v", fresh, d.Plan.Hosted, d.Result.Claims)
		}
	}
}

// An annotation with bad gateways is a problem that names the part which is ignored, and the
// rest counts.
func TestGatewaysOfGroups(t *testing.T) {
	for written, want := range map[string]struct {
		four, six string
		problems  int
	}{
		"":                            {},
		"172.16.5.1":                  {four: "172.16.5.1"},
		"172.16.5.1,fe80::1":          {four: "172.16.5.1", six: "fe80::1"},
		"fd00::1 , 172.16.5.1":        {four: "172.16.5.1", six: "fd00::1"},
		"172.16.5.1,172.16.5.2":       {four: "172.16.5.1", problems: 1},
		"router,172.16.5.1":           {four: "172.16.5.1", problems: 1},
		"0.0.0.0,224.0.0.1,fe80::1%a": {problems: 3},
		"::ffff:172.16.5.1":           {problems: 1},
	} {
		g := new(given).namespace("red")
		g.NetNamespaces[0].Annotations = map[string]string{v1.AnnotationGateways: written}
		cluster, problems := egress.Snapshot(g.Objects)
		got := cluster.Groups[0].Gateways
		text := func(ip netip.Addr) string {
			if !ip.IsValid() {
				return ""
			}
			return ip.String()
		}
		if text(got[egress.IPv4]) != want.four || text(got[egress.IPv6]) != want.six || len(problems) != want.problems {
			t.Errorf("%q: %v, problems %v", written, got, problems)
		}
		for _, p := range problems {
			if p.Reason != egress.ReasonBadGateways || !strings.Contains(p.Message, "gateways") {
				t.Errorf("%q: problem %+v", written, p)
			}
		}
	}
}

// Hosts that the controller assigns to take what is in any of their networks and in their
// ranges; an egress IP moves when the network of its host goes, to one that has the network,
// and to none if there is none.
//
// Mutant killed: ranges-end-at-the-uplink.
func TestEgressIPsFollowFurtherNetworks(t *testing.T) {
	second := v1.OtherNetwork{Interface: "eth1", CIDR: "172.16.5.0/24", Gateway: "172.16.5.1"}
	place := func(networks ...[]v1.OtherNetwork) string {
		g := new(given).namespace("red", "172.16.5.200")
		for i, of := range networks {
			name := string(rune('a' + i))
			g.automatic(name, "172.16.0.0/16").further(name, of...)
		}
		cluster, _ := egress.Snapshot(g.Objects)
		for _, h := range egress.Allocate(cluster).Hosts {
			if len(h.Claims) > 0 {
				return h.Host
			}
		}
		return ""
	}
	with, without := []v1.OtherNetwork{second}, []v1.OtherNetwork(nil)
	for _, c := range []struct {
		networks [][]v1.OtherNetwork
		want     string
	}{
		{[][]v1.OtherNetwork{with, without}, "a"},
		{[][]v1.OtherNetwork{without, with}, "b"},
		{[][]v1.OtherNetwork{without, without}, ""},
		{[][]v1.OtherNetwork{with, with}, "a"},
	} {
		if got := place(c.networks...); got != c.want {
			t.Errorf("networks %v: host %q, want %q", c.networks, got, c.want)
		}
	}
}

// What the kernel said last counts for the host itself, and is published without networks of
// pods; what it has not said yet is as it was published.
func TestNetworksThatTheKernelReports(t *testing.T) {
	g := new(given).namespace("red", "172.16.5.9").host("w0", "172.16.5.9").further("w0", v1.OtherNetwork{Interface: "eth1", CIDR: "172.16.5.0/24"})
	g.edit("w0", func(h *v1.HostSubnet) { h.Subnet = "10.244.0.0/24" })
	cluster, _ := egress.Snapshot(g.Objects)
	at := func(device, cidr string) egress.FurtherNetwork {
		return egress.FurtherNetwork{Interface: device, CIDR: testenv.Prefix(cidr)}
	}
	for name, c := range map[string]struct {
		known           bool
		networks        []egress.FurtherNetwork
		device, publish string
	}{
		"not known yet":     {false, nil, "eth1", ""},
		"as published":      {true, []egress.FurtherNetwork{at("eth1", "172.16.5.0/24")}, "eth1", "eth1"},
		"gone":              {true, nil, "", ""},
		"elsewhere":         {true, []egress.FurtherNetwork{at("eth2", "172.16.5.0/24")}, "eth2", "eth2"},
		"a network of pods": {true, []egress.FurtherNetwork{at("eth1", "172.16.5.0/24"), at("eth9", "10.244.0.0/16")}, "eth1", "eth1"},
	} {
		d, _ := egress.DecideHost(egress.HostInput{Host: "w0", Cluster: cluster, Networks: c.networks, NetworksKnown: c.known})
		device, publish := "", ""
		if len(d.Plan.Hosted) > 0 {
			device = d.Plan.Hosted[0].Interface
		}
		for _, n := range d.Networks {
			publish += n.Interface
		}
		if device != c.device || publish != c.publish {
			t.Errorf("%s: at %q, published %q", name, device, publish)
		}
	}
}

// An address that a host has in a network which others share is no egress IP of any host; in
// one that it alone is in, it is none of its own.
//
// Mutant killed: further-addresses-are-free.
func TestAddressesOfHostsInFurtherNetworks(t *testing.T) {
	second := v1.OtherNetwork{Interface: "eth1", CIDR: "172.16.5.0/24"}
	for name, c := range map[string]struct {
		claims string
		other  []v1.OtherNetwork
		want   egress.Reason
	}{
		"of another host, in a shared network": {"w1", []v1.OtherNetwork{second}, egress.ReasonHostAddress},
		"of the host itself":                   {"w0", nil, egress.ReasonHostAddress},
		"of a host that is alone there":        {"w1", nil, egress.ReasonOutsideNetwork},
	} {
		g := new(given).namespace("red", "172.16.5.10").host("w0").host("w1").further("w0", second).further("w1", c.other...)
		g.edit("w0", func(h *v1.HostSubnet) { h.Status.Agent.Addresses = []string{"172.16.5.10"} })
		g.edit(c.claims, func(h *v1.HostSubnet) { h.EgressIPs = []string{"172.16.5.10"} })
		cluster, _ := egress.Snapshot(g.Objects)
		host, _ := egress.Resolve(cluster).Host(c.claims)
		if len(host.Claims) != 1 || host.Claims[0].Reason != c.want {
			t.Errorf("%s: %+v", name, host.Claims)
		}
	}
}

// Whatever networks hosts have, each egress IP is hosted where a network contains it, by the
// rule, and prepared where it would be hosted.
//
// Mutants killed: widest-network-wins, uplink-comes-last.
func TestPropertyEgressIPsAreInTheirNetworks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cluster, _ := egress.Snapshot(drawObjects(t, full()))
		resolution := egress.Resolve(cluster)
		for i := range cluster.Hosts {
			h := &cluster.Hosts[i]
			plan, _ := egress.PlanFor(cluster, resolution, h.Name, nil, nil)
			for _, hosted := range slices.Concat(plan.Hosted, plan.Standby) {
				onUplink := slices.ContainsFunc(h.Networks, func(p netip.Prefix) bool { return p.Contains(hosted.IP) })
				var fitting []egress.FurtherNetwork
				for _, n := range h.FurtherNetworks {
					if n.CIDR.Contains(hosted.IP) {
						fitting = append(fitting, n)
					}
				}
				slices.SortFunc(fitting, func(a, b egress.FurtherNetwork) int {
					return cmp.Or(b.CIDR.Bits()-a.CIDR.Bits(), strings.Compare(a.Interface, b.Interface))
				})
				want := ""
				if !onUplink && len(fitting) > 0 {
					want = fitting[0].Interface
				}
				if hosted.Interface != want {
					t.Fatalf("host %s has %v at %q, not at %q; uplink %v, others %v", h.Name, hosted.IP, hosted.Interface, want, h.Networks, h.FurtherNetworks)
				}
				if hosted.Interface == "" && hosted.Gateway.IsValid() {
					t.Fatalf("host %s: %v is on the uplink and has gateway %v", h.Name, hosted.IP, hosted.Gateway)
				}
			}
		}
	})
}

// A gateway of a group is used where it can be: in a network of the interface, or of the link,
// and no address of the host.
//
// Mutants killed: gateways-of-groups-are-anywhere, gateways-of-groups-are-the-host.
func TestGatewaysOfGroupsThatCanBe(t *testing.T) {
	for gateway, can := range map[string]bool{
		"172.16.6.1": true, "172.16.8.1": true, "169.254.0.1": true,
		"172.16.6.255": false, "172.16.6.0": false, "172.16.7.1": false, "172.16.5.1": false, "10.9.9.9": false,
		"172.16.6.9": false, "172.16.6.10": false,
	} {
		g := new(given).namespace("red", "172.16.6.9").host("w0", "172.16.6.9").further("w0",
			v1.OtherNetwork{Interface: "eth1", CIDR: "172.16.5.0/24"},
			v1.OtherNetwork{Interface: "eth2", CIDR: "172.16.6.0/24"}, v1.OtherNetwork{Interface: "eth2", CIDR: "172.16.8.0/24"})
		g.edit("w0", func(h *v1.HostSubnet) { h.Status.Agent.Addresses = []string{"172.16.6.10"} })
		g.NetNamespaces[0].Annotations = map[string]string{v1.AnnotationGateways: gateway}
		cluster, _ := egress.Snapshot(g.Objects)
		plan, _ := egress.PlanFor(cluster, egress.Resolve(cluster), "w0", nil, nil)
		want := egress.HostedIP{IP: testenv.Addr("172.16.6.9"), NetID: 1001, Group: "red", Interface: "eth2"}
		if can {
			want.Gateway = testenv.Addr(gateway)
		}
		if len(plan.Hosted) != 1 || plan.Hosted[0] != want {
			t.Errorf("%s: hosted %+v, want %+v", gateway, plan.Hosted, want)
		}
	}
}
