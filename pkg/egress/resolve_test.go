package egress_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
	"github.com/egressip-operator/egressip-operator/pkg/online"
)

// given builds the objects of a scenario: namespaces get netids from 1001 on,
// hosts addresses from 192.168.7.10 on, in the order in which they are named.
type given struct{ egress.Objects }

func (g *given) namespace(name string, egressIPs ...string) *given {
	g.NetNamespaces = append(g.NetNamespaces, v1.NetNamespace{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		NetName:    name,
		NetID:      new(1001 + uint32(len(g.NetNamespaces))),
		EgressIPs:  egressIPs,
	})
	return g
}

func (g *given) netID(name string, id uint32) *given {
	for i := range g.NetNamespaces {
		if g.NetNamespaces[i].Name == name {
			g.NetNamespaces[i].NetID = &id
		}
	}
	return g
}

func (g *given) unnumbered(name string) *given {
	for i := range g.NetNamespaces {
		if g.NetNamespaces[i].Name == name {
			g.NetNamespaces[i].NetID = nil
		}
	}
	return g
}

// balanced is for the namespaces so far.
func (g *given) balanced() *given {
	for i := range g.NetNamespaces {
		g.NetNamespaces[i].Annotations = map[string]string{v1.AnnotationMode: v1.ModeBalanced}
	}
	return g
}

func (g *given) host(name string, egressIPs ...string) *given {
	ip := netip.MustParseAddr("192.168.7.10")
	for range g.HostSubnets {
		ip = ip.Next()
	}
	g.HostSubnets = append(g.HostSubnets, v1.HostSubnet{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Host:       name,
		HostIP:     ip.String(),
		EgressIPs:  egressIPs,
	})
	g.edit(name, agentReports)
	return g
}

// agentReports is what a host's agent reports when it begins: the host has its address,
// and the kernel is as planned. An uplink with a /32 does not say which network it is in.
func agentReports(h *v1.HostSubnet) {
	h.Status.Agent = &v1.AgentStatus{UplinkCIDR: h.HostIP + "/32"}
	h.Status.Conditions = []metav1.Condition{{Type: v1.ConditionAgentReady, Status: metav1.ConditionTrue}}
}

func (g *given) automatic(name string, egressCIDRs ...string) *given {
	g.host(name)
	g.HostSubnets[len(g.HostSubnets)-1].EgressCIDRs = egressCIDRs
	return g
}

func (g *given) hostIP(name, ip string) *given {
	g.edit(name, func(h *v1.HostSubnet) {
		h.HostIP = ip
		h.Status.Agent.UplinkCIDR = ip + "/32"
	})
	return g
}

func (g *given) uplink(name, cidr string) *given {
	g.edit(name, func(h *v1.HostSubnet) { h.Status.Agent = &v1.AgentStatus{UplinkCIDR: cidr} })
	return g
}

func (g *given) offline(name string) *given {
	g.edit(name, func(h *v1.HostSubnet) {
		h.Status.Conditions = append(h.Status.Conditions, metav1.Condition{Type: v1.ConditionOnline, Status: metav1.ConditionFalse})
	})
	return g
}

// doubtful is a host that probes alone find silent.
func (g *given) doubtful(name string) *given {
	g.edit(name, func(h *v1.HostSubnet) {
		h.Status.Conditions = append(h.Status.Conditions, metav1.Condition{Type: v1.ConditionOnline, Status: metav1.ConditionUnknown})
	})
	return g
}

// agentGone is a host that runs without its agent.
func (g *given) agentGone(name string) *given {
	g.edit(name, func(h *v1.HostSubnet) {
		h.Status.Conditions = append(h.Status.Conditions, metav1.Condition{
			Type: v1.ConditionOnline, Status: metav1.ConditionTrue, Reason: string(online.ReasonNoAgent),
		})
	})
	return g
}

