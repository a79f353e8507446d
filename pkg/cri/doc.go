// Package cri asks a node's container runtime which pods have which addresses.
//
// The runtime knows a pod's address before the pod's first container is made,
// and thus before the pod's first packet; the API server learns it from the
// kubelet when that container runs already.
//
// Invariants:
//
//   - It only reads: ListPodSandbox and PodSandboxStatus, no other call.
//   - It reports the runtime's last complete reply. While a runtime cannot be
//     reached, that stays true enough: no pod gets an address without it.
//   - A sandbox that is not READY, or uses the node's own network, is not a pod.
//
// Not every runtime reports events, and those that do lose them. So the list is
// polled: fast for a moment after a new link came up in the kernel, as each pod's
// does, and slowly otherwise.
//
// Concurrency: Run has two goroutines: one polls, one listens to the kernel. Pods
// may be called from any.
package cri
