package egress_test

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// hostInput is a cluster of two hosts as a sees it: shop's egress IP is on a, and
// free requests none.
func hostInput() egress.HostInput {
	host := func(name, ip, subnet string, claims ...netip.Addr) egress.Host {
		return egress.Host{Name: name, IP: testenv.Addr(ip), Subnets: []netip.Prefix{testenv.Prefix(subnet)}, Claims: claims, Online: true, Confirmed: true, AgentReady: true}
	}
	return egress.HostInput{
		Host: "a",
		Cluster: egress.Cluster{
			Groups: []egress.Group{{Name: "free", NetID: 16}, {Name: "shop", NetID: 17, Requests: []netip.Addr{testenv.Addr("192.0.2.100")}}},
			Hosts: []egress.Host{
				host("a", "192.0.2.1", "10.244.1.0/24", testenv.Addr("192.0.2.100")),
				host("b", "192.0.2.2", "10.244.2.0/24"),
			},
		},
		Pods:        []egress.Pod{pod("shop", "10.244.1.5"), pod("free", "10.244.1.6"), pod("new", "10.244.1.7")},
		Managed:     map[string]bool{"free": true, "shop": true},
		PodNetworks: []netip.Prefix{testenv.Prefix("10.244.0.0/16")},
	}
}

// Mutants killed: withdrawn-keeps-its-egress-ips, runtime-only-is-unmanaged,
// strict-drops-the-unmanaged, no-pod-networks, missing-host-is-unknown,
// uplink-of-another-address.
func TestDecideHost(t *testing.T) {
	t.Parallel()
	local, remote, node, drop := egress.PathLocal, egress.PathRemote, egress.PathNode, egress.PathDrop
	type paths map[string]egress.PathKind
	for name, c := range map[string]struct {
		change  func(*egress.HostInput)
		hostIP  string
		hosted  []netip.Addr
		subnets []netip.Prefix
		paths   paths
		missing bool // NoHostSubnet
		warn    bool // PodNetworksUnknown
	}{
		"as given": {
			func(*egress.HostInput) {}, "192.0.2.1",
			[]netip.Addr{testenv.Addr("192.0.2.100")},
			[]netip.Prefix{testenv.Prefix("10.244.1.0/24")},
			paths{"10.244.1.5": local, "10.244.1.6": node},
			false, false,
		},
		"strict: a namespace without NetNamespace leaves with the node's address": {
			func(in *egress.HostInput) { in.Strict = true }, "192.0.2.1",
			[]netip.Addr{testenv.Addr("192.0.2.100")},
			[]netip.Prefix{testenv.Prefix("10.244.1.0/24")},
			paths{"10.244.1.5": local, "10.244.1.6": node, "10.244.1.7": node},
			false, false,
		},
		"strict: the namespace's NetNamespace is unusable": {
			func(in *egress.HostInput) { in.Strict, in.Managed["new"] = true, true }, "192.0.2.1",
			[]netip.Addr{testenv.Addr("192.0.2.100")},
			[]netip.Prefix{testenv.Prefix("10.244.1.0/24")},
			paths{"10.244.1.5": local, "10.244.1.6": node},
			false, false,
		},
		"strict: only the runtime has the pod": {
			func(in *egress.HostInput) { in.Strict, in.Pods[2].RuntimeOnly = true, true }, "192.0.2.1",
			[]netip.Addr{testenv.Addr("192.0.2.100")},
			[]netip.Prefix{testenv.Prefix("10.244.1.0/24")},
			paths{"10.244.1.5": local, "10.244.1.6": node},
			false, false,
		},
		"withdrawn, with no other host": {
			func(in *egress.HostInput) { in.Reach.Withdrawn = true }, "192.0.2.1",
			nil,
			[]netip.Prefix{testenv.Prefix("10.244.1.0/24")},
			paths{"10.244.1.5": drop, "10.244.1.6": node},
			false, false,
		},
		"withdrawn, with another host": {
			func(in *egress.HostInput) {
				in.Reach.Withdrawn = true
				in.Cluster.Groups[1].Requests = append(in.Cluster.Groups[1].Requests, testenv.Addr("192.0.2.101"))
				in.Cluster.Hosts[1].Claims = []netip.Addr{testenv.Addr("192.0.2.101")}
			}, "192.0.2.1",
			nil,
			[]netip.Prefix{testenv.Prefix("10.244.1.0/24")},
			paths{"10.244.1.5": remote, "10.244.1.6": node},
			false, false,
		},
		"the Node has no pod CIDR": {
			func(in *egress.HostInput) { in.Strict, in.Cluster.Hosts[0].Subnets = true, nil }, "192.0.2.1",
			[]netip.Addr{testenv.Addr("192.0.2.100")},
			[]netip.Prefix{testenv.Prefix("10.244.0.0/16")},
			paths{"10.244.1.5": local, "10.244.1.6": node, "10.244.1.7": node},
			false, false,
		},
		"nothing but a flag says which addresses are pods', and there is none yet": {
			func(in *egress.HostInput) { in.Strict, in.Cluster.Hosts[0].Subnets, in.Pods = true, nil, nil }, "192.0.2.1",
			[]netip.Addr{testenv.Addr("192.0.2.100")},
			[]netip.Prefix{testenv.Prefix("10.244.0.0/16")},
			paths{},
			false, false,
		},
		"nothing says which addresses are pods'": {
			func(in *egress.HostInput) { in.Strict, in.Cluster.Hosts[0].Subnets, in.PodNetworks = true, nil, nil }, "192.0.2.1",
			[]netip.Addr{testenv.Addr("192.0.2.100")},
			nil,
			paths{"10.244.1.5": local, "10.244.1.6": node, "10.244.1.7": node},
			false, true,
		},
		"nothing says so, but it is not asked for": {
			func(in *egress.HostInput) { in.Cluster.Hosts[0].Subnets, in.PodNetworks = nil, nil }, "192.0.2.1",
			[]netip.Addr{testenv.Addr("192.0.2.100")},
			nil,
			paths{"10.244.1.5": local, "10.244.1.6": node},
			false, false,
		},
		"the HostSubnet is missing": {
			func(in *egress.HostInput) {
				in.HostIP, in.Cluster.Hosts = testenv.Addr("192.0.2.9"), in.Cluster.Hosts[1:]
			}, "192.0.2.9",
			nil,
			[]netip.Prefix{testenv.Prefix("10.244.0.0/16")},
			paths{"10.244.1.5": drop, "10.244.1.6": node},
			true, false,
		},
		"the HostSubnet has no usable hostIP": {
			func(in *egress.HostInput) {
				in.HostIP, in.Cluster.Hosts[0].IP = testenv.Addr("192.0.2.9"), netip.Addr{}
			}, "192.0.2.9",
			nil,
			[]netip.Prefix{testenv.Prefix("10.244.1.0/24")},
			paths{"10.244.1.5": drop, "10.244.1.6": node},
			false, false,
		},
		"the address known otherwise does not replace that of the HostSubnet": {
			func(in *egress.HostInput) { in.HostIP = testenv.Addr("192.0.2.9") }, "192.0.2.1",
			[]netip.Addr{testenv.Addr("192.0.2.100")},
			[]netip.Prefix{testenv.Prefix("10.244.1.0/24")},
			paths{"10.244.1.5": local, "10.244.1.6": node},
			false, false,
		},
		"the claim is outside the uplink's network": {
			func(in *egress.HostInput) { in.Uplink = testenv.Prefix("192.0.2.1/28") }, "192.0.2.1",
			nil,
			[]netip.Prefix{testenv.Prefix("10.244.1.0/24")},
			paths{"10.244.1.5": drop, "10.244.1.6": node},
			false, false,
		},
		"an uplink with a /32 says nothing of its network": {
			func(in *egress.HostInput) { in.Uplink = testenv.Prefix("192.0.2.1/32") }, "192.0.2.1",
			[]netip.Addr{testenv.Addr("192.0.2.100")},
			[]netip.Prefix{testenv.Prefix("10.244.1.0/24")},
			paths{"10.244.1.5": local, "10.244.1.6": node},
			false, false,
		},
		"the uplink's address is one that the host had before": {
			func(in *egress.HostInput) { in.Uplink = testenv.Prefix("192.0.2.8/28") }, "192.0.2.1",
			[]netip.Addr{testenv.Addr("192.0.2.100")},
			[]netip.Prefix{testenv.Prefix("10.244.1.0/24")},
			paths{"10.244.1.5": local, "10.244.1.6": node},
			false, false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in := hostInput()
			c.change(&in)
			before := slices.Clone(in.Cluster.Hosts)
			d, ok := egress.DecideHost(in)
			if !ok {
				t.Fatal("nothing was decided")
			}
			if d.Plan.HostIP != testenv.Addr(c.hostIP) {
				t.Errorf("the host's address is %v, want %s", d.Plan.HostIP, c.hostIP)
			}
			var hosted []netip.Addr
			for _, h := range d.Plan.Hosted {
				hosted = append(hosted, h.IP)
			}
			if !slices.Equal(hosted, c.hosted) {
				t.Errorf("hosts %v, want %v", hosted, c.hosted)
			}
			if !slices.Equal(d.Plan.Subnets, c.subnets) {
				t.Errorf("subnets %v, want %v", d.Plan.Subnets, c.subnets)
			}
			got := paths{}
			for _, p := range d.Plan.Pods {
				got[p.IP.String()] = p.Kind
			}
			if len(got) != len(c.paths) || len(got) != len(d.Plan.Pods) {
				t.Errorf("paths of pods %+v, want %v", d.Plan.Pods, c.paths)
			}
			for ip, want := range c.paths {
				if kind, planned := got[ip]; !planned || kind != want {
					t.Errorf("path of pod %s is %v (planned: %t), want %v", ip, kind, planned, want)
				}
			}
			if !slices.IsSortedFunc(d.Plan.Pods, func(a, b egress.PodPath) int { return a.IP.Compare(b.IP) }) {
				t.Errorf("pods are not in order: %+v", d.Plan.Pods)
			}
			if d.NoHostSubnet != c.missing || d.PodNetworksUnknown != c.warn {
				t.Errorf("no HostSubnet: %t, pod networks unknown: %t; want %t, %t", d.NoHostSubnet, d.PodNetworksUnknown, c.missing, c.warn)
			}
			if d.Result.Name != "a" {
				t.Errorf("the result is of %q", d.Result.Name)
			}
			if !slices.EqualFunc(before, in.Cluster.Hosts, func(a, b egress.Host) bool {
				return a.Name == b.Name && a.IP == b.IP && slices.Equal(a.Networks, b.Networks) && a.Online == b.Online
			}) {
				t.Error("the cluster was changed in place")
			}
		})
	}
}

func TestDecideHostWithoutAnAddress(t *testing.T) {
	t.Parallel()
	in := hostInput()
	in.Cluster.Hosts = in.Cluster.Hosts[1:]
	if d, ok := egress.DecideHost(in); ok {
		t.Errorf("decided %+v", d)
	}
}
