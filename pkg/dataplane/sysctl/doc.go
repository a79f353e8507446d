// Package sysctl reads settings of the network namespace below /proc/sys, and changes
// those of devices by netlink: /proc/sys is read-only in containers.
//
// It keeps no state; the calling thread's network namespace counts.
package sysctl
