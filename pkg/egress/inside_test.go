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

// addresses are what a host's agent sees and what its Node lists.
func (g *given) addresses(name string, seen, listed []string) *given {
	g.edit(name, func(h *v1.HostSubnet) {
		h.Status.Agent.Addresses = seen
		h.Status.Placement = &v1.PlacementStatus{NodeAddresses: listed, Capacity: 10}
	})
	return g
}

// Kills the mutants that believe an agent's word alone, a Node's word alone, or a
// network that one host alone is in, and those that take egress IPs for addresses of
// nodes.
//
// The mutants are insideMutants of hack/mutants.
func TestWhichAddressesOfNodesAreInside(t *testing.T) {
	const address = "192.168.7.99"
	segment := func() *given {
		return new(given).namespace("red", "192.168.7.200").host("w0").host("w1", "192.168.7.200").
			uplink("w0", "192.168.7.10/24").uplink("w1", "192.168.7.11/24")
	}
	one := []string{address}
	for name, test := range map[string]struct {
		given  *given
		ip     string
		inside bool
	}{
		"seen on a segment with another host":                  {segment().addresses("w0", one, nil), address, true},
		"seen on a segment with another host, and its network": {segment().uplink("w1", "192.168.7.11/25").addresses("w0", one, nil), address, false},
		"seen on a segment that no other host is on":           {segment().uplink("w1", "192.168.7.11/32").addresses("w0", one, nil), address, false},
		"seen, on a network that would be half of the internet": {
			segment().uplink("w0", "192.168.7.10/1").addresses("w0", []string{"203.0.113.9"}, nil), "203.0.113.9", false,
		},
		"seen elsewhere, and not listed":      {segment().addresses("w0", []string{"203.0.113.9"}, []string{"203.0.113.8"}), "203.0.113.9", false},
		"listed, and not seen":                {segment().addresses("w0", nil, []string{"203.0.113.9"}), "203.0.113.9", false},
		"listed, and seen by another host":    {segment().addresses("w0", nil, []string{"203.0.113.9"}).addresses("w1", []string{"203.0.113.9"}, nil), "203.0.113.9", false},
		"listed and seen":                     {segment().addresses("w0", []string{"203.0.113.9"}, []string{"203.0.113.9"}), "203.0.113.9", true},
		"a requested egress IP":               {segment().addresses("w0", []string{"192.168.7.200"}, []string{"192.168.7.200"}), "192.168.7.200", false},
		"seen by a host without its address":  {segment().uplink("w0", "192.168.7.77/24").addresses("w0", one, one), address, false},
		"seen by a host whose Node is gone":   {segment().addresses("w0", one, one).gone("w0"), address, false},
		"on the network that a cloud reports": {cloudNetwork(segment().addresses("w0", one, nil), "w0"), address, false},
		"beyond the bound":                    {segment().addresses("w0", append(many(egress.MaxAddresses), address), nil), address, false},
		"no address":                          {segment().addresses("w0", []string{"nonsense", "fd00::1", "0.0.0.1", "127.0.0.1"}, nil), "127.0.0.1", false},
	} {
		t.Run(name, func(t *testing.T) {
			plan := planFor(t, test.given, "w1")
			got := slices.Contains(plan.Inside, netip.PrefixFrom(testenv.Addr(test.ip), 32))
			if got != test.inside {
				t.Errorf("%s inside: %t\n%v", test.ip, got, plan.Inside)
			}
			if slices.Contains(plan.Hosts, testenv.Addr(test.ip)) {
				t.Error("the overlay would take packets from it")
			}
		})
	}
}

// The API server may be on machines that are no nodes. Its word is that of the control
// plane, but an egress IP stays one until the controller has published that it cannot be one.
//
// Kills the mutant that leaves API servers outside.
func TestAPIServersAreInside(t *testing.T) {
	g := new(given).namespace("red", "192.168.7.200").host("w0", "192.168.7.200")
	cluster, _ := egress.Snapshot(g.Objects)
	d, _ := egress.DecideHost(egress.HostInput{
		Host: "w0", Cluster: cluster, APIServers: testenv.Addrs("172.30.9.1", "192.168.7.200", "127.0.0.1", "172.30.9.1"),
	})
	if d := diff(testenv.Prefixes("169.254.0.0/16", "172.30.9.1/32"), d.Plan.Inside); d != "" {
		t.Errorf("inside (-want +got):\n%s", d)
	}
}

