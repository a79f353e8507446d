// Package conformance compares this project with OpenShift SDN: it plays
// scenarios that are stored as data, with the outcome that OpenShift SDN's own
// logic gave, and reports every difference.
//
// The corpus is testdata/conformance.json; the environment variable CONFORMANCE
// names another file in the same format, by its absolute path. Its readingGuide
// says what the words mean. Each scenario is played twice: against pkg/egress
// as pure functions, and against a real API server with the controller running;
// what a node's interface and packet filter must be, on the real kernel
// (package kernel). A scenario that we answer otherwise on purpose stands in
// docs/compatibility.md, under the heading Deviations, with the reason.
package conformance
