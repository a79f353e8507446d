// Package traffic has pods send to the bastion without end, and reports the sender
// of each packet that arrives there.
//
// Each namespace has a port of the bastion to itself, so that the namespace of a
// packet without payload, such as a SYN, is known too. A payload names the pod and
// its node. A pod sends the line of a connection only after the bastion's answer has
// reached it: a line means an answered connection.
//
// Concurrency: a Watch calls back on one goroutine of its own, in the order of
// arrival; its other methods may be called by any.
package traffic
