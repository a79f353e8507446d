// Package kernel plays the scenarios of the corpus that look at the interface
// and the packet filter of one node, on the real kernel: the brain decides, the
// dataplane carries out, as in the agent.
//
// Its tests need root. They run in a process with network and mount namespaces
// of its own, which the kernel takes away with it.
package kernel
