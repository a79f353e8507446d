// Package overlay makes the VXLAN device that carries egress traffic between
// hosts.
//
// The device is ours if it has our name and external metadata; another device of
// that name is an error, and is never changed. Which packets go there, and where
// it sends them, is decided elsewhere, by routes and tc programs. The package
// keeps no state; the netlink handle and the calling thread must be in the same
// network namespace.
package overlay
