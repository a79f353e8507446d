// Package tracer follows packets through a kernel that is a value.
//
// A [Host] is what packets meet on one host: iptables rules as text, in the form
// in which iptables-save prints them, ipsets, the maps of the overlay's tc
// programs, policy routes. [Host.Forward] takes a packet through it and says
// what becomes of it. Tests that draw hosts and packets at random can so check
// every packet at every moment, thousands of times a second, without root; that
// the real kernel does the same is what the packet tests of package dataplane
// show.
//
// The tracer interprets what is given to it, and does not know what the rules
// are for: it imports nothing of the dataplane, so that a mistake there cannot
// hide in the tracer.
//
// # What it knows
//
//   - Hooks: PREROUTING and FORWARD of mangle, FORWARD of filter, POSTROUTING of
//     nat for the first packet of a connection, in each iptables backend. Table
//     raw is not walked: the caller gives each packet's tracking state.
//   - Matches: -i -o -s -d -p --dport --tcp-flags --ctdir --ctstate --ctstatus
//     --mark (packet and connection) --match-set, and their negations.
//   - Targets: chains, ACCEPT DROP REJECT RETURN SNAT MASQUERADE SET MARK
//     CONNMARK NOTRACK TCPMSS.
//   - After the rules: source NAT by connection, the program at the overlay that
//     drops what has no route there, and what it chooses.
//
// It takes a TCP packet that opens a tracked connection (state NEW) for one with
// SYN alone. Untracked and invalid packets have a Conn too, which should be new;
// so a negated --ctstatus matches them and CONNMARK works on them, other than in
// the kernel: rules that are right here do not rely on its leaving them alone. The
// program at the uplink is not modelled, so that the rules must do without it.
//
// # What it stops at
//
// Any other word in a rule that a packet meets, and a set that the Host does not
// have, is an error, never a match that is ignored.
//
// # How to extend it
//
// A match is a case in parseMatch, a target a case in (*Host).act; give each a line
// in the table of TestMatches or TestTargets. Another kind of kernel object is a
// field of Host and a step in Forward.
//
// A Host may be used by one goroutine at a time.
package tracer
