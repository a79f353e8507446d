package controllers

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	ovnv1 "github.com/egressip-operator/egressip-operator/api/ovn/v1"
	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/internal/testenv/objects"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
	"github.com/egressip-operator/egressip-operator/pkg/online"
)

// TestPropertyAllDecideTheSame: an agent and the kubectl plugin see only what is
// published, the controller sees Nodes, probes and votes too. Once its verdicts are
// published, all have the same answer.
//
// Kills the mutants closed-unpublished, capacity-unpublished and network-unpublished.
func TestPropertyAllDecideTheSame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := drawView(t)
		d := v.decide(new(egress.Memo))
		published := egress.Objects{}
		for _, n := range v.namespaces {
			published.NetNamespaces = append(published.NetNamespaces, *n)
		}
		for _, e := range v.egressIPs {
			published.EgressIPs = append(published.EgressIPs, *e)
		}
		for i, wanted := range wantedHosts(v, d, v.witnesses()) {
			h := v.hosts[i].DeepCopy()
			h.Status.Placement, h.Status.Witnesses = wanted.host.Placement, wanted.host.Witnesses
			for _, c := range wanted.host.Conditions {
				meta.SetStatusCondition(&h.Status.Conditions, c)
			}
			published.HostSubnets = append(published.HostSubnets, *h)
		}
		same := cmp.Options{cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}), cmpopts.EquateEmpty()}
		theirs, _ := egress.Snapshot(published)
		if diff := cmp.Diff(d.resolution, egress.Resolve(theirs), same); diff != "" {
			t.Fatalf("an agent decides otherwise (-controller +agent):\n%s", diff)
		}
		ours, _ := egress.Snapshot(v.objects())
		for i, h := range ours.Hosts {
			if got := theirs.Hosts[i]; got.Closed != h.Closed || got.Assignable != h.Assignable || got.Managed != h.Managed || got.Capacity != h.Capacity || got.IPv6Capacity != h.IPv6Capacity || !slices.Equal(got.Networks, h.Networks) {
				t.Fatalf("host %s: closed %t, assignable %t, capacity %d, networks %s for an agent, %t, %t, %d, %s for the controller",
					h.Name, got.Closed, got.Assignable, got.Capacity, got.Networks, h.Closed, h.Assignable, h.Capacity, h.Networks)
			}
		}
	})
}

