// Package bpf keeps the tc programs and their maps.
//
// Two programs at the overlay device decide where a packet goes (outward), and
// which egress IP it gets (inward); they read and write the maps, which are pinned
// so that they outlive the process:
//
//	egress_pods     pod -> network, egress hosts     written here, read outward
//	egress_hosted   network -> mark                  written here, read inward
//	egress_returns  pod elsewhere -> network, host   written inward, read outward
//	egress_flows    connection -> egress host        written and read outward
//
// Each is there for IPv4 and, with a 6 behind its name, for IPv6, where that is asked for; the
// programs have a part for each family. Hosts in them are of one family, that of the outer
// packets; see Shape. A third program, the guard, stands at the uplink and
// has maps of its own. The package
// knows what the programs do, and not why a pod has a route. Maps, Programs and
// Guard hold file handles until Close; one goroutine at a time may use each.
package bpf
