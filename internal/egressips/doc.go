// Package egressips finds out whether the EgressIPs of a cluster, k8s.ovn.org/v1, are ours to
// serve, and reads them.
//
// Invariants:
//
//   - Where the CustomResourceDefinition is another software's, such as OVN-Kubernetes', nothing
//     is read, and that is logged.
//   - Until the API server has answered, nothing is known: whoever decides must wait.
//   - A definition that appears later is found within a minute. One that was ours is not looked
//     at again.
//
// Concurrency: Start has one goroutine; the other methods may be called from any.
package egressips
