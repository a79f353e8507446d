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

// podNetworks are what a host's agent sees and where the API server has Pods of its Node.
func (g *given) podNetworks(name string, seen, listed []string) *given {
	g.edit(name, func(h *v1.HostSubnet) {
		h.Status.Agent.PodNetworks = seen
		h.Status.Placement = &v1.PlacementStatus{PodNetworks: listed, Capacity: 10}
	})
	return g
}

// Mutants killed: one-word-makes-pods, pods-are-anywhere, pods-on-uplinks,
// pods-among-hosts, egress-ips-are-pods.
func TestWhichPodNetworksAreInside(t *testing.T) {
	const network, single = "10.9.1.0/24", "192.168.7.77/32"
	cluster := func() *given {
		return new(given).namespace("red", "192.168.7.200").host("w0").host("w1", "192.168.7.200").
			uplink("w0", "192.168.7.10/24").uplink("w1", "192.168.7.11/24")
	}
	one := []string{network}
	for name, test := range map[string]struct {
		given   *given
		network string
		inside  bool
	}{
		"the agent and the API server say so": {cluster().podNetworks("w0", one, one), network, true},
		"the agent alone":                     {cluster().podNetworks("w0", one, nil), network, false},
		"the API server alone":                {cluster().podNetworks("w0", nil, one), network, false},
		"two hosts, one of them each":         {cluster().podNetworks("w0", one, nil).podNetworks("w1", nil, one), network, false},
		"the networks differ":                 {cluster().podNetworks("w0", []string{"10.9.0.0/23"}, one), "10.9.0.0/23", false},
		"wider than a host has":               {cluster().podNetworks("w0", []string{"10.8.0.0/19"}, []string{"10.8.0.0/19"}), "10.8.0.0/19", false},
		"everything":                          {cluster().podNetworks("w0", []string{"0.0.0.0/0"}, []string{"0.0.0.0/0"}), "0.0.0.0/0", false},
		"on the uplink of a host":             {cluster().podNetworks("w0", []string{"192.168.7.64/26"}, []string{"192.168.7.64/26"}), "192.168.7.64/26", false},
		"around the uplink of a host":         {cluster().podNetworks("w0", []string{"192.168.0.0/20"}, []string{"192.168.0.0/20"}), "192.168.0.0/20", false},
		"one address on the uplink of a host": {cluster().podNetworks("w0", []string{single}, []string{single}), single, true},
		"an egress IP":                        {cluster().podNetworks("w0", []string{"192.168.7.200/32"}, []string{"192.168.7.200/32"}), "192.168.7.200/32", false},
		"of a host without its address":       {cluster().uplink("w0", "192.168.7.99/24").podNetworks("w0", one, one), network, false},
		"of a host whose Node is gone":        {cluster().podNetworks("w0", one, one).gone("w0"), network, false},
		"with host bits":                      {cluster().podNetworks("w0", []string{"10.9.1.7/24"}, one), network, false},
		"of IPv6":                             {cluster().podNetworks("w0", []string{"fd00:9:1::/64"}, []string{"fd00:9:1::/64"}), "fd00:9:1::/64", true},
		"of IPv6, by the agent alone":         {cluster().podNetworks("w0", []string{"fd00:9:1::/64"}, nil), "fd00:9:1::/64", false},
		"of IPv6, wider than a host has":      {cluster().podNetworks("w0", []string{"fd00:9:1::/63"}, []string{"fd00:9:1::/63"}), "fd00:9:1::/63", false},
		"of IPv6, with a host's address": {edited(cluster().podNetworks("w0", []string{"fd00:9:1::/64"}, []string{"fd00:9:1::/64"}), func(h *v1.HostSubnet) {
			h.Status.IPv6Networks = []string{"fd00:9:1::11/128"}
		}), "fd00:9:1::/64", false},
		"of IPv6, link-local": {cluster().podNetworks("w0", []string{"fe80::/64"}, []string{"fe80::/64"}), "fe80::/64", false},
		"beyond the bound":    {cluster().podNetworks("w0", append(manyNetworks(egress.MaxPodNetworks), network), one), network, false},
	} {
		t.Run(name, func(t *testing.T) {
			plan := planFor(t, test.given, "w1")
			if got := slices.Contains(plan.Inside, testenv.Prefix(test.network)); got != test.inside {
				t.Errorf("%s inside: %t\n%v", test.network, got, plan.Inside)
			}
			if slices.Contains(plan.Subnets, testenv.Prefix(test.network)) {
				t.Error("strict covers the pods of another host")
			}
		})
	}
}

