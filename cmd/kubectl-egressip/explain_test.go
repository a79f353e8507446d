package main

import (
	"bytes"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/testenv/objects"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// hostSubnet is one whose agent works.
func hostSubnet(name, ip string, egressIPs ...string) v1.HostSubnet {
	return objects.ReportedHostSubnet(name, ip, egressIPs...)
}

// given is a cluster with one sound namespace, one whose egress IP nobody
// claims, and one that requests none.
func given() egress.Objects {
	return egress.Objects{
		NetNamespaces: []v1.NetNamespace{
			objects.NetNamespace("free", 15), objects.NetNamespace("shop", 17, "10.1.8.200"), objects.NetNamespace("test", 18, "10.1.8.201"),
		},
		HostSubnets: []v1.HostSubnet{hostSubnet("node1", "10.1.8.11", "10.1.8.200"), hostSubnet("node2", "10.1.8.12")},
	}
}

func TestExplain(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		namespace string
		change    func(*egress.Objects)
		want      []string
		not       []string
	}{
		"all": {
			want: []string{
				"GROUP   NETID   EGRESS IP    HOST    STATE        REASON\n",
				"shop    17      10.1.8.200   node1   Active       Assigned\n",
				"test    18      10.1.8.201   -       Unassigned   NotClaimed\n",
				"\n\ntest: Traffic to the outside is dropped. No host claims 10.1.8.201",
			},
			not: []string{"free", "shop, 10.1.8.200", "test, 10.1.8.201"},
		},
		"one": {
			namespace: "shop",
			want:      []string{"shop    17      10.1.8.200   node1   Active   Assigned\n"},
			not:       []string{"test"},
		},
		"an egress IP in a network of services": {
			namespace: "shop",
			change: func(o *egress.Objects) {
				o.HostSubnets[1].Status.FoundNetworks = []v1.FoundNetwork{{CIDR: "10.96.0.0/16", Source: "ServiceCIDR kubernetes", Use: v1.UseServices}}
				o.NetNamespaces[1].EgressIPs = []string{"10.96.3.7"}
			},
			want: []string{
				"shop    17      10.96.3.7   -      Invalid   ServiceAddress\n",
				"10.96.3.7 is in a service network of the cluster (10.96.0.0/16, by ServiceCIDR kubernetes): use an address",
			},
		},
		"an egress IP that is an API server": {
			namespace: "shop",
			change: func(o *egress.Objects) {
				o.HostSubnets[1].Status.FoundNetworks = []v1.FoundNetwork{{CIDR: "10.1.8.200/32", Source: "EndpointSlice default/kubernetes", Use: v1.UseAPIServers}}
			},
			want: []string{
				"shop    17      10.1.8.200   node1   Invalid   APIServerAddress\n",
				"10.1.8.200 is the address of an API server (EndpointSlice default/kubernetes): use an address in egressIPs that no machine has.",
			},
		},
		"one that requests nothing": {
			namespace: "free",
			want:      []string{"free    15      -           -      -       NotRequested\n"},
		},
		"the kernel of the host is not as planned": {
			namespace: "shop",
			change: func(o *egress.Objects) {
				o.HostSubnets[0].Status.EgressIPs = []v1.ClaimStatus{
					{IP: "10.1.8.200", State: v1.StateActive, Reason: "NotConfigured", Message: "another machine has it"},
				}
			},
			want: []string{"Active   NotConfigured\n", "shop, 10.1.8.200: The agent of host node1 says: another machine has it\n"},
		},
		"nobody requests anything": {
			change: func(o *egress.Objects) { o.NetNamespaces = o.NetNamespaces[:1] },
			want:   []string{"No namespace and no EgressIP requests egress IPs.\n"},
		},
		"an EgressIP": {
			namespace: "egressip/web",
			change:    withEgressIP,
			want:      []string{"EgressIP/web   19      10.1.8.202   node2   Active   Assigned\n"},
			not:       []string{"shop", "test"},
		},
		"EgressIPs and namespaces": {
			change: withEgressIP,
			want:   []string{"EgressIP/web   19  ", "shop           17  ", "test           18  "},
		},
		"a namespace that requests nothing, beside EgressIPs": {
			namespace: "free",
			change:    withEgressIP,
			want:      []string{"NotRequested\n", "Those of its pods that an EgressIP selects have its egress IPs"},
		},
		"an EgressIP whose selector cannot be used": {
			namespace: "EGRESSIP/web",
			change: func(o *egress.Objects) {
				withEgressIP(o)
				o.EgressIPs[0].Spec.PodSelector.MatchLabels = map[string]string{"a b": "c"}
			},
			want: []string{"EgressIP web, spec.podSelector: "},
		},
		"an EgressIP that another one hides": {
			change: func(o *egress.Objects) {
				withEgressIP(o)
				o.HostSubnets[0].Status.Agent.Overlaps = []v1.Overlap{{Used: "EgressIP/a", Ignored: "EgressIP/web", Pod: "shop/p"}}
			},
			want: []string{"EgressIP/web: Traffic", "But pod shop/p on host node1 leaves with the egress IPs of EgressIP a"},
		},
		"a mode that nobody knows": {
			namespace: "shop",
			change: func(o *egress.Objects) {
				o.NetNamespaces[1].Annotations = map[string]string{v1.AnnotationMode: "fast"}
			},
			want: []string{`"fast" is not a valid mode`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := given()
			if c.change != nil {
				c.change(&o)
			}
			var out bytes.Buffer
			if err := explain(&out, o, groupOf(c.namespace)); err != nil {
				t.Fatal(err)
			}
			check(t, out.String(), c.want, c.not)
		})
	}
}

