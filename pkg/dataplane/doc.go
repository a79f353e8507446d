// Package dataplane makes the kernel of one host equal to a value, State.
//
// It is the only code of the project that touches the kernel, and it knows no
// Kubernetes. It decides nothing about egress IPs: it encodes a State as an overlay
// device, tc programs, BPF maps, policy routes, addresses, and packet filter rules with
// their sets: in nftables tables of our own, or in iptables and ipsets.
//
// The package decides and orders; below it is a driver for each kind of kernel
// object, and rules has the content of the packet filter. A pass of Apply:
//
//	prepare    sets and uplink                       apply_round.go
//	observe    what is ours in the kernel            inventory.go
//	aim        State -> kernel as it should be       apply_aim.go, apply_target.go
//	order      the changes, as a sorted list         apply_order.go
//	perform    make them, leave out what depends     apply_perform.go
//	           on a failure
//
// Invariants: no packet of a pod leaves with a source other than the one that the
// present State, or the one before, gives it, at any moment and whatever fails. A
// restarted process needs no memory: what is ours is recognised by the marks that
// the inventory lists. What is not ours is never changed.
//
// A Dataplane may be used by several goroutines; Apply runs one at a time. Run is
// the only method that works in the background, until its context ends.
package dataplane