func manyNetworks(n int) (list []string) {
	for i := range n {
		list = append(list, fmt.Sprintf("10.7.0.%d/32", i))
	}
	return list
}

// A host takes the networks of its own pods from its own kernel at once, and publishes
// them.
//
// Mutants killed: pods-of-the-outside, any-route-is-of-pods, restart-forgets-pods.
func TestWhereAHostFindsItsPods(t *testing.T) {
	route := func(ip, network string, outward bool) egress.PodRoute {
		return egress.PodRoute{IP: testenv.Addr(ip), Network: testenv.Prefix(network), Outward: outward}
	}
	for name, test := range map[string]struct {
		pods       []egress.Pod
		routes     []egress.PodRoute
		locate     []netip.Addr
		published  []netip.Prefix
		strict     []netip.Prefix
		outside    string
		unknown    bool
		listedToo  bool
		flagsCover bool
	}{
		"a network of all pods": {
			pods:   []egress.Pod{pod("red", "10.9.0.8"), pod("red", "10.9.0.7")},
			routes: []egress.PodRoute{route("10.9.0.7", "10.9.0.0/24", false), route("10.9.0.8", "10.9.0.0/24", false)},
			locate: testenv.Addrs("10.9.0.7", "10.9.0.8"), published: testenv.Prefixes("10.9.0.0/24"), strict: testenv.Prefixes("10.9.0.0/24"), outside: "10.9.0.7",
		},
		"the same, and the API server has Pods there": {
			pods:   []egress.Pod{pod("red", "10.9.0.7")},
			routes: []egress.PodRoute{route("10.9.0.7", "10.9.0.0/24", false)},
			locate: testenv.Addrs("10.9.0.7"), published: testenv.Prefixes("10.9.0.0/24"), strict: testenv.Prefixes("10.9.0.0/24"), listedToo: true,
		},
		"the kernel has not said yet, and had said so before": {
			pods:   []egress.Pod{pod("red", "10.9.0.7")},
			locate: testenv.Addrs("10.9.0.7"), published: testenv.Prefixes("10.9.0.0/24"), strict: testenv.Prefixes("10.9.0.0/24"), listedToo: true,
		},
		"a route for each pod": {
			pods:   []egress.Pod{pod("red", "10.9.0.8"), pod("red", "10.9.0.7")},
			routes: []egress.PodRoute{route("10.9.0.7", "10.9.0.7/32", false), route("10.9.0.8", "10.9.0.8/32", false)},
			locate: testenv.Addrs("10.9.0.7", "10.9.0.8"), published: testenv.Prefixes("10.9.0.7/32", "10.9.0.8/32"), outside: "10.9.0.7", unknown: true,
		},
		"a route to more than a host has": {
			pods: []egress.Pod{pod("red", "10.9.0.7")}, routes: []egress.PodRoute{route("10.9.0.7", "10.0.0.0/8", false)},
			locate: testenv.Addrs("10.9.0.7"), published: testenv.Prefixes("10.9.0.7/32"), outside: "10.9.0.7", unknown: true,
		},
		"a route out of the host": {
			pods: []egress.Pod{pod("red", "203.0.113.9")}, routes: []egress.PodRoute{route("203.0.113.9", "203.0.113.0/24", true)},
			locate: testenv.Addrs("203.0.113.9"), outside: "203.0.113.9", unknown: true,
		},
		"no route yet": {pods: []egress.Pod{pod("red", "10.9.0.7")}, locate: testenv.Addrs("10.9.0.7"), outside: "10.9.0.7", unknown: true},
		"a route of a pod that has gone": {
			routes: []egress.PodRoute{route("10.9.0.7", "10.9.0.0/24", false)}, unknown: true,
		},
		"in a network that flags name": {pods: []egress.Pod{pod("red", "10.9.0.7")}, flagsCover: true, strict: testenv.Prefixes("10.9.0.0/16")},
		"of the host":                  {pods: []egress.Pod{pod("red", "192.168.7.10")}, unknown: true},
		"of IPv6": {
			pods:   []egress.Pod{pod("red", "fd00:9::7")},
			routes: []egress.PodRoute{route("fd00:9::7", "fd00:9::/64", false)},
			locate: testenv.Addrs("fd00:9::7"), published: testenv.Prefixes("fd00:9::/64"), strict: testenv.Prefixes("fd00:9::/64"), outside: "fd00:9::7", unknown: true,
		},
		"a route of IPv6 to more than a host has": {
			pods: []egress.Pod{pod("red", "fd00:9::7")}, routes: []egress.PodRoute{route("fd00:9::7", "fd00:9::/56", false)},
			locate: testenv.Addrs("fd00:9::7"), published: testenv.Prefixes("fd00:9::7/128"), outside: "fd00:9::7", unknown: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := new(given).namespace("red").host("w0").host("w1").uplink("w0", "192.168.7.10/24")
			if test.listedToo {
				g.podNetworks("w0", []string{"10.9.0.0/24"}, []string{"10.9.0.0/24"})
			}
			cluster, _ := egress.Snapshot(g.Objects)
			in := egress.HostInput{Host: "w0", Cluster: cluster, Pods: test.pods, PodRoutes: test.routes, Strict: true}
			if test.flagsCover {
				in.PodNetworks, in.Inside = testenv.Prefixes("10.9.0.0/16"), testenv.Prefixes("10.9.0.0/16")
			}
			d, _ := egress.DecideHost(in)
			if diff := diff(test.locate, d.Locate); diff != "" {
				t.Errorf("to locate (-want +got):\n%s", diff)
			}
			if diff := diff(test.published, d.PodNetworks); diff != "" || d.PodNetworksOmitted != 0 {
				t.Errorf("published (-want +got), %d omitted:\n%s", d.PodNetworksOmitted, diff)
			}
			if diff := diff(test.strict, d.Plan.Subnets); diff != "" || d.PodNetworksUnknown != test.unknown {
				t.Errorf("strict (-want +got), unknown: %t\n%s", d.PodNetworksUnknown, diff)
			}
			for _, network := range test.published {
				if !slices.Contains(d.Plan.Inside, network) {
					t.Errorf("%v is not inside for the host itself: %v", network, d.Plan.Inside)
				}
			}
			if got := d.Outside.IP; got.IsValid() != (test.outside != "") || got.IsValid() && got.String() != test.outside {
				t.Errorf("outside for others: %v, want %q", got, test.outside)
			}
		})
	}
}