// withEgressIP adds an EgressIP that has its egress IP on node2.
func withEgressIP(o *egress.Objects) {
	web := egressIP("web", "10.1.8.202")
	netID := uint32(19)
	web.Status.NetID = &netID
	o.EgressIPs = append(o.EgressIPs, web)
	o.HostSubnets[1].AssignedEgressIPs = []string{"10.1.8.202"}
	o.HostSubnets[1].Status.Placement = &v1.PlacementStatus{EgressAssignable: true}
	objects.AgentReports(&o.HostSubnets[1])
}

func check(t *testing.T, out string, want, not []string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(out, w) {
			t.Errorf("%q is not in:\n%s", w, out)
		}
	}
	for _, n := range not {
		if strings.Contains(out, n) {
			t.Errorf("%q is in:\n%s", n, out)
		}
	}
}

func TestExplainNoSuchNamespace(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	for group, want := range map[string]string{"shpo": `no NetNamespace "shpo"`, "egressip/wbe": `no EgressIP "wbe"`} {
		if err := explain(&out, given(), groupOf(group)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("explain %s says %v", group, err)
		}
	}
}

func TestStatus(t *testing.T) {
	t.Parallel()
	o := given()
	o.HostSubnets[0].EgressIPs = append(o.HostSubnets[0].EgressIPs, "10.1.8.202", "none")
	o.HostSubnets[1].EgressCIDRs = []string{"10.1.9.0/24"}
	o.HostSubnets[1].Status.Conditions = []metav1.Condition{
		{Type: v1.ConditionOnline, Status: metav1.ConditionFalse},
		{Type: v1.ConditionAgentReady, Status: metav1.ConditionFalse, Reason: "ApplyFailed", Message: "no room"},
	}
	o.HostSubnets = append(o.HostSubnets, v1.HostSubnet{ObjectMeta: metav1.ObjectMeta{Name: "node3"}, HostIP: "none"})
	var out bytes.Buffer
	if err := status(&out, o); err != nil {
		t.Fatal(err)
	}
	check(t, out.String(), []string{
		"HOST    HOST IP     MODE        ONLINE   AGENT         EGRESS IPS", "REASON\n",
		"node1   10.1.8.11   manual      yes      Ready         10.1.8.200(Active),10.1.8.202(Unassigned),none",
		"node2   10.1.8.12   automatic   no       ApplyFailed   - ",
		"node3   -           manual      yes      -             - ",
		"\nNamespaces: 3, EgressIPs: 0, with requests: 2, dropped: 1 (see \"kubectl egressip explain\")\n",
		"node1, 10.1.8.202: No namespace requests 10.1.8.202",
		"node2, agent: no room\n",
		"node3, agent: it has not reported yet",
		`HostSubnet node1, egressIPs: "none" is not a valid egress IP`,
	}, []string{"node1, agent", "node1, 10.1.8.200"})

	// Why a host cannot serve IPv6 is of interest where somebody wants that.
	const why = "node1, egress IPs of IPv6: it cannot serve them: no forwarding"
	o.HostSubnets[0].Status.Agent = &v1.AgentStatus{IPv6Reason: "no forwarding"}
	for _, wanted := range []bool{false, true} {
		out.Reset()
		if wanted {
			o.NetNamespaces[0].EgressIPs = append(o.NetNamespaces[0].EgressIPs, "fd00:7::200")
		}
		if err := status(&out, o); err != nil || strings.Contains(out.String(), why) != wanted {
			t.Errorf("wanted %t: %v in\n%s", wanted, err, out.String())
		}
	}

	// A Node with the label is a host of EgressIPs.
	out.Reset()
	o = given()
	withEgressIP(&o)
	if err := status(&out, o); err != nil {
		t.Fatal(err)
	}
	check(t, out.String(), []string{
		"node2   10.1.8.12   labelled   yes      Ready   10.1.8.202(Active)", "\nNamespaces: 3, EgressIPs: 1, with requests: 3,",
	}, []string{"node1   10.1.8.11   labelled"})

	out.Reset()
	if err := status(&out, egress.Objects{}); err != nil {
		t.Fatal(err)
	}
	check(t, out.String(), []string{"There are no HostSubnets", "Namespaces: 0, EgressIPs: 0, with requests: 0, dropped: 0\n"}, nil)
}
