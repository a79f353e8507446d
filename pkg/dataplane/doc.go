// Package dataplane makes the kernel of one host equal to a value, State.
//
// It is the only code of the project that touches the kernel, and it knows no
// Kubernetes. It decides nothing about egress IPs: it encodes what it is told
// as an overlay device, tc programs, BPF maps, ipsets, policy routes, iptables
// rules and addresses, in an order that never leaks a packet.
package dataplane
