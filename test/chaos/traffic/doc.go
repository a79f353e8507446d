// Package traffic makes pods talk to the bastion without end, and tells of each
// packet that arrives there whose it is.
//
// A namespace has a port of the bastion for itself, so that a packet without a
// payload, a SYN for instance, tells its namespace too. What has a payload names
// the pod and its node. A connection's line is sent only after the bastion's
// answer has reached the pod: it stands for an answered connection.
//
// Concurrency: a Watch calls back on one goroutine of its own, in the order of
// arrival; its other methods may be called by any.
package traffic