// drawView is a cluster of few hosts as a controller sees it.
func drawView(t *rapid.T) view {
	v := view{
		verdicts: make(map[string]online.Verdict), evacuating: make(map[string]bool), gone: make(map[string]bool),
		servesEgressIPs: true, assignable: make(map[string]bool),
		capacity: make(map[string]int), networks: make(map[string][]netip.Prefix), ipv6Capacity: make(map[string]int),
		defaultCapacity: rapid.SampledFrom([]int{0, 0, 1}).Draw(t, "default capacity"),
	}
	ips := []string{"192.168.7.200", "192.168.7.201", "192.168.7.202", "192.168.9.1", "fd00:7::200", "fd00:7::201", "fd00:9::1"}
	lists := rapid.SliceOfNDistinct(rapid.SampledFrom(ips), 0, 4, rapid.ID)
	for i := range rapid.IntRange(1, 4).Draw(t, "hosts") {
		h := objects.HostSubnet(fmt.Sprintf("node%d", i), fmt.Sprintf("192.168.7.%d", 11+i), lists.Draw(t, "claims")...)
		if rapid.Bool().Draw(t, "automatic") {
			h.EgressCIDRs = []string{"192.168.7.0/24", "fd00:7::/64"}
		}
		if rapid.IntRange(0, 5).Draw(t, "unreported") > 0 {
			objects.AgentReports(&h)
			h.Status.Agent.UplinkNetworks = []string{"fd00:7::/64"}
			h.Status.Agent.Families = rapid.SampledFrom([][]string{nil, {v1.FamilyIPv4}, {v1.FamilyIPv4, v1.FamilyIPv6}}).Draw(t, "families")
			h.Status.Agent.UplinkCIDR = h.HostIP + rapid.SampledFrom([]string{"/32", "/24"}).Draw(t, "uplink")
		}
		if rapid.IntRange(0, 3).Draw(t, "API server") == 0 {
			h.Status.FoundNetworks = []v1.FoundNetwork{{CIDR: "192.168.7.200/32", Source: "EndpointSlice default/kubernetes", Use: v1.UseAPIServers}}
		}
		v.assignable[h.Name] = rapid.Bool().Draw(t, "assignable")
		h.AssignedEgressIPs = lists.Draw(t, "assigned")
		v.hosts = append(v.hosts, &h)
		v.verdicts[h.Name] = rapid.SampledFrom([]online.Verdict{
			{Online: true, Reason: online.ReasonNodeReady, Message: "Ready."},
			{Online: true, Closed: true, Reason: online.ReasonNoAgent, Message: "No agent."},
			{Doubtful: true, Reason: online.ReasonSilent, Message: "Silent."},
			{Closed: true, Reason: online.ReasonNodeUnreachable, Message: "Unreachable."},
		}).Draw(t, "verdict")
		v.evacuating[h.Name] = rapid.IntRange(0, 3).Draw(t, "evacuating") == 0
		v.gone[h.Name] = rapid.IntRange(0, 5).Draw(t, "gone") == 0
		if rapid.Bool().Draw(t, "cloud") {
			v.capacity[h.Name] = rapid.SampledFrom([]int{-1, 1, 2, 10}).Draw(t, "capacity")
			v.networks[h.Name] = testenv.Prefixes(rapid.SampledFrom([]string{"192.168.0.0/16", "192.168.7.0/25"}).Draw(t, "network"))
			if rapid.Bool().Draw(t, "cloud with IPv6") {
				v.ipv6Capacity[h.Name] = rapid.SampledFrom([]int{-1, 1, 10}).Draw(t, "IPv6 capacity")
				v.networks[h.Name] = append(v.networks[h.Name], testenv.Prefix(rapid.SampledFrom([]string{"fd00:7::/64", "fd00:9::/64"}).Draw(t, "IPv6 network")))
			}
		}
	}
	for i := range rapid.IntRange(1, 3).Draw(t, "namespaces") {
		n := objects.NetNamespace(fmt.Sprintf("team%d", i), uint32(10+i), lists.Draw(t, "requests")...)
		n.Annotations = map[string]string{v1.AnnotationMode: rapid.SampledFrom([]string{v1.ModeOrdered, v1.ModeBalanced}).Draw(t, "mode"), v1.AnnotationOtherFamily: rapid.SampledFrom([]string{"", v1.OtherFamilyNode}).Draw(t, "other family")}
		if len(n.EgressIPs) > 0 && rapid.Bool().Draw(t, "keeps") {
			n.Annotations[v1.AnnotationFailBack], n.Status.Active = v1.FailBackNever, &v1.Assignment{IP: n.EgressIPs[len(n.EgressIPs)-1]}
		}
		v.namespaces = append(v.namespaces, &n)
	}
	for i := range rapid.IntRange(0, 2).Draw(t, "EgressIPs") {
		v.egressIPs = append(v.egressIPs, &ovnv1.EgressIP{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("eip%d", i)},
			Spec:       ovnv1.EgressIPSpec{EgressIPs: lists.Draw(t, "requests of EgressIPs")},
			Status:     ovnv1.EgressIPStatus{NetID: new(uint32(3000 + i))},
		})
	}
	return v
}

// TestPlacement: without a limit, the greatest list that the schema allows is the limit.
func TestPlacement(t *testing.T) {
	v := view{
		capacity: map[string]int{"none": -1, "two": 2}, networks: map[string][]netip.Prefix{"two": testenv.Prefixes("10.0.1.7/18", "fd00:7::7/64")}, ipv6Capacity: map[string]int{"two": 3},
		verdicts: map[string]online.Verdict{"two": {Closed: true}}, listed: map[string][]string{"two": {"10.0.1.7"}},
		podNetworks: map[string][]string{"two": {"10.9.1.0/24"}},
	}
	for host, want := range map[string]v1.PlacementStatus{
		"none": {Networks: []string{}, NodeAddresses: []string{}, PodNetworks: []string{}},
		"any":  {Capacity: maxClaims, Networks: []string{}, NodeAddresses: []string{}, PodNetworks: []string{}},
		"two":  {Capacity: 2, IPv6Capacity: new(int32(3)), Network: "10.0.0.0/18", Networks: []string{"10.0.0.0/18", "fd00:7::/64"}, Closed: true, NodeAddresses: []string{"10.0.1.7"}, PodNetworks: []string{"10.9.1.0/24"}},
	} {
		if diff := cmp.Diff(&want, v.placement(host)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", host, diff)
		}
	}
}
