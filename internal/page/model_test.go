package page

import (
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/testenv/objects"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// host is one that is online, and whose agent reports that it has what it claims.
func host(name, ip string, claims ...string) v1.HostSubnet {
	h := objects.ReportedHostSubnet(name, ip, claims...)
	h.Status.Agent.UplinkCIDR = ip + "/24"
	says(&h, v1.ConditionOnline, metav1.ConditionTrue, "Answers", "It answers probes.")
	return h
}

func says(h *v1.HostSubnet, name string, status metav1.ConditionStatus, reason, message string) {
	h.Status.Conditions = slices.DeleteFunc(h.Status.Conditions, func(c metav1.Condition) bool { return c.Type == name })
	h.Status.Conditions = append(h.Status.Conditions, metav1.Condition{Type: name, Status: status, Reason: reason, Message: message})
}

// modelOf makes a Model of a few objects.
func modelOf(namespaces []v1.NetNamespace, hosts []v1.HostSubnet) Model {
	return Make(Input{Objects: egress.Objects{NetNamespaces: namespaces, HostSubnets: hosts}}, nil)
}

func (m Model) groupNamed(t *testing.T, id string) Group {
	t.Helper()
	i := slices.IndexFunc(m.Groups, func(g Group) bool { return g.ID == id })
	if i < 0 {
		t.Fatalf("there is no group %s", id)
	}
	return m.Groups[i]
}

func (m Model) hostNamed(t *testing.T, name string) Host {
	t.Helper()
	i := slices.IndexFunc(m.Hosts, func(h Host) bool { return h.Name == name })
	if i < 0 {
		t.Fatalf("there is no host %s", name)
	}
	return m.Hosts[i]
}

// TestLevels: what is wrong is shown as what it is, and what is not known never as good.
//
// Mutants: page-unknown-is-ok, page-conflict-is-failed.
func TestLevels(t *testing.T) {
	t.Parallel()
	const ip, other = "192.168.7.200", "192.168.7.201"
	shop := func(ips ...string) []v1.NetNamespace {
		return []v1.NetNamespace{objects.NetNamespace("shop", 1, ips...)}
	}
	reporting := func(change func(*v1.HostSubnet)) []v1.HostSubnet {
		h := host("node1", "192.168.7.11", ip)
		change(&h)
		return []v1.HostSubnet{h}
	}
	for name, c := range map[string]struct {
		namespaces  []v1.NetNamespace
		hosts       []v1.HostSubnet
		group, host Level
		headline    string
	}{
		"nothing is requested": {
			shop(), []v1.HostSubnet{host("node1", "192.168.7.11")}, LevelNone, LevelNone, "Traffic leaves with the address of the pod's node.",
		},
		"all is in order": {
			shop(ip), reporting(func(*v1.HostSubnet) {}), LevelOK, LevelOK, "Traffic leaves with 192.168.7.200 by node1.",
		},
		"nobody claims it": {
			shop(ip), []v1.HostSubnet{host("node1", "192.168.7.11")}, LevelFailed, LevelNone, "Traffic is dropped.",
		},
		"the agent has not reported the address": {
			shop(ip), reporting(func(h *v1.HostSubnet) { h.Status.EgressIPs = nil }), LevelUnknown, LevelUnknown,
			"Traffic is sent out with 192.168.7.200 by node1; it is not known whether it leaves as it should.",
		},
		"the agent could not configure it": {
			shop(ip), reporting(func(h *v1.HostSubnet) {
				h.Status.EgressIPs[0].Configured, h.Status.EgressIPs[0].Reason, h.Status.EgressIPs[0].Message = false, "ApplyFailed", "no room"
			}), LevelFailed, LevelFailed, "Traffic is sent out with 192.168.7.200 by node1, and does not leave as it should.",
		},
		"another machine has it": {
			shop(ip), reporting(func(h *v1.HostSubnet) {
				h.Status.EgressIPs[0].Configured, h.Status.EgressIPs[0].Reason = false, string(egress.ReasonAddressInUse)
				says(h, v1.ConditionAddressInUse, metav1.ConditionTrue, "AddressInUse", "02:00:00:00:00:01 answers for it")
			}), LevelConflict, LevelConflict, "Traffic is sent out with 192.168.7.200 by node1, and does not leave as it should.",
		},
		"two namespaces request it": {
			append(shop(ip), objects.NetNamespace("till", 2, ip)), reporting(func(*v1.HostSubnet) {}), LevelConflict, LevelConflict, "Traffic is dropped.",
		},
		"two hosts claim it": {
			shop(ip), append(reporting(func(*v1.HostSubnet) {}), host("node2", "192.168.7.12", ip)), LevelConflict, LevelConflict, "Traffic is dropped.",
		},
		"the host is offline": {
			shop(ip), reporting(func(h *v1.HostSubnet) { says(h, v1.ConditionOnline, metav1.ConditionFalse, "Silent", "It is silent.") }),
			LevelFailed, LevelFailed, "Traffic is dropped.",
		},
		"the host is silent for probes alone": {
			shop(ip), reporting(func(h *v1.HostSubnet) {
				says(h, v1.ConditionOnline, metav1.ConditionUnknown, "Silent", "It is silent.")
			}),
			LevelUnknown, LevelUnknown, "Traffic is sent out with 192.168.7.200 by node1; it is not known whether it leaves as it should.",
		},
		"nobody has judged the host": {
			shop(ip), reporting(func(h *v1.HostSubnet) {
				h.Status.Conditions = slices.DeleteFunc(h.Status.Conditions, func(c metav1.Condition) bool { return c.Type == v1.ConditionOnline })
			}), LevelOK, LevelUnknown, "Traffic leaves with 192.168.7.200 by node1.",
		},
		"a second one has no host": {
			shop(ip, other), reporting(func(*v1.HostSubnet) {}), LevelDegraded, LevelOK, "Traffic leaves with 192.168.7.200 by node1.",
		},
		"a second one is no address": {
			shop(ip, "192.168.7.300"), reporting(func(*v1.HostSubnet) {}), LevelDegraded, LevelOK, "Traffic leaves with 192.168.7.200 by node1.",
		},
		"the host warns": {
			shop(ip), reporting(func(h *v1.HostSubnet) {
				says(h, v1.ConditionWarnings, metav1.ConditionTrue, "ReversePathFilter", "rp_filter is 0")
			}),
			LevelOK, LevelDegraded, "Traffic leaves with 192.168.7.200 by node1.",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := modelOf(c.namespaces, c.hosts)
			g, h := m.groupNamed(t, "shop"), m.hostNamed(t, "node1")
			if g.Level != c.group || h.Level != c.host {
				t.Errorf("the namespace is %s (%s: %s), the host %s (%s), want %s and %s", g.Level, g.Reason, g.Message, h.Level, h.Summary, c.group, c.host)
			}
			if got := headline(g); got != c.headline {
				t.Errorf("the headline is %q, want %q", got, c.headline)
			}
			for kind, level := range map[string]Level{kindNamespace: g.Level, kindHost: h.Level} {
				found := slices.IndexFunc(m.Issues, func(i Issue) bool { return i.Kind == kind && (i.Name == "shop" || i.Name == "node1") })
				switch {
				case (found >= 0) != level.Bad():
					t.Errorf("the %s is %s, and its issue is at %d of %+v", kind, level, found, m.Issues)
				case found >= 0 && strings.TrimSpace(m.Issues[found].Text) == "":
					t.Errorf("the issue of the %s says nothing: %+v", kind, m.Issues[found])
				}
			}
			if !slices.IsSortedFunc(m.Issues, byProblem) {
				t.Errorf("the issues are not in order: %+v", m.Issues)
			}
		})
	}
}