// unreported is a host whose agent has never reported.
func (g *given) unreported(name string) *given {
	g.edit(name, func(h *v1.HostSubnet) { h.Status = v1.HostSubnetStatus{} })
	return g
}

// notReady is a host whose agent reports that the kernel is not as planned.
func (g *given) notReady(name string) *given {
	g.edit(name, func(h *v1.HostSubnet) { h.Status.Conditions[0].Status = metav1.ConditionFalse })
	return g
}

// reports is what the host's agent reports on a claim; reason "" if it is configured.
func (g *given) reports(name, ip string, reason egress.Reason) *given {
	g.edit(name, func(h *v1.HostSubnet) {
		h.Status.EgressIPs = append(h.Status.EgressIPs, v1.ClaimStatus{IP: ip, Configured: reason == "", Reason: string(reason)})
	})
	return g
}

// gone is a host whose Node does not exist any more.
func (g *given) gone(name string) *given {
	g.edit(name, func(h *v1.HostSubnet) {
		h.Status.Conditions = []metav1.Condition{
			{Type: v1.ConditionOnline, Status: metav1.ConditionFalse}, {Type: v1.ConditionNodeGone, Status: metav1.ConditionTrue},
		}
	})
	return g
}

func (g *given) edit(name string, change func(*v1.HostSubnet)) {
	for i := range g.HostSubnets {
		if g.HostSubnets[i].Name == name {
			change(&g.HostSubnets[i])
		}
	}
}

