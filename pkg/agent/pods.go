package agent

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/egressip-operator/egressip-operator/pkg/cri"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// podSource is where a localPod comes from.
type podSource int

const (
	// fromAPI: the API server has the pod.
	fromAPI podSource = iota
	// fromRuntime: the container runtime has a sandbox of the pod.
	fromRuntime
)

// localPod is a pod of this node as one source describes it. The other source may
// describe the same pod.
type localPod struct {
	source               podSource
	namespace, name, uid string
	labels               labels.Set
	// addresses are its addresses of both families.
	addresses []netip.Addr
	// created is when the pod, or its sandbox, was created.
	created time.Time
	// hostNetwork: its addresses are those of the node.
	hostNetwork bool
	// terminating: it is being deleted.
	terminating bool
	// ended: no container of it can send any more.
	ended bool
	// hostIP is the node's address as the API's pod reports it; invalid if it
	// does not.
	hostIP netip.Addr
}

// podFromAPI converts a pod of the API. It does not change it.
func podFromAPI(pod *corev1.Pod) localPod {
	p := localPod{
		source: fromAPI, namespace: pod.Namespace, name: pod.Name, uid: string(pod.UID),
		labels: pod.Labels, addresses: addressesOf(pod), created: pod.CreationTimestamp.Time,
		hostNetwork: pod.Spec.HostNetwork, terminating: pod.DeletionTimestamp != nil, ended: ended(pod),
	}
	p.hostIP = hostIPFrom(pod)
	return p
}

// hostIPFrom returns the address of the pod's node that is its hostIP, as the pod reports it;
// invalid if it does not.
func hostIPFrom(pod *corev1.Pod) netip.Addr {
	var listed []netip.Addr
	add := func(text string) {
		if ip, err := netip.ParseAddr(text); err == nil {
			listed = append(listed, ip.Unmap())
		}
	}
	add(pod.Status.HostIP)
	for _, h := range pod.Status.HostIPs {
		add(h.IP)
	}
	if usable := egress.HostIPs(listed); len(usable) > 0 {
		return usable[0]
	}
	return netip.Addr{}
}

// podsOf returns the pods whose traffic needs a path: those with an
// address of their own that may still send. Where two claim one address, as
// when it was reused before the object of its former owner was gone, the later
// pod has it. The answer is in order of address.
func podsOf(pods []localPod) []egress.Pod {
	owners := make(map[netip.Addr]*localPod)
	// Not by UID: that of a static pod is another in the API.
	inAPI := make(map[types.NamespacedName]bool)
	for i := range pods {
		pod := &pods[i]
		if pod.source == fromAPI {
			inAPI[types.NamespacedName{Namespace: pod.namespace, Name: pod.name}] = true
		}
		if pod.hostNetwork || pod.ended {
			continue
		}
		for _, ip := range pod.addresses {
			if owner, taken := owners[ip]; !taken || succeeds(pod, owner) {
				owners[ip] = pod
			}
		}
	}
	answer := make([]egress.Pod, 0, len(owners))
	for ip, pod := range owners {
		answer = append(answer, egress.Pod{
			Namespace: pod.namespace, Name: pod.name, UID: pod.uid, IP: ip, Labels: pod.labels,
			RuntimeOnly: !inAPI[types.NamespacedName{Namespace: pod.namespace, Name: pod.name}],
		})
	}
	slices.SortFunc(answer, func(a, b egress.Pod) int { return a.IP.Compare(b.IP) })
	return answer
}

// addressesOf returns the pod's addresses.
func addressesOf(pod *corev1.Pod) []netip.Addr {
	var addresses []netip.Addr
	add := func(s string) {
		if ip, ok := cri.PodAddress(s); ok && !slices.Contains(addresses, ip) {
			addresses = append(addresses, ip)
		}
	}
	add(pod.Status.PodIP)
	for _, p := range pod.Status.PodIPs {
		add(p.IP)
	}
	return addresses
}

// ended reports whether no container of the pod can send any more, so that another
// pod may already have its address. A pod that is being deleted sends until its last
// container has ended, and a phase that something other than the kubelet wrote does
// not end a running container.
func ended(pod *corev1.Pod) bool {
	terminal := pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
	if !terminal && pod.DeletionTimestamp == nil {
		return false
	}
	runs := func(s corev1.ContainerStatus) bool { return s.State.Running != nil }
	if slices.ContainsFunc(pod.Status.ContainerStatuses, runs) ||
		slices.ContainsFunc(pod.Status.InitContainerStatuses, runs) ||
		slices.ContainsFunc(pod.Status.EphemeralContainerStatuses, runs) {
		return false
	}
	unended := func(s corev1.ContainerStatus) bool { return s.State.Terminated == nil }
	return terminal ||
		len(pod.Status.ContainerStatuses) > 0 && !slices.ContainsFunc(pod.Status.ContainerStatuses, unended)
}

// succeeds reports whether a rather than b has the address that both claim.
func succeeds(a, b *localPod) bool {
	if a.terminating != b.terminating {
		return b.terminating
	}
	if order := a.created.Compare(b.created); order != 0 {
		return order > 0
	}
	return cmp.Compare(a.uid, b.uid) > 0
}

// hostIPOf returns the node's own address as its pods report it, for the time
// in which its HostSubnet is missing.
func hostIPOf(pods []localPod) (netip.Addr, bool) {
	var newest *localPod
	for i := range pods {
		pod := &pods[i]
		if pod.hostIP.IsValid() && (newest == nil || succeeds(pod, newest)) {
			newest = pod
		}
	}
	if newest == nil {
		return netip.Addr{}, false
	}
	return newest.hostIP, true
}
