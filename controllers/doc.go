// Package controllers keeps the API objects: a NetNamespace for each Namespace,
// a HostSubnet for each Node, the claims of automatic hosts, and the status of
// all of them.
//
// It decides nothing about egress IPs. Each job gathers what is in the caches,
// asks pkg/egress, and writes what differs:
//
//	job            file             runs for         writes
//	netnamespaces  netnamespace.go  all at once      NetNamespaces: create, delete, owner
//	hostsubnets    hostsubnet.go    each Node        HostSubnets: create, delete, host, hostIP, subnet, canonical claims
//	cluster        reconciler.go    all at once      claims of automatic hosts (allocate.go), status (status.go), events (events.go)
//
// Only the leader works. Its decisions rest on caches, which lag behind the
// API: before the first write of a term they are compared with it, and what was
// written since is laid over them until they show it (assume_cache.go). So a claim
// that this controller, or the leader before it, has written is never
// overlooked when the next is made.
//
// Each job has one worker; nothing is shared between jobs but the caches, whose
// objects nobody changes.
package controllers
