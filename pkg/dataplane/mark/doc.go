// Package mark divides the packet mark (skb->mark): the bits that belong to us,
// and what they mean.
//
// All rules and programs set and match these bits alone, so that kube-proxy,
// CNIs and others keep theirs. The package is pure: it touches no kernel.
package mark
