package agent

import (
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

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

// podsOf returns the pods whose traffic needs a path; see egress.OwnPods.
func podsOf(pods []localPod) []egress.Pod {
	seen := make([]egress.SeenPod, 0, len(pods))
	for i := range pods {
		seen = append(seen, pods[i].seen())
	}
	return egress.OwnPods(seen)
}

// seen converts the pod for the brain.
func (p *localPod) seen() egress.SeenPod {
	return egress.SeenPod{
		Namespace: p.namespace, Name: p.name, UID: p.uid, Labels: p.labels, Addresses: p.addresses, Created: p.created,
		HostNetwork: p.hostNetwork, Terminating: p.terminating, Ended: p.ended, FromRuntime: p.source == fromRuntime,
	}
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

// ended reports whether no container of the pod can send any more; see egress.PodLife.
func ended(pod *corev1.Pod) bool {
	runs := func(s corev1.ContainerStatus) bool { return s.State.Running != nil }
	unended := func(s corev1.ContainerStatus) bool { return s.State.Terminated == nil }
	return egress.PodLife{
		Terminal: pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed,
		Deleted:  pod.DeletionTimestamp != nil,
		Running: slices.ContainsFunc(pod.Status.ContainerStatuses, runs) ||
			slices.ContainsFunc(pod.Status.InitContainerStatuses, runs) ||
			slices.ContainsFunc(pod.Status.EphemeralContainerStatuses, runs),
		AllEnded: len(pod.Status.ContainerStatuses) > 0 && !slices.ContainsFunc(pod.Status.ContainerStatuses, unended),
	}.Ended()
}

// hostIPOf returns the node's own address as its pods report it, for the time
// in which its HostSubnet is missing.
func hostIPOf(pods []localPod) (netip.Addr, bool) {
	var newest *localPod
	for i := range pods {
		pod := &pods[i]
		if !pod.hostIP.IsValid() {
			continue
		}
		this, last := pod.seen(), egress.SeenPod{}
		if newest != nil {
			last = newest.seen()
		}
		if newest == nil || this.Succeeds(&last) {
			newest = pod
		}
	}
	if newest == nil {
		return netip.Addr{}, false
	}
	return newest.hostIP, true
}