// With Calico's IPAM, a Node has a podCIDR and its pods have addresses elsewhere.
//
// Kills the mutant by which strict covers the podCIDR alone.
func TestStrictCoversWherePodsAre(t *testing.T) {
	g := new(given).namespace("red").host("w0").host("w1")
	g.edit("w0", func(h *v1.HostSubnet) { h.Subnet = "10.244.1.0/24" })
	cluster, _ := egress.Snapshot(g.Objects)
	for name, test := range map[string]struct {
		pods  []egress.Pod
		want  []string
		stray string
	}{
		"in the podCIDR":            {[]egress.Pod{pod("red", "10.244.1.5")}, []string{"10.244.1.0/24"}, ""},
		"in a pool of the cluster":  {[]egress.Pod{pod("red", "10.244.133.70"), pod("red", "10.244.133.71")}, []string{"10.244.0.0/16", "10.244.1.0/24"}, ""},
		"in a network nobody knows": {[]egress.Pod{pod("red", "10.9.0.8"), pod("red", "10.9.0.7")}, []string{"10.244.1.0/24"}, "10.9.0.7"},
		"a host's, or not IPv4":     {[]egress.Pod{pod("red", "192.168.7.11"), pod("red", "fd00::1")}, []string{"10.244.1.0/24"}, ""},
		"of the runtime, in a pool": {[]egress.Pod{{Namespace: "red", IP: testenv.Addr("10.244.9.1"), RuntimeOnly: true}}, []string{"10.244.0.0/16", "10.244.1.0/24"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			d, _ := egress.DecideHost(egress.HostInput{
				Host: "w0", Cluster: cluster, Pods: test.pods, PodNetworks: testenv.Prefixes("10.244.0.0/16", "10.245.0.0/16"), Strict: true,
			})
			if diff := diff(testenv.Prefixes(test.want...), d.Plan.Subnets); diff != "" {
				t.Errorf("covered (-want +got):\n%s", diff)
			}
			if got := d.Stray.IP; got.IsValid() != (test.stray != "") || got.IsValid() && got.String() != test.stray {
				t.Errorf("stray: %v", got)
			}
		})
	}
}

func many(n int) (list []string) {
	for i := range n {
		list = append(list, fmt.Sprintf("192.168.7.%d", 100+i))
	}
	return list
}

func cloudNetwork(g *given, name string) *given {
	g.Networks = map[string][]netip.Prefix{name: testenv.Prefixes("192.168.7.0/24")}
	return g
}

// What is requested as an egress IP is published if the host has it by other means: none of
// the operator's own is among what the kernel has. It is inside for nobody.
//
// Kills the mutant further-unpublished.
func TestWhatAHostPublishesOfItsAddresses(t *testing.T) {
	g := new(given).namespace("red", "192.168.7.200").host("w0", "192.168.7.200", "192.168.7.201").uplink("w0", "192.168.7.10/24")
	g.edit("w0", func(h *v1.HostSubnet) { h.Subnet = "10.244.0.0/24" })
	cluster, _ := egress.Snapshot(g.Objects)
	decide := func(kernel ...string) egress.HostDecision {
		d, _ := egress.DecideHost(egress.HostInput{
			Host: "w0", Cluster: cluster, Addresses: testenv.Addrs(kernel...), Inside: testenv.Prefixes("10.96.0.0/16"),
		})
		return d
	}
	d := decide("192.168.7.10", "192.168.7.99", "192.168.7.200", "192.168.7.201", "10.244.0.1", "10.96.0.10", "172.17.0.1", "169.254.20.10")
	if diff := diff(testenv.Addrs("172.17.0.1", "192.168.7.99", "192.168.7.200", "192.168.7.201"), d.Addresses); diff != "" || d.AddressesOmitted != 0 {
		t.Errorf("published (-want +got), %d omitted:\n%s", d.AddressesOmitted, diff)
	}
	var all []string
	for i := range egress.MaxAddresses {
		all = append(all, fmt.Sprintf("10.1.1.%d", i+1))
	}
	d = decide(append(all, "192.168.7.99")...)
	if len(d.Addresses) != egress.MaxAddresses || d.AddressesOmitted != 1 || !slices.Contains(d.Addresses, testenv.Addr("192.168.7.99")) {
		t.Errorf("%d omitted of %v", d.AddressesOmitted, d.Addresses)
	}
}

// BenchmarkPlanForNodeAddresses is one agent's plan in a cluster of 1,000 nodes that each
// have some addresses besides their hostIP.
func BenchmarkPlanForNodeAddresses(b *testing.B) {
	for _, each := range []int{1, 4, egress.MaxAddresses} {
		b.Run(fmt.Sprint(each), func(b *testing.B) {
			var c egress.Cluster
			for h := range 1000 {
				high, low := byte(h>>8), byte(h)
				host := egress.Host{
					Name: fmt.Sprintf("host-%04d", h), IP: netip.AddrFrom4([4]byte{192, 168, high, low}), Networks: []netip.Prefix{netip.MustParsePrefix("192.168.0.0/16")},
					Online: true, Confirmed: true, AgentReady: true,
					Subnets: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, high, low, 0}), 24)},
				}
				for a := range each {
					host.Addresses = append(host.Addresses, netip.AddrFrom4([4]byte{172, byte(16 + a), high, low}))
				}
				host.Listed = host.Addresses
				c.Hosts = append(c.Hosts, host)
			}
			r := egress.Resolve(c)
			for b.Loop() {
				egress.PlanFor(c, r, "host-0000", nil, nil)
			}
		})
	}
}