// TestPublished: what the condition says is shown beside what the objects say, where that differs.
func TestPublished(t *testing.T) {
	t.Parallel()
	at := metav1.Now()
	n := objects.NetNamespace("shop", 1, "192.168.7.200")
	n.Status.Conditions = []metav1.Condition{{Type: v1.ConditionEgressReady, Status: metav1.ConditionTrue, Reason: "Assigned", LastTransitionTime: at}}
	hosts := []v1.HostSubnet{host("node1", "192.168.7.11", "192.168.7.200")}
	if g := modelOf([]v1.NetNamespace{n}, hosts).groupNamed(t, "shop"); g.Differs() || g.since() != timeText(at) {
		t.Errorf("the status %+v differs from %s %s, or it is not so since %v but %s", g.Published, g.Ready, g.Reason, at, g.since())
	}
	hosts[0].EgressIPs = nil
	if g := modelOf([]v1.NetNamespace{n}, hosts).groupNamed(t, "shop"); !g.Differs() || g.since() != "" {
		t.Errorf("the status %+v does not differ from %s %s, or it is said to be so since %s", g.Published, g.Ready, g.Reason, g.since())
	}
	n.Status.Conditions = nil
	if g := modelOf([]v1.NetNamespace{n}, hosts).groupNamed(t, "shop"); !g.Published.Missing || !g.Differs() {
		t.Errorf("a missing condition is read as %+v", g.Published)
	}
}
