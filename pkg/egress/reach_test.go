package egress_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// A Node's addresses of IPv4 are its host's, and without any those of IPv6 that other networks
// reach.
//
// Mutant killed: ipv6-comes-first.
func TestHostIPsOfANode(t *testing.T) {
	t.Parallel()
	for internal, want := range map[string]string{
		"":                                     "",
		"10.0.0.11 10.0.1.11":                  "10.0.0.11 10.0.1.11",
		"10.0.0.11 fd00::11":                   "10.0.0.11",
		"fd00::11 2001:db8::11 10.0.0.11":      "10.0.0.11",
		"fd00::11 2001:db8::11":                "fd00::11 2001:db8::11",
		"fe80::11 ::1 ff02::1 ::ffff:10.0.0.1": "",
		"fe80::11 2001:db8::11":                "2001:db8::11",
	} {
		var list []netip.Addr
		for text := range strings.FieldsSeq(internal) {
			list = append(list, netip.MustParseAddr(text))
		}
		var got []string
		for _, ip := range egress.HostIPs(list) {
			got = append(got, ip.String())
		}
		if text := strings.Join(got, " "); text != want {
			t.Errorf("of %q: %q, want %q", internal, text, want)
		}
	}
}

// twoFamilies is a cluster of hosts a and b, which have addresses of IPv6, and c and d, which
// have such of IPv4, as seen by one of them, with a pod. Namespace shop has an egress IP of IPv6
// on c, and if that is not used another one on b.
func twoFamilies(self string) egress.HostInput {
	host := func(name, ip string, claims ...netip.Addr) egress.Host {
		return egress.Host{
			Name: name, IP: testenv.Addr(ip), Claims: claims, Online: true, Confirmed: true, AgentReady: true, ServesIPv6: true,
			Networks: []netip.Prefix{testenv.Prefix("fd00:7::/64")}, IPv6: []netip.Prefix{testenv.Prefix("fd00:10:" + name + "::/64")},
		}
	}
	return egress.HostInput{
		Host: self,
		Cluster: egress.Cluster{
			WithIPv6: true,
			Groups:   []egress.Group{{Name: "shop", NetID: 17, Requests: []netip.Addr{testenv.Addr("fd00:7::100"), testenv.Addr("fd00:7::101")}}},
			Hosts: []egress.Host{
				host("a", "fd00:7::1"), host("b", "fd00:7::2", testenv.Addr("fd00:7::101")),
				host("c", "192.0.2.3", testenv.Addr("fd00:7::100")), host("d", "192.0.2.4"),
			},
		},
		Pods:    []egress.Pod{pod("shop", "fd00:10:"+self+"::5")},
		Managed: map[string]bool{"shop": true},
	}
}

// Controllers probe what they reach: hosts of the family of the address that they probe from.
//
// Mutant killed: controllers-probe-out-of-reach.
func TestProbedHostsOfTwoFamilies(t *testing.T) {
	t.Parallel()
	c := twoFamilies("a").Cluster
	for from, want := range map[string]string{"fd00:7::1": "b", "192.0.2.4": "c", "": "c"} {
		ip, _ := netip.ParseAddr(from)
		var got []string
		for _, p := range egress.ProbedHosts(c, egress.Resolve(c), ip) {
			got = append(got, p.Name)
		}
		if text := strings.Join(got, " "); text != want {
			t.Errorf("from %q: %q, want %q", from, text, want)
		}
	}
}

