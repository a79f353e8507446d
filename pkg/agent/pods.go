package agent

import (
	"cmp"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// stripPod is a cache transform that keeps of a Pod what podsOf reads: a node
// holds hundreds of pods, and most of what describes them is of no use here.
func stripPod(obj any) (any, error) {
	pod, ok := obj.(*corev1.Pod)
	if !ok {
		return obj, nil // a tombstone of the informer
	}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:         pod.Namespace,
			Name:              pod.Name,
			UID:               pod.UID,
			ResourceVersion:   pod.ResourceVersion,
			CreationTimestamp: pod.CreationTimestamp,
			DeletionTimestamp: pod.DeletionTimestamp,
		},
		Spec: corev1.PodSpec{
			NodeName:    pod.Spec.NodeName,
			HostNetwork: pod.Spec.HostNetwork,
		},
		Status: corev1.PodStatus{
			Phase:                      pod.Status.Phase,
			HostIP:                     pod.Status.HostIP,
			PodIP:                      pod.Status.PodIP,
			PodIPs:                     pod.Status.PodIPs,
			InitContainerStatuses:      stripContainers(pod.Status.InitContainerStatuses),
			ContainerStatuses:          stripContainers(pod.Status.ContainerStatuses),
			EphemeralContainerStatuses: stripContainers(pod.Status.EphemeralContainerStatuses),
		},
	}, nil
}

// stripContainers keeps whether each container runs or has ended.
func stripContainers(statuses []corev1.ContainerStatus) []corev1.ContainerStatus {
	kept := make([]corev1.ContainerStatus, len(statuses))
	for i, s := range statuses {
		if s.State.Running != nil {
			kept[i].State.Running = &corev1.ContainerStateRunning{}
		}
		if s.State.Terminated != nil {
			kept[i].State.Terminated = &corev1.ContainerStateTerminated{}
		}
	}
	return kept
}

// podsOf returns the pods whose traffic needs a path: those with an IPv4
// address of their own that may still send. Where two claim one address, as
// when it was reused before the object of its former owner was gone, the later
// pod has it. The answer is in order of address.
func podsOf(pods []corev1.Pod) []egress.Pod {
	owners := make(map[netip.Addr]*corev1.Pod)
	for i := range pods {
		pod := &pods[i]
		if pod.Spec.HostNetwork || ended(pod) {
			continue
		}
		for _, ip := range addressesOf(pod) {
			if owner, taken := owners[ip]; !taken || succeeds(pod, owner) {
				owners[ip] = pod
			}
		}
	}
	answer := make([]egress.Pod, 0, len(owners))
	for ip, pod := range owners {
		answer = append(answer, egress.Pod{Namespace: pod.Namespace, Name: pod.Name, UID: string(pod.UID), IP: ip})
	}
	slices.SortFunc(answer, func(a, b egress.Pod) int { return a.IP.Compare(b.IP) })
	return answer
}

// addressesOf returns the pod's IPv4 addresses.
func addressesOf(pod *corev1.Pod) []netip.Addr {
	var addresses []netip.Addr
	add := func(s string) {
		ip, err := netip.ParseAddr(s)
		if err == nil && ip.Unmap().Is4() && !slices.Contains(addresses, ip.Unmap()) {
			addresses = append(addresses, ip.Unmap())
		}
	}
	add(pod.Status.PodIP)
	for _, p := range pod.Status.PodIPs {
		add(p.IP)
	}
	return addresses
}

// ended tells whether no container of the pod can send any more, so that its
// address may be somebody else's already. A pod that is being deleted sends
// until its last container has ended, and a phase that others than the kubelet
// wrote does not end a container that runs.
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

// succeeds tells whether a rather than b has the address that both claim.
func succeeds(a, b *corev1.Pod) bool {
	if going := b.DeletionTimestamp != nil; going != (a.DeletionTimestamp != nil) {
		return going
	}
	if order := a.CreationTimestamp.Compare(b.CreationTimestamp.Time); order != 0 {
		return order > 0
	}
	return cmp.Compare(a.UID, b.UID) > 0
}

// hostIPOf returns the node's own address as its pods report it, for the time
// in which its HostSubnet is missing.
func hostIPOf(pods []corev1.Pod) (netip.Addr, bool) {
	var newest *corev1.Pod
	for i := range pods {
		pod := &pods[i]
		if ip, err := netip.ParseAddr(pod.Status.HostIP); err != nil || !ip.Unmap().Is4() {
			continue
		}
		if newest == nil || succeeds(pod, newest) {
			newest = pod
		}
	}
	if newest == nil {
		return netip.Addr{}, false
	}
	return netip.MustParseAddr(newest.Status.HostIP).Unmap(), true
}
