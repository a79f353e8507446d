package agent

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/internal/testenv/objects"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/warning"
)

func hostSubnet(name, ip, subnet string, egressIPs ...string) v1.HostSubnet {
	h := objects.ReportedHostSubnet(name, ip, egressIPs...)
	h.Generation, h.Subnet = 4, subnet
	return h
}

// given is a cluster of two nodes: shop's egress IP is on node1, where one of
// its pods runs beside a pod of free, that requests nothing.
func given() input {
	return input{
		node:          "node1",
		netNamespaces: []v1.NetNamespace{objects.NetNamespace("free", 16), objects.NetNamespace("shop", 17, "10.1.8.200")},
		hostSubnets: []v1.HostSubnet{
			hostSubnet("node1", "10.1.8.11", "10.244.1.0/24", "10.1.8.200"),
			hostSubnet("node2", "10.1.8.12", "10.244.2.0/24"),
		},
		pods: localPods([]corev1.Pod{
			pod("cart", "10.244.1.5"),
			pod("other", "10.244.1.6", func(p *corev1.Pod) { p.Namespace = "free" }),
		}, nil),
		apiServers:   []discoveryv1.EndpointSlice{{Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"172.30.9.1", "fd00::1"}}}}},
		serviceCIDRs: []networkingv1.ServiceCIDR{{Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{"10.96.0.0/16", "fd00:1::/112"}}}},
		inside:       testenv.Prefixes("10.128.0.0/14"),
	}
}

