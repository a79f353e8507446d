// Package address adds egress IPs to the uplink, and deletes them.
//
// An address is ours if it has our label, "UPLINK:eip", or, of IPv6, our protocol number; no
// other address is ever changed. The package keeps no state; a netlink handle says which network
// namespace is meant. Settings of a device are read and written in the network
// namespace of the calling thread, which must be the same.
package address
