// Package online decides which hosts are online: it turns what is known about a
// host into a verdict, and what a host knows about its peers into the question
// whether it is cut off itself.
//
// It is pure: values in, values out. There is no clock, I/O, log or goroutine
// here, and only the standard library is imported.
//
// # A host dies
//
// With the default numbers of pkg/probe, counted from the moment of death:
//
//	0.2-0.7 s  Controllers and the agents that watch the host miss three probes in
//	           a row. Agents use another egress IP for their own pods, where the
//	           namespace has one. Its witnesses report it as silent (Ballot).
//	+ ms       The leader counts the reports (Count). With its own probes they are
//	           the Evidence on which Judge takes the host offline (ReasonSilent).
//	           The verdict is published as condition Online, which all nodes follow.
//	+ ms       The claims of an automatic host are released, then claimed for
//	           other hosts.
//	1.0 s      The host itself, if it is cut off rather than dead, has reached
//	           neither the API server nor most of its peers for a second
//	           (Isolation): it withdraws its egress IPs.
//	40 s       The Node becomes Ready=Unknown. Only a host without a verdict of
//	           probes depends on that (ReasonNodeUnreachable).
//
// When the host answers again it is held down for two seconds or more
// (ReasonHeldDown). It serves earlier only for namespaces that no other host can
// serve (ReasonLastResort).
//
// # Invariants
//
//   - Probes alone take a host offline only if the controller's probes and more
//     than half of its living witnesses agree.
//   - Probes alone never take a namespace's last way: a host that they find silent while
//     its Node is Ready is doubtful, and is used where no other can be.
//   - A host that answers probes is not offline because its Node is silent or not Ready.
//   - A host whose Node is unreachable is given nothing more: its agent may not
//     learn of it.
//   - A host that is cut off withdraws by itself, and returns only when the API
//     server has confirmed what it owns. A majority of peers cannot confirm that.
//
// # Users
//
// controllers gathers Evidence for each host and publishes the verdicts.
// pkg/agent reports Ballots and follows Isolation. pkg/egress takes verdicts as
// input for its decisions, and decides which hosts watch which (Watched, Panels) and which
// hosts end their hold-down early (LastResort), because both depend on which
// namespaces use which hosts.
//
// Values are not changed once returned, and may be shared between goroutines.
package online
