// Package controllers maintains the API objects: a NetNamespace for each Namespace, a
// HostSubnet for each Node, the claims of automatic hosts, and the status of all of
// them.
//
// It decides nothing about egress IPs. Each reconciler reads the caches, asks
// pkg/online and pkg/egress, and writes what differs:
//
//	reconciler     file             runs for         writes
//	netnamespaces  netnamespace.go  all at once      NetNamespaces: create, delete, owner
//	hostsubnets    hostsubnet.go    each Node        HostSubnets: create, delete, owner, host, hostIP, subnet
//	cluster        reconciler.go    all at once      claims of automatic hosts (allocate.go), verdicts
//
// What the status of each object should be is a value (status.go) that the cluster
// reconciler hands to the publisher (publisher.go), which writes it (status_write.go),
// and reports what changed by events (events.go).
//
// Only the leader reconciles and publishes. A standby watches the leader's host
// (leader_monitor.go), and takes the Lease of a leader whose host died (lease.go). Each
// controller probes egress hosts and their witnesses, whether it leads or not
// (probes.go). The leader picks the witnesses (panel.go). Claims have one writer, whatever
// the Lease says: the fence (fence.go, mark.go) keeps out all others.
//
// A decision of the cluster reconciler, or of the leader monitor, depends on one view
// (view.go) that the observer (observer.go) made. Caches lag behind the API: what
// the fence has listed, and what was written since, is added until they show it
// (assume_cache.go). So a claim that this controller, or the leader
// before it, has written is never overlooked when the next is made.
//
// Each reconciler has one worker, the publisher several. Shared between goroutines are
// only the caches, whose objects are never changed, the observer, the publisher, and the
// probes.
package controllers