func TestAHostPublishesABoundedNumberOfPodNetworks(t *testing.T) {
	g := new(given).namespace("red").host("w0").uplink("w0", "192.168.7.10/24")
	cluster, _ := egress.Snapshot(g.Objects)
	in := egress.HostInput{Host: "w0", Cluster: cluster}
	for i := range egress.MaxPodNetworks + 2 {
		ip := netip.AddrFrom4([4]byte{10, 9, byte(i), 1})
		in.Pods = append(in.Pods, egress.Pod{Namespace: "red", IP: ip})
		in.PodRoutes = append(in.PodRoutes, egress.PodRoute{IP: ip, Network: netip.PrefixFrom(ip, 32)})
	}
	d, _ := egress.DecideHost(in)
	if len(d.PodNetworks) != egress.MaxPodNetworks || d.PodNetworksOmitted != 2 {
		t.Errorf("published %d, omitted %d", len(d.PodNetworks), d.PodNetworksOmitted)
	}
	if last := in.PodRoutes[len(in.PodRoutes)-1].Network; !slices.Contains(d.Plan.Inside, last) {
		t.Errorf("%v is not inside for the host itself", last)
	}
}

// Kills the mutant that forgets a network when its last Pod goes.
func TestListedPodNetworks(t *testing.T) {
	for name, test := range map[string]struct {
		published, before []string
		pods              []netip.Addr
		want              []string
		all               bool
	}{
		"a Pod is there":                 {[]string{"10.9.0.0/24", "10.9.1.0/24"}, nil, testenv.Addrs("10.9.0.7"), []string{"10.9.0.0/24"}, false},
		"one was there":                  {[]string{"10.9.0.0/24"}, []string{"10.9.0.0/24"}, nil, []string{"10.9.0.0/24"}, true},
		"the agent has it no more":       {nil, []string{"10.9.0.0/24"}, testenv.Addrs("10.9.0.7"), []string{}, true},
		"another than that was there":    {[]string{"10.9.0.0/23"}, []string{"10.9.0.0/24"}, nil, []string{}, false},
		"a Pod of IPv6 is there":         {[]string{"fd00:9::/64"}, nil, testenv.Addrs("fd00:9::7"), []string{"fd00:9::/64"}, true},
		"what is too wide is not listed": {[]string{"10.0.0.0/8"}, nil, testenv.Addrs("10.9.0.7"), []string{}, true},
	} {
		t.Run(name, func(t *testing.T) {
			listed, all := egress.ListedPodNetworks(test.published, test.before, test.pods)
			if diff := diff(test.want, listed); diff != "" || all != test.all {
				t.Errorf("listed (-want +got), all: %t\n%s", all, diff)
			}
		})
	}
}

