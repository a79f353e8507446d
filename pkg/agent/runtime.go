package agent

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/pkg/cri"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// withRuntime returns the API's pods and, beside them, what the container runtime
// knows of the node's pods: a pod that the API has without its address yet, or
// not at all any more, still has the address that its sandbox has. It is pure,
// and changes none of its arguments. What it adds has no node name, by which it
// is told from the API's pods.
//
//	API \ runtime   sandbox READY        none
//	not there       the runtime's pod    -
//	no address      both                 the API's pod, which podsOf passes over
//	address         both                 the API's pod
//	ended           the API's pod        the API's pod
//
// Where it is both, each has its own claim to its address: a pod whose sandbox
// was made anew has another address than the API tells. A claim of the runtime
// is as old as the sandbox, so that it succeeds whoever had the address before.
func withRuntime(pods []corev1.Pod, sandboxes []cri.Pod) []corev1.Pod {
	if len(sandboxes) == 0 {
		return pods
	}
	over := make(map[types.UID]bool)
	for i := range pods {
		if pods[i].Spec.HostNetwork || ended(&pods[i]) {
			over[pods[i].UID] = true
		}
	}
	merged := slices.Clone(pods)
	for _, s := range sandboxes {
		if over[types.UID(s.UID)] {
			continue
		}
		pod := corev1.Pod{ObjectMeta: metav1.ObjectMeta{
			Namespace: s.Namespace, Name: s.Name, UID: types.UID(s.UID),
			CreationTimestamp: metav1.NewTime(s.CreatedAt),
		}}
		for _, ip := range s.Addresses {
			pod.Status.PodIPs = append(pod.Status.PodIPs, corev1.PodIP{IP: ip.String()})
		}
		merged = append(merged, pod)
	}
	return merged
}

// leftAlone returns paths for the pods of namespaces that have no NetNamespace at
// all: with none there is no egress IP, and they leave as without us. Strict
// classification would cut them off while the operator is being installed, or
// for as long as no controller runs. A NetNamespace that cannot be read is one:
// its pods are nobody's, and so are pods that the runtime alone knows: where the
// API server is out of this agent's reach but not of the kubelet's, the
// NetNamespace of a new namespace may ask for egress IPs that are not known here.
func leftAlone(netNamespaces []v1.NetNamespace, known []corev1.Pod, pods []egress.Pod) []egress.PodPath {
	has := make(map[string]bool, 2*len(netNamespaces))
	for i := range netNamespaces {
		has[netNamespaces[i].Name] = true
		has[netNamespaces[i].NetName] = true
	}
	// Not by UID: that of a static pod is another in the API.
	inAPI := make(map[types.NamespacedName]bool, len(known))
	for i := range known {
		if known[i].Spec.NodeName != "" {
			inAPI[types.NamespacedName{Namespace: known[i].Namespace, Name: known[i].Name}] = true
		}
	}
	var paths []egress.PodPath
	for _, p := range pods {
		if !has[p.Namespace] && inAPI[types.NamespacedName{Namespace: p.Namespace, Name: p.Name}] {
			paths = append(paths, egress.PodPath{IP: p.IP, Kind: egress.PathNode})
		}
	}
	return paths
}
