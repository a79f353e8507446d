// Package podlink reads which links of the host lead to which pods.
//
// A pod's link is the host's end of a veth pair whose other end is in the pod's network
// namespace. A CNI either routes the pod's address to it, or makes it a port of a bridge
// and routes the pods' network there. In the second case nothing on the host says which
// port a pod has: the kernel is asked for the addresses of the other end.
//
// The package only reads. What follows from it, it does not decide.
package podlink
