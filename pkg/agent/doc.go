// Package agent makes the kernel of one node match what the cluster's objects ask
// for.
//
// It runs on every node and joins the two halves that know nothing of each
// other, the brain (pkg/egress) and the kernel (pkg/dataplane). It converts and
// carries out; it decides nothing about egress IPs itself:
//
//	caches, container runtime --gather--> input --egress.DecideHost--> egress.Plan
//	      Plan --stateOf--> dataplane.State --Apply--> dataplane.Report
//	                               Report --statusOf--> HostSubnet.status
//
// Invariants:
//
//   - Nothing in the kernel is changed before every cache has synced: an agent
//     that knows half of the cluster would remove half of the rules.
//   - The state of the objects and of the kernel decides, never the order of
//     events. An event only triggers another pass.
//   - One pass runs at a time.
//   - An API server that cannot be reached changes nothing in the kernel: the
//     caches stay as they were and keep being applied. The exception is a node
//     that reaches neither the API server nor most hosts: it gives up its egress
//     IPs, as other nodes may host them by then.
//   - Ending the agent removes nothing, so that traffic flows on during an upgrade,
//     unless its DaemonSet has been deleted: then it gives up the node's egress IPs.
//
// Of the HostSubnet of its node, and of no other object, the agent writes the
// status: observedGeneration, agent (with those of the hosts whose witness it is
// that do not answer), egressIPs and the conditions AgentReady, Warnings and
// AddressInUse, by server-side apply as field manager "egressip-agent". The rest of
// the status belongs to the controller.
//
// Concurrency: one goroutine each runs the passes, writes the status, listens to
// the kernel, checks whether the node is cut off, watches the DaemonSet of the
// agent, and keeps the probes and the source of sandboxes running, which have
// goroutines of their own; informers call in from theirs. They meet in channels of
// capacity one and in small structures with a mutex each (health, publisher, peers,
// isolation, owner). All end with the ctx of Run.
package agent