// A host whose hostIP is of another family than one's own is out of reach: pods use other
// egress IPs of their namespace, or are dropped if it has none, and the host says which hosts
// it cannot reach. Nothing is sent there, nor asked. Hosts of one family do not care.
//
// Mutants killed: out-of-reach-is-used, out-of-reach-is-probed.
func TestHostsOfTwoFamilies(t *testing.T) {
	t.Parallel()
	only := func(ip string) func(*egress.HostInput) {
		return func(in *egress.HostInput) { in.Cluster.Groups[0].Requests = []netip.Addr{testenv.Addr(ip)} }
	}
	for name, c := range map[string]struct {
		self   string
		change func(*egress.HostInput)
		want   string // of the pod's path
		out    []string
		watch  []string
	}{
		"the first is out of reach, the second is not": {"a", func(*egress.HostInput) {}, "remote fd00:7::2 fd00:7::101", []string{"c"}, []string{"b"}},
		"there is no other":                            {"a", only("fd00:7::100"), "drop", []string{"c"}, nil},
		"the other is silent, and may be alive": {"a", func(in *egress.HostInput) {
			in.Reach.Silent = map[string]bool{"b": true}
		}, "remote fd00:7::2 fd00:7::101", []string{"c"}, []string{"b"}},
		"the host itself has it":        {"b", func(*egress.HostInput) {}, "local fd00:7::101", []string{"c"}, nil},
		"the host itself has the first": {"c", func(*egress.HostInput) {}, "local fd00:7::100", []string{"b"}, nil},
		"the first is in reach":         {"d", func(*egress.HostInput) {}, "remote 192.0.2.3 fd00:7::100", []string{"b"}, []string{"c"}},
		"the one is in reach":           {"d", only("fd00:7::100"), "remote 192.0.2.3 fd00:7::100", nil, []string{"c"}},
		"balanced: one of two is in reach": {"d", func(in *egress.HostInput) {
			in.Cluster.Groups[0].Mode = egress.Balanced
		}, "remote 192.0.2.3 fd00:7::100", []string{"b"}, []string{"c"}},
		"no pod uses what is out of reach": {"a", func(in *egress.HostInput) { in.Pods = nil }, "", nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			in := twoFamilies(c.self)
			c.change(&in)
			got, ok := egress.DecideHost(in)
			if !ok {
				t.Fatal("not decided")
			}
			path := ""
			for _, p := range got.Plan.Pods {
				switch p.Kind {
				case egress.PathRemote:
					path = "remote " + p.Via[0].String() + " " + p.Sources[0].String()
					if len(p.Via) > 1 {
						t.Errorf("via %v", p.Via)
					}
				case egress.PathLocal:
					path = "local " + p.EgressIP.String()
				case egress.PathDrop:
					path = "drop"
				default:
					t.Errorf("path %+v", p)
				}
			}
			if path != c.want {
				t.Errorf("the pod's path is %q, want %q", path, c.want)
			}
			if !slices.Equal(got.OutOfReach, c.out) {
				t.Errorf("out of reach: %q, want %q", got.OutOfReach, c.out)
			}
			var watched []string
			for _, p := range got.Watched {
				watched = append(watched, p.Name)
			}
			if c.self == "a" || c.self == "d" {
				if !slices.Equal(watched, c.watch) {
					t.Errorf("watched: %q, want %q", watched, c.watch)
				}
			}
			for _, p := range got.Watched {
				if p.IP.Is6() != got.Plan.HostIP.Is6() {
					t.Errorf("watched: %+v", p)
				}
			}
		})
	}
}

// A host with an address of IPv6 has egress IPs of IPv6 only, and needs no uplink of IPv4.
//
// Mutant killed: hosts-of-ipv6-take-ipv4.
func TestHostOfIPv6(t *testing.T) {
	t.Parallel()
	g := new(given).namespace("red", "192.168.7.200").namespace("blue", "fd00:7::200").host("w0", "192.168.7.200", "fd00:7::200").ipv6()
	edited(g, func(h *v1.HostSubnet) {
		h.HostIP, h.Status.Agent.UplinkCIDR = "fd00:7::10", "fd00:7::10/64"
		h.Status.Agent.Families = []string{v1.FamilyIPv6}
		h.Subnet = ""
	})
	cluster, problems := egress.Snapshot(g.Objects)
	if len(problems) > 0 {
		t.Errorf("problems %+v", problems)
	}
	host, _ := cluster.Host("w0")
	if !host.Confirmed || host.IP != testenv.Addr("fd00:7::10") {
		t.Errorf("host %+v", host)
	}
	resolution := egress.Resolve(cluster)
	red, _ := resolution.Group("red")
	blue, _ := resolution.Group("blue")
	if len(red.Active) > 0 || red.Reason != egress.ReasonFamilyNotServed || !strings.Contains(red.Message, "one of IPv6") {
		t.Errorf("an egress IP of IPv4: %+v", red)
	}
	want := []egress.Assignment{{IP: testenv.Addr("fd00:7::200"), Host: "w0", HostIP: testenv.Addr("fd00:7::10")}}
	if diff := cmp.Diff(want, blue.Active, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("an egress IP of IPv6 (-want +got):\n%s", diff)
	}
}

