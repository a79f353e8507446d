// Package probe finds out which hosts are online.
//
// Each agent runs a Responder on its host IP, and a Prober for the hosts that it
// watches: the hosts of its pods' egress IPs, those whose witness it is, and, on an
// egress host, its own witnesses (egress.Watched). Each controller, whether it leads
// or not, runs a Prober for all egress hosts and their witnesses
// (egress.ProbedHosts).
//
// Probes are UDP from host IP to host IP, inside the overlay where the host answers there
// (Target.Overlay): then the kernel of that host answers, in the way that package bpf of
// the data plane describes. Other hosts are asked directly, and their Responder answers.
//
//	Prober --Question--> Responder        schedule: which host when, what became of it
//	       <--Answer----                  Tracker:  outcomes -> Health of each host -> View
//	       <--ICMP port unreachable--     (the kernel of a host without an agent)
//
//	Runner: keeps a Prober, and a Responder beside it in agents, running
//
// # How a host is judged
//
// With DefaultConfig; every number can be changed.
//
//	outcome of a probe           consequence
//	answer "ready" in time       online; all earlier failures are forgotten
//	no answer within 100 ms      suspect; the third in a row: offline
//	answer "not ready"           counts as a missed probe; the second: offline
//	answer "away", or ICMP       the host is up, its agent is not: online for a minute, in which
//	port unreachable             its data plane works on as the agent left it; then offline
//	answer "ready" after 100 ms  prevents offline by silence, but does not help a host return
//	another instance answers     the agent was restarted: not a failure
//
// An offline host is online again after three answers "ready" in a row, but not
// until 2 s after it went offline. Each time it goes offline within two minutes of
// a return, that hold-down doubles, up to a minute: a flapping host is moved away
// from at most once a minute.
//
// A dead host is offline within Config.DetectionTime (three intervals, one
// timeout, and 4 ms for batching: 704 ms). A host that dies while its agent is
// down takes Config.RefusalHold longer. A prober that was not scheduled in time (a
// busy processor, a paused machine) reads the answers that have arrived before it
// judges.
//
// View.Isolated reports that the prober itself is probably cut off. The package
// reports and does not act: only its callers know whether the API server can be
// reached, and what a wrong move costs.
//
// # What cannot mark a host offline
//
// The only input is the outcome of a probe. Traffic is not observed, so a
// destination outside the cluster that never answers says nothing about the egress
// host on the way there. The health of a host is a function of its own outcomes:
// other hosts have no influence.
//
// # Trust
//
// A responder answers only the addresses of hosts, each a hundred times a second.
// It listens on the host IP alone. Questions and answers have the same length, and
// answers are not answered: nothing can be amplified, and two responders cannot be
// set on each other. An answer holds no secret (an agent is here, its data plane
// works), so there is no shared key to distribute and rotate.
//
// A prober accepts an answer that repeats the 64 random bits of an open question
// and comes from the address, port and host name that the question was sent to. The
// same holds for refusals: ICMP quotes the question. So only a machine on the path
// can forge an answer, and such a machine can drop or rewrite the overlay's packets
// as well.
//
// An address proves a host only as far as forged ones are kept out: a pod's
// packet to a host's probe port may leave with its node's address after a CNI's
// masquerade. The data plane drops forwarded packets to the probe port, as it does
// for the overlay's. Hence the controller probes from the host network, or not at
// all.
//
// # Compared with OpenShift SDN
//
// There, agents and the controller connect to TCP port 9 of a host, and count a
// refusal as alive. Judgements on the same outcomes:
//
//	three failures in a row         same: offline at the third, not before; there in 9 to 20 s
//	"no route to host"              same: a missed probe
//	failures with successes between better: a success resets them; there they add up over weeks
//	one success when offline        better: three, and a hold-down; there one, and the host flaps
//	refused                         same for a host that is online, for a minute; a refusal does
//	                                not bring a host back: nothing programs its data plane
//	host taken out while others     same or better: no host's probes wait for another's
//	are probed
//	silent outside destination      same: no influence
//	Node not Ready                  the controller's own rule; agents decide by probes alone
//	list emptied, host still dead   better: its health is kept for two minutes
//
// # Concurrency
//
// Tracker, Config.Next and the schedule have no clock, no I/O and no goroutines.
// A Prober has three goroutines while Run runs: one sends, one receives, one
// calls OnChange, without holding a lock; several changes may be one call. A
// Responder has one. A Runner has one besides those of its Prober and Responder.
// All end with Run's ctx.
package probe
