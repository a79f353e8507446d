// Package sysctl reads and writes settings of the network namespace below
// /proc/sys.
//
// It keeps no state; the calling thread's network namespace counts.
package sysctl
