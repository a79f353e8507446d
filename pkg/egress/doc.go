// Package egress is the brain: it decides which host has which egress IP and
// where each pod's traffic goes, and does nothing else.
//
// It is pure. There is no I/O, clock, log, metric or goroutine here; every
// function takes values and returns values, and the same objects give the same
// answer whatever the order in which they are listed or were changed:
//
// A Memo gives the same answers faster, by remembering the last ones.
//
//	API objects --Snapshot--> Cluster, []Problem
//	Cluster --Resolve--> Resolution      who has which egress IP, and why not
//	Cluster --Allocate--> Allocation     which claims automatic hosts should have
//	Cluster, Resolution --PlanFor--> Plan    what one host's kernel must do
//
// All values are immutable once returned and may be shared between goroutines.
package egress
