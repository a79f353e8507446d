package egress_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// found are the networks that the controller has published for a host.
func (g *given) found(name string, networks ...v1.FoundNetwork) *given {
	g.edit(name, func(h *v1.HostSubnet) { h.Status.FoundNetworks = networks })
	return g
}

func network(use, cidr string) v1.FoundNetwork {
	return v1.FoundNetwork{CIDR: cidr, Source: "some object", Use: use}
}

// What an object of the control plane says is inside for all, unless other machines are
// there; of what one of a node says, the node's agent must have seen the same.
//
// Mutants killed: cni-alone-is-inside, problems-do-not-matter, host-in-the-pool-of-ipv6,
// pools-of-all-ipv6.
func TestNetworksThatObjectsName(t *testing.T) {
	cluster := func() *given {
		g := new(given).namespace("red", "192.168.7.200").host("w0").host("w1", "192.168.7.200").host("w2").
			uplink("w0", "192.168.7.10/24").uplink("w1", "192.168.7.11/24").uplink("w2", "10.20.0.5/32").hostIP("w2", "10.20.0.5")
		g.edit("w2", func(h *v1.HostSubnet) { h.Status.IPv6Networks = []string{"fd00:20::5/128"} })
		return g
	}
	disabled := network(v1.UsePods, "10.8.0.0/16")
	disabled.Problem = "the pool is disabled"
	for name, test := range map[string]struct {
		given   *given
		network string
		inside  bool
	}{
		"a pool":                          {cluster().found("w1", network(v1.UsePods, "10.8.0.0/16")), "10.8.0.0/16", true},
		"a pool with host bits":           {cluster().found("w1", network(v1.UsePods, "10.8.3.1/16")), "10.8.0.0/16", true},
		"a pool that does not count":      {cluster().found("w1", disabled), "10.8.0.0/16", false},
		"a pool carried by one that left": {cluster().found("w1", network(v1.UsePods, "10.8.0.0/16")).gone("w1"), "10.8.0.0/16", true},
		"services":                        {cluster().found("w1", network(v1.UseServices, "10.96.0.0/16")), "10.96.0.0/16", true},
		"a service":                       {cluster().found("w1", network(v1.UseServices, "10.96.0.1/32")), "10.96.0.1/32", true},
		"everything":                      {cluster().found("w1", network(v1.UsePods, "0.0.0.0/0")), "0.0.0.0/0", false},
		"nearly everything":               {cluster().found("w1", network(v1.UsePods, "8.0.0.0/7")), "8.0.0.0/7", false},
		"around the uplink of hosts":      {cluster().found("w1", network(v1.UsePods, "192.168.0.0/16")), "192.168.0.0/16", false},
		"a part of the uplink of hosts":   {cluster().found("w1", network(v1.UsePods, "192.168.7.128/25")), "192.168.7.128/25", false},
		"around an egress IP":             {cluster().found("w1", network(v1.UsePods, "192.168.7.200/32")), "192.168.7.200/32", false},
		"around a host without a segment": {cluster().found("w1", network(v1.UsePods, "10.20.0.0/16")), "10.20.0.0/16", false},
		"multicast":                       {cluster().found("w1", network(v1.UsePods, "239.0.0.0/8")), "239.0.0.0/8", false},
		"a pool of IPv6":                  {cluster().found("w1", network(v1.UsePods, "fd00:10::/64")), "fd00:10::/64", true},
		"a pool of IPv6 with a host":      {cluster().found("w1", network(v1.UsePods, "fd00:20::/64")), "fd00:20::/64", false},
		"a pool of all IPv6":              {cluster().found("w1", network(v1.UsePods, "2000::/3")), "2000::/3", false},
		"link-local IPv6":                 {cluster().found("w1", network(v1.UsePods, "fe80::/64")), "fe80::/64", false},
		"IPv4 in IPv6":                    {cluster().found("w1", network(v1.UsePods, "::ffff:10.8.0.0/112")), "::ffff:10.8.0.0/112", false},

		"of a node, alone": {cluster().found("w0", network(v1.UseNodePods, "10.9.1.0/24")), "10.9.1.0/24", false},
		"of a node whose agent says so": {
			cluster().found("w0", network(v1.UseNodePods, "10.9.1.0/24")).podNetworks("w0", []string{"10.9.1.0/24"}, nil), "10.9.1.0/24", true,
		},
		"a part of what a node has": {
			cluster().found("w0", network(v1.UseNodePods, "10.9.0.0/20")).podNetworks("w0", []string{"10.9.1.0/26"}, nil), "10.9.1.0/26", true,
		},
		"more than a node has": {
			cluster().found("w0", network(v1.UseNodePods, "10.9.1.0/24")).podNetworks("w0", []string{"10.9.0.0/23"}, nil), "10.9.0.0/23", false,
		},
		"what another node has": {
			cluster().found("w1", network(v1.UseNodePods, "10.9.1.0/24")).podNetworks("w0", []string{"10.9.1.0/24"}, nil), "10.9.1.0/24", false,
		},
		"of a node, wide": {
			cluster().found("w0", network(v1.UseNodePods, "10.0.0.0/8")).podNetworks("w0", []string{"10.9.1.0/24"}, nil), "10.9.1.0/24", false,
		},
		"of a node, on the uplink of hosts": {
			cluster().found("w0", network(v1.UseNodePods, "192.168.7.64/26")).podNetworks("w0", []string{"192.168.7.64/26"}, nil), "192.168.7.64/26", false,
		},
		"of a node of IPv6": {cluster().found("w0", network(v1.UseNodePods, "fd00:9::/64")), "fd00:9::/64", false},
	} {
		t.Run(name, func(t *testing.T) {
			c, _ := egress.Snapshot(test.given.Objects)
			d, _ := egress.DecideHost(egress.HostInput{Host: "w2", Cluster: c, Strict: true})
			if got := slices.Contains(d.Plan.Inside, testenv.Prefix(test.network)); got != test.inside {
				t.Errorf("%s inside: %t\n%v", test.network, got, d.Plan.Inside)
			}
			for _, n := range egress.Networks(c) {
				if n.Source == "some object" && n.Network == testenv.Prefix(test.network) && (n.Inside != test.inside || n.Inside == (n.Why != "")) {
					t.Errorf("reported as inside: %t, %q", n.Inside, n.Why)
				}
			}
		})
	}
}

