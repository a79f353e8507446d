// Package agent makes the kernel of one node do what the cluster's objects ask.
//
// It runs on every node and joins the two halves that know nothing of each
// other, the brain (pkg/egress) and the kernel (pkg/dataplane):
//
//	caches --gather--> egress.Objects --Snapshot, Resolve, PlanFor--> egress.Plan
//	      egress.Plan --stateOf--> dataplane.State --Apply--> dataplane.Report
//	                               Report --statusOf--> HostSubnet.status
//
// Invariants:
//
//   - Nothing is changed in the kernel before every cache has synced: an agent
//     that knows half of the cluster would take half of the rules away.
//   - The state of the objects and of the kernel decides, never the order of
//     events. An event says only that it is time for another pass.
//   - One pass runs at a time.
//   - An API server that cannot be reached changes nothing in the kernel: the
//     caches stay as they were and keep being applied.
//   - Ending the agent removes nothing: traffic flows on while it is upgraded.
//
// Of the HostSubnet of its node, and of no other object, the agent writes the
// status: observedGeneration, agent, egressIPs and the condition AgentReady, by
// server-side apply as field manager "egressip-agent". The rest of the status
// belongs to the controller.
//
// Concurrency: one goroutine runs the passes, one writes the status, one
// listens to the kernel; informers call in from theirs. They meet in channels
// of capacity one and in two small structures with a mutex.
package agent
