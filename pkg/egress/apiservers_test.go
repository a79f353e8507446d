package egress_test

import (
	"strings"
	"testing"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// TestAPIServersAreNoEgressIPs: the address of an API server is refused by name, whether it is
// claimed, requested or in a range, whatever else is known of it; and no pod loses the API
// server by such a request.
//
// Kills the mutants api-server-is-an-egress-ip, api-servers-give-way-to-hosts,
// former-api-servers-hide-others and refused-api-servers-are-outside.
func TestAPIServersAreNoEgressIPs(t *testing.T) {
	const (
		ip     = "192.168.7.200"
		ipv6   = "fd00:7::200"
		source = "EndpointSlice default/kubernetes"
		of     = ip + " is the address of an API server (" + source + ")"
	)
	server := func(cidr string) v1.FoundNetwork {
		return v1.FoundNetwork{CIDR: cidr, Source: source, Use: v1.UseAPIServers}
	}
	broken, former, unknown := server(ip+"/32"), server(ip+"/32"), server(ip+"/32")
	broken.Problem, former.Source, unknown.Use = "it is not there", source+", a while ago", "Gateways"
	cluster := func(found ...v1.FoundNetwork) *given {
		return new(given).namespace("red", ip).automatic("w0", "192.168.7.192/26").host("w1", ip).host("w2").
			uplink("w0", "192.168.7.10/24").uplink("w1", "192.168.7.11/24").uplink("w2", "192.168.7.12/24").found("w1", found...)
	}
	for name, c := range map[string]struct {
		given  *given
		reason egress.Reason
		says   string
	}{
		"another machine":                     {cluster(server("192.168.7.201/32")), egress.ReasonAssigned, ""},
		"a machine that is no node":           {cluster(server(ip + "/32")), egress.ReasonAPIServerAddress, of},
		"nobody claims it":                    {cluster(server(ip + "/32")).claims("w1"), egress.ReasonAPIServerAddress, of},
		"it works":                            {cluster(server(ip+"/32")).reports("w1", ip, ""), egress.ReasonAPIServerAddress, of},
		"a node whose agent runs":             {cluster(server(ip+"/32")).hostIP("w2", ip), egress.ReasonHostAddress, "host w2"},
		"a node whose agent does not run":     {cluster(server(ip+"/32")).claimsAsHostIP("w2", ip), egress.ReasonAPIServerAddress, of},
		"what a Node says, and nobody else":   {cluster().claimsAsHostIP("w2", ip), egress.ReasonAssigned, ""},
		"what a Node lists, and nobody else":  {cluster().addresses("w2", nil, []string{ip}), egress.ReasonAssigned, ""},
		"IPv6":                                {cluster(server(ipv6+"/128")).namespace("blue", ipv6).claims("w1", ip, ipv6).ipv6(), egress.ReasonAPIServerAddress, ipv6 + " is the address of an API server"},
		"one that was there":                  {cluster(former), egress.ReasonAPIServerAddress, "was the address of an API server a while ago"},
		"one that was there, and is again":    {cluster(server(ip+"/32")).found("w2", former), egress.ReasonAPIServerAddress, of},
		"one that was there, on other hosts":  {cluster(server(ip+"/32")).found("w0", former), egress.ReasonAPIServerAddress, of},
		"endpoints that do not count":         {cluster(broken), egress.ReasonAssigned, ""},
		"a network, and not an address":       {cluster(server("192.168.7.0/24")), egress.ReasonAssigned, ""},
		"what only a later version publishes": {cluster(unknown), egress.ReasonAssigned, ""},
	} {
		t.Run(name, func(t *testing.T) {
			cluster, _ := egress.Snapshot(c.given.Objects)
			for what, view := range map[string]egress.Cluster{"cluster": cluster, "for routing": cluster.ForRouting()} {
				result := egress.Resolve(view).Groups[0] // blue, if it is there
				if got := result.Requests[0]; got.Reason != c.reason || !strings.Contains(got.Message, c.says) || result.Dropped != (c.reason != egress.ReasonAssigned) {
					t.Errorf("%s: dropped %t, %+v; want %s with %q", what, result.Dropped, got, c.reason, c.says)
				}
			}
			for _, host := range egress.Allocate(cluster).Hosts {
				if c.reason != egress.ReasonAssigned && len(host.Claims) > 0 {
					t.Errorf("host %s is given %v", host.Host, host.Claims)
				}
			}
			d, _ := egress.DecideHost(egress.HostInput{Host: "w0", Cluster: cluster, APIServers: testenv.Addrs(ip)})
			inside := false
			for _, p := range d.Plan.Inside {
				inside = inside || p.Contains(testenv.Addr(ip))
			}
			if want := c.reason == egress.ReasonAPIServerAddress && name != "IPv6"; inside != want && c.reason != egress.ReasonHostAddress {
				t.Errorf("pods reach %s as what is inside: %t", ip, inside)
			}
		})
	}
}

// TestFormerAPIServersAreKept: an API server that is down is not among the endpoints, and does
// not answer ARP. Its address is no egress IP for as long as somebody lists it as one.
//
// Kills the mutants api-servers-go-with-the-endpoint and api-servers-stay.
func TestFormerAPIServersAreKept(t *testing.T) {
	const ip, kept = "192.168.7.200", "APIServers 192.168.7.200/32 by EndpointSlice default/kubernetes, a while ago"
	published := func(use string) *given {
		return new(given).namespace("red").host("w0").host("w1").found("w1",
			v1.FoundNetwork{CIDR: ip + "/32", Source: "EndpointSlice default/kubernetes", Use: use},
			v1.FoundNetwork{CIDR: "x", Source: "EndpointSlice default/kubernetes", Use: use, Problem: "it is not a network"})
	}
	requested := func(g *given) *given { g.NetNamespaces[0].EgressIPs = []string{"x", ip}; return g }
	one := func(use, cidr string) []egress.NamedNetwork {
		return []egress.NamedNetwork{{FoundNetwork: network(use, cidr)}}
	}
	for name, test := range map[string]struct {
		given *given
		found []egress.NamedNetwork
		want  string
	}{
		"nobody lists it":               {published(v1.UseAPIServers), nil, ""},
		"requested":                     {requested(published(v1.UseAPIServers)), nil, kept},
		"claimed":                       {published(v1.UseAPIServers).claims("w0", ip+"/24"), nil, kept},
		"another API server is there":   {requested(published(v1.UseAPIServers)), one(v1.UseAPIServers, "192.168.7.201/32"), kept},
		"a Service has it":              {requested(published(v1.UseAPIServers)), one(v1.UseServices, ip+"/32"), kept},
		"it is there":                   {requested(published(v1.UseAPIServers)), one(v1.UseAPIServers, ip+"/32"), ""},
		"it was there before that":      {requested(published(v1.UseAPIServers)).found("w0", v1.FoundNetwork{CIDR: ip + "/32", Source: "EndpointSlice default/kubernetes, a while ago", Use: v1.UseAPIServers}), nil, kept},
		"the address of a Service went": {requested(published(v1.UseServices)), nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var requests []string
			for i := range test.given.NetNamespaces {
				requests = append(requests, test.given.NetNamespaces[i].EgressIPs...)
			}
			var hosts []*v1.HostSubnet
			for i := range test.given.HostSubnets {
				hosts = append(hosts, &test.given.HostSubnets[i])
			}
			if got := shown(egress.FormerAPIServers(requests, hosts, test.found)); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}
