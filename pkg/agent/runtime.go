package agent

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/egressip-operator/egressip-operator/pkg/cri"
)

// podFromRuntime converts a pod of the container runtime.
func podFromRuntime(pod cri.Pod) localPod {
	return localPod{
		source: fromRuntime, namespace: pod.Namespace, name: pod.Name, uid: pod.UID,
		labels: pod.Labels, addresses: pod.Addresses, created: pod.CreatedAt,
	}
}

// localPods returns the API's pods and, in addition, what the container runtime
// knows of the node's pods: a pod that the API has without its address yet, or no
// longer has at all, still has the address of its sandbox. It is pure.
//
//	API \ runtime   sandbox READY        none
//	not there       the runtime's pod    -
//	no address      both                 the API's pod, which podsOf skips
//	address         both                 the API's pod
//	ended           the API's pod        the API's pod
//
// Where it is both, each has its own claim to its address: a pod whose sandbox
// was recreated has another address than the API says. A claim of the runtime
// is as old as the sandbox, so that it succeeds whoever had the address before.
func localPods(pods []corev1.Pod, sandboxes []cri.Pod) []localPod {
	merged := make([]localPod, 0, len(pods)+len(sandboxes))
	over := make(map[string]bool)
	for i := range pods {
		p := podFromAPI(&pods[i])
		if p.hostNetwork || p.ended {
			over[p.uid] = true
		}
		merged = append(merged, p)
	}
	for _, s := range sandboxes {
		if !over[s.UID] {
			merged = append(merged, podFromRuntime(s))
		}
	}
	return merged
}
