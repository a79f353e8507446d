// Package neigh speaks to the neighbours on a device's segment, by ARP and by neighbour
// discovery: it
// announces addresses that have moved here, and finds out who else has them.
//
// It changes nothing on the host, and does not know which addresses the host has.
// An Announcer may be used by several goroutines; it works as long as the caller
// lets Run run. Sockets are opened in the network namespace of the calling thread.
package neigh