func TestDecide(t *testing.T) {
	t.Parallel()
	// want is the state that given comes to.
	want := func(change func(*dataplane.State)) dataplane.State {
		s := dataplane.State{
			HostIP:  testenv.Addr("10.1.8.11"),
			Hosts:   testenv.Addrs("10.1.8.11", "10.1.8.12"),
			Inside:  testenv.Prefixes("10.96.0.0/16", "10.128.0.0/14", "10.244.1.0/24", "10.244.2.0/24", "169.254.0.0/16", "172.30.9.1/32", "fd00::1/128", "fd00:1::/112"),
			Subnets: testenv.Prefixes("10.244.1.0/24"),
			Hosted:  []dataplane.Hosted{{IP: testenv.Addr("10.1.8.200"), NetID: 17}},
			Pods: []dataplane.Pod{
				{IP: testenv.Addr("10.244.1.5"), Kind: dataplane.Local, NetID: 17, EgressIP: testenv.Addr("10.1.8.200")},
				{IP: testenv.Addr("10.244.1.6"), Kind: dataplane.Node},
			},
		}
		if change != nil {
			change(&s)
		}
		return s
	}
	for name, c := range map[string]struct {
		change func(*input)
		want   func(*dataplane.State)
	}{
		"as given": {func(*input) {}, nil},
		"the other node claims it": {
			func(in *input) {
				in.hostSubnets[0].EgressIPs, in.hostSubnets[1].EgressIPs = nil, []string{"10.1.8.200"}
			},
			func(s *dataplane.State) {
				s.Hosted = nil
				s.Pods[0] = dataplane.Pod{IP: testenv.Addr("10.244.1.5"), Kind: dataplane.Remote, NetID: 17, Via: testenv.Addrs("10.1.8.12"), Sources: testenv.Addrs("10.1.8.200")}
			},
		},
		"nobody claims it": {
			func(in *input) { in.hostSubnets[0].EgressIPs = nil },
			func(s *dataplane.State) {
				s.Hosted = nil
				s.Pods[0] = dataplane.Pod{IP: testenv.Addr("10.244.1.5"), Kind: dataplane.Drop}
			},
		},
		"the claim is outside the network that the kernel reported": {
			func(in *input) { in.uplink = netip.MustParsePrefix("10.1.8.11/28") },
			func(s *dataplane.State) {
				s.Hosted = nil
				s.Pods[0] = dataplane.Pod{IP: testenv.Addr("10.244.1.5"), Kind: dataplane.Drop}
			},
		},
		"the kernel reported a /32, which tells nothing": {
			func(in *input) { in.uplink = netip.MustParsePrefix("10.1.8.11/32") }, nil,
		},
		"the kernel's report is of an address that the node had before": {
			func(in *input) { in.uplink = netip.MustParsePrefix("172.16.0.1/28") }, nil,
		},
		// A node that nobody knows hosts nothing, but must not leak either.
		"the HostSubnet is missing": {
			func(in *input) { in.hostSubnets = in.hostSubnets[1:] },
			func(s *dataplane.State) {
				s.Inside = testenv.Prefixes("10.96.0.0/16", "10.128.0.0/14", "10.244.2.0/24", "169.254.0.0/16", "172.30.9.1/32", "fd00::1/128", "fd00:1::/112")
				s.Subnets, s.Hosted, s.Locate = nil, nil, testenv.Addrs("10.244.1.5", "10.244.1.6")
				s.Pods[0] = dataplane.Pod{IP: testenv.Addr("10.244.1.5"), Kind: dataplane.Drop}
			},
		},
		"the HostSubnet is missing, the egress IP is elsewhere": {
			func(in *input) {
				in.hostSubnets = in.hostSubnets[1:]
				in.hostSubnets[0].EgressIPs = []string{"10.1.8.200"}
			},
			func(s *dataplane.State) {
				s.Inside = testenv.Prefixes("10.96.0.0/16", "10.128.0.0/14", "10.244.2.0/24", "169.254.0.0/16", "172.30.9.1/32", "fd00::1/128", "fd00:1::/112")
				s.Subnets, s.Hosted, s.Locate = nil, nil, testenv.Addrs("10.244.1.5", "10.244.1.6")
				s.Pods[0] = dataplane.Pod{IP: testenv.Addr("10.244.1.5"), Kind: dataplane.Remote, NetID: 17, Via: testenv.Addrs("10.1.8.12"), Sources: testenv.Addrs("10.1.8.200")}
			},
		},
		"the HostSubnet has no usable hostIP": {
			func(in *input) { in.hostSubnets[0].HostIP = "none" },
			func(s *dataplane.State) {
				s.Hosted = nil
				s.Pods[0] = dataplane.Pod{IP: testenv.Addr("10.244.1.5"), Kind: dataplane.Drop}
			},
		},
		"the HostSubnet is missing, and no pod tells the address that was known before": {
			func(in *input) {
				in.hostSubnets, in.pods, in.hostIP = in.hostSubnets[1:], nil, testenv.Addr("10.1.8.11")
			},
			func(s *dataplane.State) {
				s.Inside = testenv.Prefixes("10.96.0.0/16", "10.128.0.0/14", "10.244.2.0/24", "169.254.0.0/16", "172.30.9.1/32", "fd00::1/128", "fd00:1::/112")
				s.Subnets, s.Hosted, s.Pods = nil, nil, nil
			},
		},
		"the Node has no podCIDR: any pod of the cluster may be its own": {
			func(in *input) {
				in.hostSubnets[0].Subnet, in.podNetworks = "", testenv.Prefixes("10.244.0.0/16")
			},
			func(s *dataplane.State) {
				s.Inside = testenv.Prefixes("10.96.0.0/16", "10.128.0.0/14", "10.244.2.0/24", "169.254.0.0/16", "172.30.9.1/32", "fd00::1/128", "fd00:1::/112")
				s.Subnets = testenv.Prefixes("10.244.0.0/16")
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in := given()
			c.change(&in)
			d, ok := decide(in)
			if !ok {
				t.Fatal("decide knew no answer")
			}
			if diff := diffState(want(c.want), d.state); diff != "" {
				t.Errorf("state (-want +got):\n%s", diff)
			}
		})
	}
}

// TestIPv6WithoutNetworksWarns: pods that must not leave by IPv6 need to know where the
// cluster is. Mutant killed: stray-ipv6-is-not-told.
func TestIPv6WithoutNetworksWarns(t *testing.T) {
	t.Parallel()
	in := given()
	in.strict = true
	in.pods = localPods([]corev1.Pod{pod("cart", "10.244.1.5", func(p *corev1.Pod) {
		p.Status.PodIPs = []corev1.PodIP{{IP: "10.244.1.5"}, {IP: "fd00:244:1::5"}}
	})}, nil)
	if d, _ := decide(in); len(d.warnings) != 1 || d.warnings[0].Reason != warning.IPv6NetworksUnknown || !strings.Contains(d.warnings[0].Problem, "fd00:244:1::5") {
		t.Errorf("warnings %q", d.warnings)
	}
	in.hostSubnets[0].Status.IPv6Networks = []string{"fd00:244:1::/64"}
	d, _ := decide(in)
	if len(d.warnings) > 0 {
		t.Errorf("with the Node's network: warnings %q", d.warnings)
	}
	if locked := (dataplane.Pod{IP: testenv.Addr("fd00:244:1::5"), Kind: dataplane.Refuse}); !slices.ContainsFunc(d.state.Pods, func(p dataplane.Pod) bool { return equalPods(p, locked) }) ||
		!slices.Contains(d.state.Subnets, netip.MustParsePrefix("fd00:244:1::/64")) {
		t.Errorf("state %+v", d.state)
	}
	// What the cluster's networks are of one family says nothing of the other.
	in.hostSubnets[0].Status.IPv6Networks, in.podNetworks = nil, testenv.Prefixes("10.244.0.0/16", "fd00:244::/48")
	if d, _ = decide(in); !slices.Equal(d.state.Subnets, testenv.Prefixes("10.244.1.0/24", "fd00:244::/48")) {
		t.Errorf("strict are %v", d.state.Subnets)
	}
}

