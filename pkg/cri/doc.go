// Package cri asks a node's container runtime which pods have which addresses.
//
// The runtime knows a pod's address before the pod's first container is made,
// and thus before the pod's first packet; the API server learns it from the
// kubelet when that container runs already.
//
// Invariants:
//
//   - It only reads: ListPodSandbox and PodSandboxStatus, no other call.
//   - What it tells is the runtime's last whole answer. While a runtime cannot
//     be reached, that stays true enough: no pod gets an address without it.
//   - A sandbox that is not READY, or is in the node's own network, is no pod.
//
// Not every runtime tells of events, and those that do lose them. So the list is
// read again and again, quickly for a moment after a new link came up in the
// kernel, as each pod's does, and slowly otherwise.
//
// Concurrency: Run is one goroutine, with a second one that hears the kernel;
// Pods may be called from any.
package cri
