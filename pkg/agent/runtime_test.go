package agent

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/internal/testenv/objects"
	"github.com/egressip-operator/egressip-operator/pkg/cri"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane"
)

// sandboxOf is what the runtime knows of the pod of that name, since n.
func sandboxOf(name, ip string, n int) cri.Pod {
	return cri.Pod{
		Namespace: "shop", Name: name, UID: "uid-" + name,
		Addresses: []netip.Addr{testenv.Addr(ip)}, CreatedAt: at(n).Add(time.Millisecond),
	}
}

func TestLocalPods(t *testing.T) {
	t.Parallel()
	nowhere := func(p *corev1.Pod) {
		p.Status = corev1.PodStatus{Phase: corev1.PodPending}
	}
	for _, c := range []struct {
		name      string
		pods      []corev1.Pod
		sandboxes []cri.Pod
		want      []string // address and pod
	}{
		{"no runtime", []corev1.Pod{pod("a", "10.244.1.5")}, nil, []string{"10.244.1.5 a"}},
		{"the API has no address yet", []corev1.Pod{pod("a", "", nowhere)}, []cri.Pod{sandboxOf("a", "10.244.1.5", 1)}, []string{"10.244.1.5 a"}},
		{"the API's watch lags behind the runtime", nil, []cri.Pod{sandboxOf("a", "10.244.1.5", 1)}, []string{"10.244.1.5 a"}},
		{"both know it", []corev1.Pod{pod("a", "10.244.1.5")}, []cri.Pod{sandboxOf("a", "10.244.1.5", 1)}, []string{"10.244.1.5 a"}},
		{
			"its sandbox was made again",
			[]corev1.Pod{pod("a", "10.244.1.5")},
			[]cri.Pod{sandboxOf("a", "10.244.1.6", 4)},
			[]string{"10.244.1.5 a", "10.244.1.6 a"},
		},
		{
			"the address had another owner, which the API still has as running",
			// b waited for its node, so that it is the older of the two.
			[]corev1.Pod{pod("a", "10.244.1.5", func(p *corev1.Pod) { p.CreationTimestamp = at(3) }), pod("b", "", nowhere)},
			[]cri.Pod{sandboxOf("b", "10.244.1.5", 4)},
			[]string{"10.244.1.5 b"},
		},
		{
			"the API says that it has ended", []corev1.Pod{pod("a", "10.244.1.5", func(p *corev1.Pod) {
				p.Status.Phase, p.Status.ContainerStatuses = corev1.PodSucceeded, terminated(1)
			})}, []cri.Pod{sandboxOf("a", "10.244.1.5", 1)}, nil,
		},
		{
			"the API says that it is in the node's network",
			[]corev1.Pod{pod("a", "10.1.8.11", func(p *corev1.Pod) { p.Spec.HostNetwork = true })},
			[]cri.Pod{sandboxOf("a", "10.1.8.11", 1)},
			nil,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(c.want, owners(localPods(c.pods, c.sandboxes))); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func owners(pods []localPod) []string {
	var lines []string
	for _, p := range podsOf(pods) {
		lines = append(lines, fmt.Sprintf("%v %s", p.IP, p.Name))
	}
	return lines
}

// TestPropertyTheRuntimeKnowsNewPods: whatever the API has, lags behind with, or
// does not have, an address belongs to the pod whose sandbox came up with it last,
// unless the API says that this pod has ended; what no sandbox has is the API's
// to say; order means nothing; and nothing of what was given is changed. Mutants:
// the claim of a pod that has ended is not left out; a sandbox is passed over
// where the API has an address of its pod already.
func TestPropertyTheRuntimeKnowsNewPods(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		pods := drawPods(t)
		over := map[string]bool{}
		for i := range pods {
			p := &pods[i]
			switch rapid.IntRange(0, 3).Draw(t, "what the API has") {
			case 0:
				p.Status.PodIP, p.Status.PodIPs, p.Status.Phase = "", nil, corev1.PodPending
			case 1:
				p.Status.Phase, p.Status.ContainerStatuses = corev1.PodFailed, terminated(1)
				over[string(p.UID)] = true
			}
		}
		var sandboxes []cri.Pod
		last := map[netip.Addr]string{} // the UID of the latest sandbox
		for i := range rapid.IntRange(0, 5).Draw(t, "sandboxes") {
			n := rapid.IntRange(0, 8).Draw(t, "pod")
			// A pod of the API was made before its sandbox, and before any
			// sandbox that has its address after it.
			s := sandboxOf(fmt.Sprintf("pod%d", n), fmt.Sprintf("10.244.1.%d", rapid.IntRange(5, 8).Draw(t, "ip")), 4+i)
			s.Namespace = fmt.Sprintf("ns%d", rapid.IntRange(0, 4).Draw(t, "namespace"))
			sandboxes = append(sandboxes, s)
			if !over[s.UID] {
				last[s.Addresses[0]] = s.UID
			}
		}
		// One that is being deleted gives way to all others, which the
		// runtime does not know of any pod.
		given := slices.Clone(pods)
		got := podsOf(localPods(pods, sandboxes))
		if diff := cmp.Diff(given, pods); diff != "" {
			t.Fatalf("the API's pods were changed: %s", diff)
		}
		of := map[netip.Addr]string{}
		for _, p := range got {
			of[p.IP] = p.UID
		}
		for _, p := range podsOf(localPods(pods, nil)) {
			if _, has := last[p.IP]; !has && of[p.IP] != p.UID {
				t.Fatalf("%v is of %q; the API says of %q", p.IP, of[p.IP], p.UID)
			}
			delete(of, p.IP)
		}
		for _, p := range got {
			if uid, has := last[p.IP]; has && p.UID != uid {
				t.Fatalf("%v is of %q; the latest sandbox with it is of %q", p.IP, p.UID, uid)
			}
			delete(last, p.IP)
			if _, has := of[p.IP]; has && over[p.UID] {
				t.Fatalf("%v is of %q, which has ended", p.IP, p.UID)
			}
		}
		if len(last) > 0 {
			t.Fatalf("of no pod: %v", last)
		}
		slices.Reverse(pods)
		slices.Reverse(sandboxes)
		if diff := cmp.Diff(got, podsOf(localPods(pods, sandboxes)), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
			t.Fatalf("the order decides: %s", diff)
		}
	})
}

// TestNewPodHasItsPathBeforeTheAPIHasItsAddress: what the runtime alone knows
// takes the way of its namespace.
func TestNewPodHasItsPathBeforeTheAPIHasItsAddress(t *testing.T) {
	t.Parallel()
	in := input{
		node: "node1", strict: true,
		netNamespaces: []v1.NetNamespace{objects.NetNamespace("shop", 17, "10.1.8.200")},
		hostSubnets: []v1.HostSubnet{
			hostSubnet("node1", "10.1.8.11", "10.244.1.0/24"),
			hostSubnet("node2", "10.1.8.12", "10.244.2.0/24", "10.1.8.200"),
		},
		pods: localPods(nil, []cri.Pod{sandboxOf("new", "10.244.1.5", 1)}),
	}
	d, ok := decide(in)
	if !ok {
		t.Fatal("nothing was decided")
	}
	want := []dataplane.Pod{{IP: testenv.Addr("10.244.1.5"), Kind: dataplane.Remote, NetID: 17, Via: []netip.Addr{testenv.Addr("10.1.8.12")}, Sources: []netip.Addr{testenv.Addr("10.1.8.200")}}}
	if diff := cmp.Diff(want, d.state.Pods, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestStrictSparesUnmanagedPods: pods of a namespace without NetNamespace leave with
// the node's address, as while the operator is being installed; traffic of those
// whose NetNamespace is unusable is dropped, and so is that of a pod that only the
// runtime has, whose NetNamespace may just not be here yet. Mutant:
// runtime-only-is-unmanaged.
func TestStrictSparesUnmanagedPods(t *testing.T) {
	t.Parallel()
	unreadable := objects.NetNamespace("broken", 0xffffffff, "10.1.8.200")
	in := input{
		node: "node1", strict: true,
		netNamespaces: []v1.NetNamespace{unreadable, objects.NetNamespace("shop", 17, "10.1.8.200")},
		hostSubnets:   []v1.HostSubnet{hostSubnet("node1", "10.1.8.11", "10.244.1.0/24")},
	}
	var pods []corev1.Pod
	for i, namespace := range []string{"broken", "new", "shop"} {
		pods = append(pods, pod(namespace, fmt.Sprintf("10.244.1.%d", 5+i), func(p *corev1.Pod) {
			p.Namespace, p.UID = namespace, types.UID(namespace)
		}))
	}
	pending := pod("pending", "", func(p *corev1.Pod) { p.Namespace, p.UID = "new", "uid-pending" })
	pods = append(pods, pending)
	unheard, heard := sandboxOf("unheard", "10.244.1.8", 1), sandboxOf("pending", "10.244.1.9", 1)
	unheard.Namespace, heard.Namespace = "new", "new"
	in.pods = localPods(pods, []cri.Pod{unheard, heard})
	left := []netip.Addr{testenv.Addr("10.244.1.6"), testenv.Addr("10.244.1.9")}
	d, ok := decide(in)
	if !ok {
		t.Fatal("nothing was decided")
	}
	if !d.state.Strict || len(d.state.Subnets) != 1 {
		t.Fatalf("strict %v in %v", d.state.Strict, d.state.Subnets)
	}
	var got []netip.Addr
	for _, p := range d.state.Pods {
		if p.Kind == dataplane.Node {
			got = append(got, p.IP)
		}
	}
	if !slices.Equal(got, left) {
		t.Errorf("left alone are %v, want %v; all: %v", got, left, d.state.Pods)
	}
}