// TestDecideIPv6: the egress IPs of IPv6 reach the kernel as those of IPv4 do, each family with
// hosts of its own, and all that is inside of IPv6 with them.
func TestDecideIPv6(t *testing.T) {
	t.Parallel()
	in := given()
	both := func(p *corev1.Pod) { p.Status.PodIPs = []corev1.PodIP{{IP: "10.244.1.5"}, {IP: "fd00:244:1::5"}} }
	in.pods = localPods([]corev1.Pod{pod("cart", "10.244.1.5", both)}, nil)
	in.netNamespaces[1].EgressIPs = []string{"10.1.8.200", "2001:db8:8::200"}
	for i := range in.hostSubnets {
		h := &in.hostSubnets[i]
		h.Status.IPv6Networks = []string{fmt.Sprintf("fd00:244:%d::/64", i+1), fmt.Sprintf("2001:db8:8::1%d/128", i+1)}
		h.Status.Agent.UplinkNetworks = []string{"2001:db8:8::/64"}
		h.Status.Agent.Families = []string{v1.FamilyIPv4, v1.FamilyIPv6}
	}
	in.hostSubnets[1].EgressIPs = []string{"2001:DB8:8:0::200"}
	pod6 := func(d decision) dataplane.Pod { return d.state.Pods[len(d.state.Pods)-1] }
	remote := dataplane.Pod{
		IP: testenv.Addr("fd00:244:1::5"), Kind: dataplane.Remote, NetID: 17,
		Via: testenv.Addrs("10.1.8.12"), Sources: testenv.Addrs("2001:db8:8::200"),
	}
	d, _ := decide(in)
	if got := pod6(d); !equalPods(got, remote) || len(d.state.Hosted) != 1 {
		t.Errorf("by the other host: %+v, hosted %v", got, d.state.Hosted)
	}
	if want := testenv.Prefixes("fd00:244:1::/64", "fd00:244:2::/64", "2001:db8:8::11/128", "2001:db8:8::12/128"); slices.ContainsFunc(want, func(p netip.Prefix) bool {
		return !slices.Contains(d.state.Inside, p)
	}) {
		t.Errorf("inside are %v, want %v too", d.state.Inside, want)
	}
	in.hostSubnets[0].EgressIPs, in.hostSubnets[1].EgressIPs = append(in.hostSubnets[0].EgressIPs, "2001:db8:8::200"), nil
	local := dataplane.Pod{IP: remote.IP, Kind: dataplane.Local, NetID: 17, EgressIP: testenv.Addr("2001:db8:8::200")}
	d, _ = decide(in)
	if got := pod6(d); !equalPods(got, local) || !slices.Contains(d.state.Hosted, dataplane.Hosted{IP: local.EgressIP, NetID: 17}) {
		t.Errorf("by this host: %+v, hosted %v", got, d.state.Hosted)
	}
	in.hostSubnets[0].Status.Agent.Families = nil
	if d, _ = decide(in); pod6(d).Kind != dataplane.Drop || len(d.state.Hosted) != 1 {
		t.Errorf("by a host that does not serve IPv6: %+v, hosted %v", pod6(d), d.state.Hosted)
	}
}

// TestDecideWithoutAnAddress: before anything tells the node's address, nothing
// can be told to the kernel.
func TestDecideWithoutAnAddress(t *testing.T) {
	t.Parallel()
	in := given()
	in.hostSubnets, in.pods = nil, nil
	if d, ok := decide(in); ok {
		t.Errorf("decided %+v", d)
	}
}
