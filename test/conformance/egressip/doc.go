// Package egressip compares this project with the peers that serve EgressIPs of k8s.ovn.org/v1:
// it plays cases that are stored as data, with the peers' answers, and reports every difference.
//
// The cases are in testdata, by subject; testdata/README.md says where they come from, what their
// words mean, and what of the peers' tests is not in them, and why. Each is played on the brain, as
// pure functions, and on a real API server with the controller.
//
//	step --merge patch--> Cluster --Brain, or API server--> egress.Objects --Look--> State
//	                                                                                   |
//	                         Expect of the peer, with Ours in its place where we differ +--> wrong
//
// Both players hand objects to Look, which decides for each node as its agent does, and follows
// what a pod sends to the source with which it leaves.
//
// A case that we answer otherwise on purpose says so, with the reason, and is listed in
// docs/compatibility.md under the heading "Deviations from OVN-Kubernetes". Where we give the
// peer's answer after all, the test fails, too.
//
// Concurrency: cases are only read; a player plays one case at a time.
package egressip