// The networks that the cluster was made with are inside, and strict covers those of pods.
//
// Mutants killed: notes-are-always-right, notes-are-of-any-width.
func TestNetworksThatTheClusterWasMadeWith(t *testing.T) {
	for name, test := range map[string]struct {
		pods, services string
		inside, strict []netip.Prefix
	}{
		"both":                              {"10.244.0.0/16", "10.96.0.0/12", testenv.Prefixes("10.96.0.0/12", "10.244.0.0/16", "169.254.0.0/16"), testenv.Prefixes("10.244.0.0/16")},
		"pods where the hosts are":          {"192.168.0.0/16", "10.96.0.0/12", testenv.Prefixes("10.96.0.0/12", "169.254.0.0/16"), nil},
		"pods on the segment of a host":     {"192.168.7.64/26", "10.96.0.0/12", testenv.Prefixes("10.96.0.0/12", "169.254.0.0/16"), nil},
		"pods where a host with a /32 is":   {"172.16.0.0/16", "10.96.0.0/12", testenv.Prefixes("10.96.0.0/12", "169.254.0.0/16"), nil},
		"services where the hosts are":      {"10.244.0.0/16", "192.168.0.0/16", testenv.Prefixes("10.244.0.0/16", "169.254.0.0/16"), testenv.Prefixes("10.244.0.0/16")},
		"pods in half of the internet":      {"0.0.0.0/1", "10.96.0.0/12", testenv.Prefixes("10.96.0.0/12", "169.254.0.0/16"), nil},
		"pods in a quarter of the internet": {"64.0.0.0/2", "10.96.0.0/12", testenv.Prefixes("10.96.0.0/12", "169.254.0.0/16"), nil},
		"pods in a network with egress IPs": {"10.1.0.0/16", "10.96.0.0/12", testenv.Prefixes("10.1.0.0/16", "10.96.0.0/12", "169.254.0.0/16"), testenv.Prefixes("10.1.0.0/16")},
	} {
		t.Run(name, func(t *testing.T) {
			g := new(given).namespace("red", "10.1.0.7").host("w0").uplink("w0", "192.168.7.10/24").host("w1")
			g.edit("w1", func(h *v1.HostSubnet) { h.HostIP = "172.16.0.9" })
			g.uplink("w1", "172.16.0.9/32")
			cluster, _ := egress.Snapshot(g.Objects)
			d, _ := egress.DecideHost(egress.HostInput{
				Host: "w0", Cluster: cluster, Strict: true,
				ClusterNetworks: egress.ClusterNetworks{Pods: testenv.Prefixes(test.pods), Services: testenv.Prefixes(test.services)},
			})
			if diff := diff(test.inside, d.Plan.Inside); diff != "" {
				t.Errorf("inside (-want +got):\n%s", diff)
			}
			if diff := diff(test.strict, d.Plan.Subnets); diff != "" {
				t.Errorf("strict (-want +got):\n%s", diff)
			}
		})
	}
}
