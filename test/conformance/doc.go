// Package conformance compares this project with OpenShift SDN: it plays
// scenarios that are stored as data, with the outcome of OpenShift SDN's own
// logic, and reports every difference.
//
// The corpus is testdata/conformance.json; the environment variable CONFORMANCE
// names another file in the same format, by its absolute path. Its readingGuide
// says what the words mean.
//
// Each scenario is played by every [Player] that it is for: pkg/egress as pure
// functions, for the cluster or for one node; a real API server with the controller
// running; and the real kernel of one node (package kernel). A word that does not
// apply to a player is reported with the reason. A word that the format does not have
// fails its scenario, with the step and the field, and no other. testdata also has two
// small corpora written by hand: every-word.json uses each word, and each scenario of
// unknown-words.json has one that is unknown.
//
// The scenarios about whole clusters are also played in IPv6 ([InIPv6]), with the same outcomes.
//
// A scenario that we answer otherwise on purpose is listed in docs/compatibility.md,
// under the heading Deviations, with the reason.
//
// Concurrency: a corpus is only read; a driver plays one scenario at a time.
package conformance
