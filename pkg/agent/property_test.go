package agent

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/internal/testenv/objects"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane"
)

// drawInput is a small and crowded cluster: few addresses, so that conflicts
// and reuse are common, and often without this node's HostSubnet.
func drawInput(t *rapid.T) input {
	egressIP := rapid.SampledFrom([]string{"10.1.8.200", "10.1.8.201", "10.1.8.202", "10.9.9.9", "10.1.8.11", "0.0.0.0", "none"})
	in := input{
		node:   "node1",
		uplink: rapid.SampledFrom([]netip.Prefix{{}, netip.MustParsePrefix("10.1.8.11/24"), netip.MustParsePrefix("10.1.8.11/29")}).Draw(t, "uplink"),
		hostIP: testenv.Addr("10.1.8.11"),
		strict: rapid.Bool().Draw(t, "strict"),
	}
	for i := range rapid.IntRange(0, 4).Draw(t, "namespaces") {
		in.netNamespaces = append(in.netNamespaces, objects.NetNamespace(
			fmt.Sprintf("ns%d", i), rapid.SampledFrom([]uint32{17, 18, 19}).Draw(t, "netid"),
			rapid.SliceOfN(egressIP, 0, 3).Draw(t, "requests")...))
	}
	for i := 1; i <= 3; i++ {
		if rapid.IntRange(0, 3).Draw(t, "HostSubnet") == 0 {
			continue
		}
		h := hostSubnet(fmt.Sprintf("node%d", i), fmt.Sprintf("10.1.8.%d", 10+i), fmt.Sprintf("10.244.%d.0/24", i),
			rapid.SliceOfN(egressIP, 0, 3).Draw(t, "claims")...)
		if rapid.IntRange(0, 5).Draw(t, "hostIP") == 0 {
			h.HostIP = "none"
		}
		if rapid.IntRange(0, 3).Draw(t, "offline") == 0 {
			h.Status.Conditions = []metav1.Condition{{Type: v1.ConditionOnline, Status: metav1.ConditionFalse}}
		}
		in.hostSubnets = append(in.hostSubnets, h)
	}
	in.pods = localPods(drawPods(t), nil)
	return in
}

// drawPods are this node's pods as the API has them.
func drawPods(t *rapid.T) []corev1.Pod {
	var pods []corev1.Pod
	for i := range rapid.IntRange(0, 6).Draw(t, "pods") {
		pods = append(pods, pod(fmt.Sprintf("pod%d", i), fmt.Sprintf("10.244.1.%d", rapid.IntRange(5, 8).Draw(t, "ip")),
			func(p *corev1.Pod) {
				p.Namespace = fmt.Sprintf("ns%d", rapid.IntRange(0, 4).Draw(t, "namespace"))
				if rapid.Bool().Draw(t, "IPv6") {
					p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: fmt.Sprintf("fd00::%d", rapid.IntRange(5, 8).Draw(t, "IPv6 address"))})
				}
				p.CreationTimestamp = at(rapid.IntRange(0, 3).Draw(t, "created"))
				if rapid.Bool().Draw(t, "deleted") {
					d := at(9)
					p.DeletionTimestamp = &d
				}
			}))
	}
	return pods
}

// TestPropertyNoPodThatRequestsGoesByItself: whatever the objects, an address of
// a pod whose namespace requests egress IPs is never left to the node's own
// rules; what leaves here leaves with an address that is hosted here and that
// the namespace requests; and the order of the objects means nothing. Mutant
// drop-is-node fails here as it does in TestStateOf.
func TestPropertyNoPodThatRequestsGoesByItself(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		in := drawInput(t)
		d, ok := decide(in)
		if !ok {
			t.Fatal("the node's address is known, and nothing was decided")
		}
		requests := map[string][]string{}
		for _, n := range in.netNamespaces {
			requests[n.Name] = n.EgressIPs
		}
		owners := map[netip.Addr]string{}
		for _, p := range podsOf(in.pods) {
			owners[p.IP] = p.Namespace
		}
		hosted := map[netip.Addr]bool{}
		for _, h := range d.state.Hosted {
			hosted[h.IP] = true
		}
		told := map[netip.Addr]bool{}
		for _, p := range d.state.Pods {
			told[p.IP] = true
			wants := requests[owners[p.IP]]
			switch p.Kind {
			case dataplane.Node:
				if len(wants) > 0 {
					t.Fatalf("pod %v requests %v and goes with the node's address", p.IP, wants)
				}
			case dataplane.Local:
				if !hosted[p.EgressIP] || !slices.Contains(wants, p.EgressIP.String()) {
					t.Fatalf("pod %v requests %v and leaves with %v; hosted are %v", p.IP, wants, p.EgressIP, d.state.Hosted)
				}
			case dataplane.Remote:
				if len(wants) == 0 || len(p.Via) == 0 || slices.Contains(p.Via, d.state.HostIP) {
					t.Fatalf("pod %v requests %v and goes over %v", p.IP, wants, p.Via)
				}
			case dataplane.Drop, dataplane.Refuse:
			}
		}
		for ip, namespace := range owners {
			if len(requests[namespace]) > 0 && !told[ip] {
				t.Fatalf("the kernel is told nothing of pod %v, which requests %v", ip, requests[namespace])
			}
		}
		if ownHostSubnet(in.hostSubnets, in.node) == nil && len(d.state.Hosted) > 0 {
			t.Fatalf("no HostSubnet claims anything for this node, and it hosts %v", d.state.Hosted)
		}

		slices.Reverse(in.netNamespaces)
		slices.Reverse(in.hostSubnets)
		slices.Reverse(in.pods)
		again, _ := decide(in)
		if diff := diffState(d.state, again.state); diff != "" {
			t.Fatalf("another order of objects, another state:\n%s", diff)
		}
	})
}