// A host asks its kernel about the networks that its CNI names, before there is any pod.
//
// Mutants killed: candidates-need-no-route, candidates-are-not-asked.
func TestNetworksAreKnownBeforeTheFirstPod(t *testing.T) {
	const own, ask = "10.9.0.0/24", "10.9.0.254"
	for name, test := range map[string]struct {
		route  egress.PodRoute
		pool   string
		locate []netip.Addr
		want   []netip.Prefix
	}{
		"the kernel leads there":           {route: egress.PodRoute{Network: testenv.Prefix(own)}, locate: testenv.Addrs(ask), want: testenv.Prefixes(own)},
		"the kernel leads out of the host": {route: egress.PodRoute{Network: testenv.Prefix(own), Outward: true}, locate: testenv.Addrs(ask)},
		"the kernel leads more there":      {route: egress.PodRoute{Network: testenv.Prefix("10.9.0.0/20")}, locate: testenv.Addrs(ask)},
		"the kernel leads one there":       {route: egress.PodRoute{Network: testenv.Prefix(ask + "/32")}, locate: testenv.Addrs(ask)},
		"all know it":                      {route: egress.PodRoute{Network: testenv.Prefix(own)}, pool: "10.9.0.0/16"},
	} {
		t.Run(name, func(t *testing.T) {
			g := new(given).namespace("red").host("w0").host("w1").uplink("w0", "192.168.7.10/24").found("w0", network(v1.UseNodePods, own))
			if test.pool != "" {
				g.found("w1", network(v1.UsePods, test.pool))
			}
			c, _ := egress.Snapshot(g.Objects)
			test.route.IP = testenv.Addr(ask)
			d, _ := egress.DecideHost(egress.HostInput{Host: "w0", Cluster: c, PodRoutes: []egress.PodRoute{test.route}, Strict: true})
			if diff := diff(test.locate, d.Locate); diff != "" {
				t.Errorf("to locate (-want +got):\n%s", diff)
			}
			if diff := diff(test.want, d.PodNetworks); diff != "" || d.Outside.IP.IsValid() {
				t.Errorf("published (-want +got), outside %v:\n%s", d.Outside, diff)
			}
			if test.pool == "" && !slices.Equal(d.Plan.Subnets, test.want) {
				t.Errorf("strict covers %v, want %v", d.Plan.Subnets, test.want)
			}
		})
	}
}

// What concerns all is in three HostSubnets, what concerns a node in its own.
func TestWhereFoundNetworksArePublished(t *testing.T) {
	of := func(use, cidr, node string) egress.NamedNetwork {
		return egress.NamedNetwork{FoundNetwork: network(use, cidr), Node: node}
	}
	found := []egress.NamedNetwork{
		of(v1.UseServices, "10.96.0.0/16", ""), of(v1.UsePods, "10.8.0.0/16", ""), of(v1.UsePods, "10.8.0.0/16", ""),
		of(v1.UseNodePods, "10.9.4.0/24", "w4"), of(v1.UseNodePods, "10.9.9.0/24", "unknown"),
	}
	hosts := []string{"w0", "w1", "w2", "w3", "w4"}
	published := egress.PublishFound(hosts, found)
	for host, want := range map[string][]v1.FoundNetwork{
		"w0": {network(v1.UsePods, "10.8.0.0/16"), network(v1.UseServices, "10.96.0.0/16")},
		"w2": {network(v1.UsePods, "10.8.0.0/16"), network(v1.UseServices, "10.96.0.0/16")},
		"w3": nil,
		"w4": {network(v1.UseNodePods, "10.9.4.0/24")},
	} {
		if diff := diff(want, published[host]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", host, diff)
		}
	}
	for i := range 2 * egress.MaxFound {
		found = append(found, of(v1.UseNodePods, fmt.Sprintf("10.9.%d.0/26", i), "w4"))
	}
	many := egress.PublishFound(hosts, found)["w4"]
	if len(many) != egress.MaxFound || many[egress.MaxFound-1].Problem == "" {
		t.Errorf("%d are published of many, the last is %+v", len(many), many[len(many)-1])
	}
	if left := egress.NotFound([]string{"10.9.4.64/26", "10.7.0.0/24", "x"}, published["w4"]); !slices.Equal(left, []string{"10.7.0.0/24", "x"}) {
		t.Errorf("Pods are looked up for %v", left)
	}
}