// The hostIP of IPv6 is one of the Node's addresses, too: a message names its host once.
//
// Mutant killed: host-has-its-address-twice.
func TestHostHasItsAddressOnce(t *testing.T) {
	t.Parallel()
	g := new(given).namespace("blue", "fd00:7::10").host("w0").ipv6()
	edited(g, func(h *v1.HostSubnet) {
		h.HostIP, h.Status.Agent.UplinkCIDR = "fd00:7::10", "fd00:7::10/64"
		h.Status.Agent.Families = []string{v1.FamilyIPv6}
		h.Status.IPv6Networks = []string{"fd00:7::10/128"}
	})
	cluster, _ := egress.Snapshot(g.Objects)
	blue, _ := egress.Resolve(cluster).Group("blue")
	if len(blue.Requests) != 1 || blue.Requests[0].Reason != egress.ReasonHostAddress || !strings.Contains(blue.Requests[0].Message, "the address of host w0 itself") {
		t.Errorf("requests are %+v", blue.Requests)
	}
}

// Only addresses that other networks reach are a host's.
func TestHostIPsThatAreNone(t *testing.T) {
	t.Parallel()
	for _, ip := range []string{"fe80::1", "::1", "ff02::1", "::ffff:192.0.2.1", "fd00::1%eth0", "::"} {
		g := new(given).host("w0")
		edited(g, func(h *v1.HostSubnet) { h.HostIP = ip })
		cluster, problems := egress.Snapshot(g.Objects)
		if host, _ := cluster.Host("w0"); host.IP.IsValid() || len(problems) == 0 {
			t.Errorf("%s: %v, %+v", ip, host.IP, problems)
		}
	}
}

// In a cluster of IPv6 alone, strict classification covers the networks of IPv6, and a pod in
// none of them is named; nothing is missed of IPv4.
//
// Mutant killed: strict-misses-ipv4.
func TestStrictWithoutIPv4(t *testing.T) {
	t.Parallel()
	in := twoFamilies("a")
	in.Cluster.Hosts, in.Strict = in.Cluster.Hosts[:2], true
	got, _ := egress.DecideHost(in)
	if got.PodNetworksUnknown || got.Stray.IP.IsValid() || got.StrayIPv6.IsValid() {
		t.Errorf("unknown: %t; stray: %+v, %v", got.PodNetworksUnknown, got.Stray, got.StrayIPv6)
	}
	in.Pods = append(in.Pods, pod("shop", "fd00:99::5"))
	in.Cluster.Hosts[0].IPv6 = nil
	if got, _ = egress.DecideHost(in); !got.PodNetworksUnknown {
		t.Error("no network of pods is known, and that is not reported")
	}
}

// Witnesses of a host are those that reach it.
//
// Mutant killed: witnesses-out-of-reach.
func TestPanelsOfTwoFamilies(t *testing.T) {
	t.Parallel()
	var all []egress.Witness
	for i := range 20 {
		all = append(all, egress.Witness{Name: string(rune('a' + i)), Family: egress.Family(i % 2)})
	}
	for name, panel := range egress.Panels(all, all) {
		own := all[name[0]-'a'].Family
		if len(panel) != egress.MaxPanel {
			t.Errorf("%s has %d witnesses", name, len(panel))
		}
		for _, w := range panel {
			if all[w[0]-'a'].Family != own {
				t.Errorf("%s has the witness %s", name, w)
			}
		}
	}
}
