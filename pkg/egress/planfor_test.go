package egress_test

import (
	"net/netip"
	"testing"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

func pod(namespace, ip string) egress.Pod {
	return egress.Pod{Namespace: namespace, Name: "pod", UID: namespace + ip, IP: testenv.Addr(ip)}
}

func planFor(t *testing.T, g *given, host string, pods ...egress.Pod) egress.Plan {
	t.Helper()
	cluster, _ := egress.Snapshot(g.Objects)
	plan, ok := egress.PlanFor(cluster, egress.Resolve(cluster), host, pods, []netip.Prefix{testenv.Prefix("10.96.0.0/12")})
	if !ok {
		t.Fatalf("no plan for %s", host)
	}
	return plan
}

func TestPodPaths(t *testing.T) {
	one := func() *given {
		return new(given).namespace("red", "192.168.7.200").host("w0", "192.168.7.200").host("w1")
	}
	const ip = "10.244.0.5"
	for name, test := range map[string]struct {
		given *given
		host  string
		pods  []egress.Pod
		want  []egress.PodPath
	}{
		"on the egress host a packet leaves locally": {
			given: one(), host: "w0", pods: []egress.Pod{pod("red", ip)},
			want: []egress.PodPath{{IP: testenv.Addr(ip), NetID: 1001, Kind: egress.PathLocal, EgressIP: testenv.Addr("192.168.7.200"), Namespace: "red", Name: "pod"}},
		},
		"elsewhere it goes over the overlay": {
			given: one(), host: "w1", pods: []egress.Pod{pod("red", ip)},
			want: []egress.PodPath{{IP: testenv.Addr(ip), NetID: 1001, Kind: egress.PathRemote, Via: []netip.Addr{testenv.Addr("192.168.7.10")}, Sources: []netip.Addr{testenv.Addr("192.168.7.200")}, Namespace: "red", Name: "pod"}},
		},
		"without an online host it is dropped": {
			given: one().offline("w0"), host: "w0", pods: []egress.Pod{pod("red", ip)},
			want: []egress.PodPath{{IP: testenv.Addr(ip), NetID: 1001, Kind: egress.PathDrop, Namespace: "red", Name: "pod"}},
		},
		"without a request the node's rules apply": {
			given: one().namespace("blue"), host: "w0", pods: []egress.Pod{pod("blue", ip)},
			want: []egress.PodPath{{IP: testenv.Addr(ip), NetID: 1002, Kind: egress.PathNode, Namespace: "blue", Name: "pod"}},
		},
		"a pod of a namespace without NetNamespace is left out": {
			given: one(), host: "w0", pods: []egress.Pod{pod("green", ip)},
		},
		"ordered: the host of a standby address sends to the active one": {
			given: new(given).namespace("red", "192.168.7.200", "192.168.7.201").host("w0", "192.168.7.200").host("w1", "192.168.7.201"),
			host:  "w1", pods: []egress.Pod{pod("red", ip)},
			want: []egress.PodPath{{IP: testenv.Addr(ip), NetID: 1001, Kind: egress.PathRemote, Via: []netip.Addr{testenv.Addr("192.168.7.10")}, Sources: []netip.Addr{testenv.Addr("192.168.7.200")}, Namespace: "red", Name: "pod"}},
		},
		"balanced: a host of one of them uses its own alone": {
			given: new(given).namespace("red", "192.168.7.200", "192.168.7.201").balanced().
				host("w0", "192.168.7.200").host("w1", "192.168.7.201"),
			host: "w1", pods: []egress.Pod{pod("red", ip)},
			want: []egress.PodPath{{IP: testenv.Addr(ip), NetID: 1001, Kind: egress.PathLocal, EgressIP: testenv.Addr("192.168.7.201"), Namespace: "red", Name: "pod"}},
		},
		"balanced: a third host spreads over both": {
			given: new(given).namespace("red", "192.168.7.200", "192.168.7.201").balanced().
				host("w0", "192.168.7.200").host("w1", "192.168.7.201").host("w2"),
			host: "w2", pods: []egress.Pod{pod("red", ip)},
			want: []egress.PodPath{{
				IP: testenv.Addr(ip), NetID: 1001, Kind: egress.PathRemote,
				Via: []netip.Addr{testenv.Addr("192.168.7.10"), testenv.Addr("192.168.7.11")}, Sources: []netip.Addr{testenv.Addr("192.168.7.200"), testenv.Addr("192.168.7.201")},
				Namespace: "red", Name: "pod",
			}},
		},
		"balanced: each family spreads over its own": {
			given: new(given).namespace("red", "192.168.7.200", "fd00:7::200", "192.168.7.201", "fd00:7::201").balanced().
				host("w0", "192.168.7.200", "fd00:7::200").host("w1", "fd00:7::201").host("w2", "192.168.7.201").ipv6(),
			host: "w2", pods: []egress.Pod{pod("red", ip), pod("red", "fd00:244::5")},
			want: []egress.PodPath{
				{IP: testenv.Addr(ip), NetID: 1001, Kind: egress.PathLocal, EgressIP: testenv.Addr("192.168.7.201"), Namespace: "red", Name: "pod"},
				{
					IP: testenv.Addr("fd00:244::5"), NetID: 1001, Kind: egress.PathRemote,
					Via: []netip.Addr{testenv.Addr("192.168.7.10"), testenv.Addr("192.168.7.11")}, Sources: []netip.Addr{testenv.Addr("fd00:7::200"), testenv.Addr("fd00:7::201")},
					Namespace: "red", Name: "pod",
				},
			},
		},
		"an address of two pods that differ is dropped": {
			given: one().namespace("blue"), host: "w0", pods: []egress.Pod{pod("red", ip), pod("blue", ip)},
			want: []egress.PodPath{{IP: testenv.Addr(ip), Kind: egress.PathDrop, Namespace: "blue", Name: "pod"}},
		},
		"an address of a known pod and an unknown one is dropped": {
			given: one(), host: "w0", pods: []egress.Pod{pod("red", ip), pod("green", ip)},
			want: []egress.PodPath{{IP: testenv.Addr(ip), Kind: egress.PathDrop, Namespace: "green", Name: "pod"}},
		},
		"an address of two pods of one namespace has its path": {
			given: one(), host: "w0", pods: []egress.Pod{pod("red", ip), {Namespace: "red", Name: "other", UID: "2", IP: testenv.Addr(ip)}},
			want: []egress.PodPath{{IP: testenv.Addr(ip), NetID: 1001, Kind: egress.PathLocal, EgressIP: testenv.Addr("192.168.7.200"), Namespace: "red", Name: "other"}},
		},
		"the address of a host is no pod's": {
			given: one(), host: "w0", pods: []egress.Pod{pod("red", "192.168.7.11")},
		},
		"a pod without an address has no path": {
			given: one(), host: "w0", pods: []egress.Pod{{Namespace: "red", Name: "new"}, pod("red", "::ffff:10.244.0.5")},
		},
		"by IPv6, a namespace with egress IPs does not leave, and others do": {
			given: one().namespace("blue"), host: "w0", pods: []egress.Pod{pod("red", "fd00::1"), pod("blue", "fd00::2"), pod("green", "fd00::3")},
			want: []egress.PodPath{
				{IP: testenv.Addr("fd00::1"), NetID: 1001, Kind: egress.PathRefuse, Namespace: "red", Name: "pod"},
				{IP: testenv.Addr("fd00::2"), NetID: 1002, Kind: egress.PathNode, Namespace: "blue", Name: "pod"},
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if d := diff(test.want, planFor(t, test.given, test.host, test.pods...).Pods); d != "" {
				t.Errorf("paths (-want +got):\n%s", d)
			}
		})
	}
}

func TestPlanOfAHost(t *testing.T) {
	g := new(given).
		namespace("red", "192.168.7.200", "192.168.7.201").
		namespace("blue", "192.168.7.202").
		host("w0", "192.168.7.202", "192.168.7.200").host("w1", "192.168.7.201").host("w2", "192.168.7.202")
	g.edit("w0", func(h *v1.HostSubnet) { h.Subnet = "10.244.0.0/24" })
	g.edit("w1", func(h *v1.HostSubnet) {
		h.Subnet = "10.244.1.0/24"
		h.Status.IPv6Networks = []string{"fd00:1::/64", "2001:db8::11/128", "::/0", "192.168.7.0/24", "x"}
	})
	// Its agent has not confirmed that the host is what the Node says.
	g.edit("w2", func(h *v1.HostSubnet) {
		h.Status.IPv6Networks = []string{"fd00:2::/64", "2001:db8::12/128"}
		h.Status.Agent = nil
	})
	plan := planFor(t, g, "w1")
	want := egress.Plan{
		Host: "w1", HostIP: testenv.Addr("192.168.7.11"),
		Hosts:   []netip.Addr{testenv.Addr("192.168.7.10"), testenv.Addr("192.168.7.11")},
		Inside:  testenv.Prefixes("10.96.0.0/12", "10.244.0.0/24", "10.244.1.0/24", "169.254.0.0/16", "2001:db8::11/128", "fd00:1::/64", "fd00:2::/64"),
		Subnets: testenv.Prefixes("10.244.1.0/24", "fd00:1::/64"),
		// On standby, and hosted nevertheless.
		Hosted:  []egress.HostedIP{{IP: testenv.Addr("192.168.7.201"), NetID: 1001, Group: "red"}},
		Orphans: []netip.Addr{testenv.Addr("192.168.7.200"), testenv.Addr("192.168.7.202")},
	}
	if d := diff(want, plan); d != "" {
		t.Errorf("plan (-want +got):\n%s", d)
	}
}

func TestNoPlanForAnUnknownHost(t *testing.T) {
	cluster, _ := egress.Snapshot(egress.Objects{})
	if _, ok := egress.PlanFor(cluster, egress.Resolve(cluster), "w0", nil, nil); ok {
		t.Error("there is a plan for a host that does not exist")
	}
}
