// Package probe finds out which hosts are online.
//
// Each agent runs a Responder on its host IP. Each agent runs a Prober for the
// hosts that its pods' egress IPs are on, and the leading controller for all
// automatic hosts. Probes take the way of the overlay: UDP from host IP to host
// IP.
//
//	Prober --Question--> Responder        schedule: which host when, what became of it
//	       <--Answer----                  Tracker:  outcomes -> Health of each host -> View
//	       <--ICMP port unreachable--     (the kernel of a host without an agent)
//
// # How a host is judged
//
// With DefaultConfig; every number can be changed.
//
//	outcome of a probe           what follows
//	answer "ready" in time       online; forgets all failures before it
//	no answer within 100 ms      suspect; the third in a row: offline
//	answer "not ready"           as a missed probe; the second: offline
//	ICMP port unreachable        the host lives without an agent: online for a minute, in which
//	                             its data plane works on as the agent left it; then offline
//	answer "ready" after 100 ms  not offline by silence; no help on the way back either
//	another instance answers     the agent was restarted: information, no failure
//
// An offline host is online again after three answers "ready" in a row, and 2 s
// after it went offline at the earliest. Each time that it falls within two
// minutes of a return, that time doubles, up to a minute: a host that comes and
// goes is moved away from at most once a minute.
//
// A dead host is offline within Config.DetectionTime (three intervals, one
// timeout, and 4 ms for work in groups: 704 ms). A host that dies while its
// agent is away takes Config.RefusalHold longer. A prober that was not running
// in time (a busy processor, a paused machine) first reads what has arrived, and
// judges then.
//
// View.Isolated tells that the prober itself is probably cut off. The package
// tells and does not act: only the callers know whether the API server can be
// reached, and what a wrong move costs.
//
// # What cannot mark a host
//
// The only input is the outcome of a probe. Traffic is not looked at, so that a
// destination outside the cluster that never answers says nothing about the
// host on the way there. Health of one host is a function of that host's
// outcomes: others have no influence.
//
// # Who is answered, who is believed
//
// A responder answers the addresses of hosts, a hundred times a second each, and
// nobody else. It listens on the host IP alone. Question and answer have the same
// length, and answers are not answered: nothing can be amplified, and no two
// responders can be set on each other. What an answer tells (an agent is here,
// its data plane works) is no secret; there is no shared key to be distributed
// and renewed.
//
// A prober believes who repeats the 64 random bits of a question that is open,
// from the address, port and host name that it was sent to. The same holds for
// refusals: ICMP quotes the question. So only who sits on the path can forge,
// and who sits there can drop or rewrite the overlay's packets as well.
//
// An address proves a host only as far as forged ones are kept out: a pod's
// packet to a host's probe port may leave with its node's address after a CNI's
// masquerade. The data plane drops forwarded packets to the probe port, as to the
// overlay's. Hence the controller probes from the host network, or not at all.
//
// # Compared with OpenShift SDN
//
// There, agents and the controller connect to TCP port 9 of a host: a refusal is
// life. Judgements on the same outcomes:
//
//	three failures in a row         alike: offline at the third, not before; there in 9 to 20 s
//	"no route to host"              alike: a missed probe
//	failures with successes between better: a success forgets them; there they add up over weeks
//	one success when offline        better: three, and a hold-down; there one, and the host flaps
//	refused                         alike for a host that is online, for a minute; a refusal
//	                                does not bring a host back: nobody programs its data plane
//	host taken out while others     alike or better: no host's probes wait for another's
//	are probed
//	silent outside destination      alike: no influence
//	Node not Ready                  the controller's own rule; agents decide by probes alone
//	list emptied, host still dead   better: its health is kept for two minutes
//
// # Concurrency
//
// Tracker, Config.Next and the schedule have no clock, no I/O and no goroutines.
// A Prober has three goroutines while Run runs: one sends, one receives, one
// calls OnChange, without a lock and with any number of changes in one call. A
// Responder has one. All end with Run's ctx.
package probe
