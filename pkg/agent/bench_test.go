package agent

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/testenv/objects"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// BenchmarkDecide is what one change of any object costs each node of a large
// cluster: 1,000 nodes, 10,000 namespaces, every second with two egress IPs, and
// 250 pods on this node.
func BenchmarkDecide(b *testing.B) {
	in, changes := input{node: "node0"}, 0
	online := []metav1.ConditionStatus{metav1.ConditionTrue, metav1.ConditionFalse}
	for n := range 1000 {
		h := hostSubnet(fmt.Sprintf("node%d", n), fmt.Sprintf("10.0.%d.%d", 16+n/250, 1+n%250), fmt.Sprintf("10.%d.%d.0/24", 100+n/250, n%250))
		for i := range 10 {
			h.EgressIPs = append(h.EgressIPs, fmt.Sprintf("10.1.%d.%d", (10*n+i)/250, 1+(10*n+i)%250))
		}
		h.UID, h.ResourceVersion = "uid", "1"
		in.hostSubnets = append(in.hostSubnets, h)
	}
	for n := range 10_000 {
		nn := objects.NetNamespace(fmt.Sprintf("ns%d", n), uint32(100+n))
		if n%2 == 0 {
			for _, i := range []int{n, (n + 5001) % 10_000} {
				nn.EgressIPs = append(nn.EgressIPs, fmt.Sprintf("10.1.%d.%d", i/250, 1+i%250))
			}
		}
		nn.UID, nn.ResourceVersion = "uid", "1"
		in.netNamespaces = append(in.netNamespaces, nn)
	}
	var pods []corev1.Pod
	for n := range 250 {
		pods = append(pods, pod(fmt.Sprintf("pod%d", n), fmt.Sprintf("10.100.0.%d", 1+n), func(p *corev1.Pod) {
			p.Namespace = fmt.Sprintf("ns%d", n)
		}))
	}
	in.pods = localPods(pods, nil)
	if d, ok := decide(in); !ok || len(d.state.Hosted) == 0 || len(d.state.Pods) != 250 {
		b.Fatalf("decided %t, hosted %d, pods %d", ok, len(d.state.Hosted), len(d.state.Pods))
	}
	for name, memo := range map[string]*egress.Memo{"first": nil, "next": new(egress.Memo)} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			in.memo = memo
			for b.Loop() {
				changes++
				in.hostSubnets[7].ResourceVersion = fmt.Sprint(changes)
				in.hostSubnets[7].Status.Conditions = []metav1.Condition{{Type: v1.ConditionOnline, Status: online[changes%2]}}
				decide(in)
			}
		})
	}
}