func TestNamespaces(t *testing.T) {
	const none = "none"
	for name, test := range map[string]struct {
		given *given
		// want is, for each namespace, "none" (node addresses), "dropped:
		// <reason>", or its active egress IPs as "ip@host".
		want map[string]string
	}{
		"a namespace that requests nothing leaves with node addresses": {
			given: new(given).namespace("red").host("w0", "192.168.7.200"),
			want:  map[string]string{"red": none},
		},
		"a request that no host claims is dropped": {
			given: new(given).namespace("red", "192.168.7.200").host("w0"),
			want:  map[string]string{"red": "dropped: NotClaimed"},
		},
		"a request that one host claims is active": {
			given: new(given).namespace("red", "192.168.7.200").host("w0", "192.168.7.200"),
			want:  map[string]string{"red": "192.168.7.200@w0"},
		},
		"a claim may carry a prefix length": {
			given: new(given).namespace("red", "192.168.7.200").host("w0", "192.168.7.200/24"),
			want:  map[string]string{"red": "192.168.7.200@w0"},
		},
		"of several the first in the list is active": {
			given: new(given).namespace("red", "192.168.7.201", "192.168.7.200").
				host("w0", "192.168.7.200").host("w1", "192.168.7.201"),
			want: map[string]string{"red": "192.168.7.201@w1"},
		},
		"the next takes over from an offline host": {
			given: new(given).namespace("red", "192.168.7.201", "192.168.7.200").
				host("w0", "192.168.7.200").host("w1", "192.168.7.201").offline("w1"),
			want: map[string]string{"red": "192.168.7.200@w0"},
		},
		"with every host offline the namespace is dropped": {
			given: new(given).namespace("red", "192.168.7.200").host("w0", "192.168.7.200").offline("w0"),
			want:  map[string]string{"red": "dropped: HostOffline"},
		},
		"balanced uses all whose hosts are online": {
			given: new(given).namespace("red", "192.168.7.200", "192.168.7.201", "192.168.7.202").balanced().
				host("w0", "192.168.7.200").host("w1", "192.168.7.201").host("w2", "192.168.7.202").offline("w1"),
			want: map[string]string{"red": "192.168.7.200@w0 192.168.7.202@w2"},
		},
		"an address that two namespaces request drops both": {
			given: new(given).namespace("red", "192.168.7.200").namespace("blue", "192.168.7.200").
				host("w0", "192.168.7.200"),
			want: map[string]string{"red": "dropped: MultipleNamespaces", "blue": "dropped: MultipleNamespaces"},
		},
		"one shared address drops a namespace with sound ones too": {
			given: new(given).namespace("red", "192.168.7.200", "192.168.7.201").namespace("blue", "192.168.7.201").
				host("w0", "192.168.7.200").host("w1"),
			want: map[string]string{"red": "dropped: MultipleNamespaces", "blue": "dropped: MultipleNamespaces"},
		},
		"an address that two hosts claim is on neither": {
			given: new(given).namespace("red", "192.168.7.200").host("w0", "192.168.7.200").host("w1", "192.168.7.200"),
			want:  map[string]string{"red": "dropped: MultipleHosts"},
		},
		"a claim of an offline host still counts": {
			given: new(given).namespace("red", "192.168.7.200").
				host("w0", "192.168.7.200").host("w1", "192.168.7.200").offline("w1"),
			want: map[string]string{"red": "dropped: MultipleHosts"},
		},
		"of two of a namespace on one host neither is used": {
			given: new(given).namespace("red", "192.168.7.200", "192.168.7.201", "192.168.7.202").
				host("w0", "192.168.7.200", "192.168.7.201").host("w1", "192.168.7.202"),
			want: map[string]string{"red": "192.168.7.202@w1"},
		},
		"an address of any host is no egress IP": {
			given: new(given).namespace("red", "192.168.7.11").host("w0", "192.168.7.11").host("w1"),
			want:  map[string]string{"red": "dropped: HostAddress"},
		},
		"an address outside the uplink's network is refused": {
			given: new(given).namespace("red", "192.168.8.200", "192.168.7.201").
				host("w0", "192.168.8.200").uplink("w0", "192.168.7.10/24").host("w1", "192.168.7.201"),
			want: map[string]string{"red": "192.168.7.201@w1"},
		},
		"whatever an uplink's network is, it is that of the claiming host that counts": {
			given: new(given).namespace("red", "192.168.8.200").
				host("w0", "192.168.8.200").host("w1").uplink("w1", "192.168.7.11/24"),
			want: map[string]string{"red": "192.168.8.200@w0"},
		},
		"the broadcast address of the uplink's network is refused": {
			given: new(given).namespace("red", "192.168.7.255").host("w0", "192.168.7.255").uplink("w0", "192.168.7.10/24"),
			want:  map[string]string{"red": "dropped: BadAddress"},
		},
		"the network address of the uplink's network is refused": {
			given: new(given).namespace("red", "192.168.7.0").host("w0", "192.168.7.0").uplink("w0", "192.168.7.10/24"),
			want:  map[string]string{"red": "dropped: BadAddress"},
		},
		"an uplink with a /32 says nothing of its network": {
			given: new(given).namespace("red", "192.168.7.200").host("w0", "192.168.7.200").uplink("w0", "192.168.7.10/32"),
			want:  map[string]string{"red": "192.168.7.200@w0"},
		},
		"nothing but bad requests drops": {
			given: new(given).namespace("red", "0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255",
				"192.168.07.200", "fd00::1", "::ffff:192.168.7.200", "192.168.7.200/24", "169.254.77.1", ""),
			want: map[string]string{"red": "dropped: BadAddress"},
		},
		"claims of a host without a usable hostIP do not count": {
			given: new(given).namespace("red", "192.168.7.200").
				host("w0", "192.168.7.200").hostIP("w0", "node1").host("w1", "192.168.7.200"),
			want: map[string]string{"red": "192.168.7.200@w1"},
		},
		"claims of hosts that share a hostIP do not count": {
			given: new(given).namespace("red", "192.168.7.200").
				host("w0", "192.168.7.200").host("w1").hostIP("w1", "192.168.7.10"),
			want: map[string]string{"red": "dropped: NotClaimed"},
		},
		"of two with one netid one alone may request": {
			given: new(given).namespace("red", "192.168.7.200").namespace("blue").netID("blue", 1001).
				host("w0", "192.168.7.200"),
			want: map[string]string{"red": "192.168.7.200@w0", "blue": none},
		},
		"two with one netid that both request are dropped": {
			given: new(given).namespace("red", "192.168.7.200").namespace("blue", "192.168.7.201").netID("blue", 1001).
				host("w0", "192.168.7.200", "192.168.7.201"),
			want: map[string]string{"red": "dropped: DuplicateNetID", "blue": "dropped: DuplicateNetID"},
		},
		"of two with one netid one may make nothing but mistakes": {
			given: new(given).namespace("red", "192.168.7.200").namespace("blue", "0.0.0.0").netID("blue", 1001).
				host("w0", "192.168.7.200"),
			want: map[string]string{"red": "192.168.7.200@w0", "blue": "dropped: BadAddress"},
		},
		"a netid of more than 24 bits would be cut to that of another": {
			given: new(given).namespace("red", "192.168.7.200").netID("red", 1<<24).host("w0", "192.168.7.200"),
			want:  map[string]string{"red": "dropped: BadNetID"},
		},
		"no netid is not netid 0": {
			given: new(given).namespace("red", "192.168.7.200").unnumbered("red").namespace("default", "192.168.7.201").netID("default", 0).
				host("w0", "192.168.7.200", "192.168.7.201"),
			want: map[string]string{"red": "dropped: NoNetID", "default": "192.168.7.201@w0"},
		},
		"without requests no netid is needed": {
			given: new(given).namespace("red").unnumbered("red").namespace("blue", "192.168.7.200").host("w0", "192.168.7.200"),
			want:  map[string]string{"red": none, "blue": "192.168.7.200@w0"},
		},
		"a host whose Node is gone yields its address to another": {
			given: new(given).namespace("red", "192.168.7.200").
				host("w0", "192.168.7.200").host("w1").gone("w1").hostIP("w1", "192.168.7.10"),
			want: map[string]string{"red": "192.168.7.200@w0"},
		},
		"a host whose Node is gone yields its claims to another": {
			given: new(given).namespace("red", "192.168.7.200").host("w0", "192.168.7.200").gone("w0").host("w1", "192.168.7.200"),
			want:  map[string]string{"red": "192.168.7.200@w1"},
		},
		"a claim of a host whose Node is gone stands otherwise": {
			given: new(given).namespace("red", "192.168.7.200").host("w0", "192.168.7.200").gone("w0").host("w1"),
			want:  map[string]string{"red": "dropped: HostOffline"},
		},
		"automatic hosts that have all gone are said to be the cause": {
			given: new(given).namespace("red", "192.168.7.200").automatic("w0", "192.168.7.0/24").offline("w0"),
			want:  map[string]string{"red": "dropped: NoEligibleHost"},
		},
		"an automatic host with room will get it": {
			given: new(given).namespace("red", "192.168.7.200").automatic("w0", "192.168.7.0/24"),
			want:  map[string]string{"red": "dropped: NotClaimed"},
		},
		"different causes add up to Dropped": {
			given: new(given).namespace("red", "192.168.7.200", "192.168.7.201").
				host("w0", "192.168.7.200").offline("w0"),
			want: map[string]string{"red": "dropped: Dropped"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			cluster, _ := egress.Snapshot(test.given.Objects)
			got := make(map[string]string)
			for _, n := range egress.Resolve(cluster).Groups {
				var active []string
				for _, a := range n.Active {
					active = append(active, a.IP.String()+"@"+a.Host)
				}
				switch {
				case n.Dropped:
					got[n.Name] = "dropped: " + string(n.Reason)
				case len(active) == 0:
					got[n.Name] = none
				default:
					got[n.Name] = strings.Join(active, " ")
				}
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("namespaces (-want +got):\n%s", diff)
			}
		})
	}
}
