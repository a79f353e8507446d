// Package endpoint serves metrics and health over HTTP. Neither is a reason to stop: if a
// port is taken, a warning is logged, and the port is tried again until it is free.
//
// Metrics may be served over HTTPS to clients with a bearer token: the API server says
// whose it is (TokenReview) and whether it may get /metrics (SubjectAccessReview). Other
// paths are served there as well, each to clients that may get it. That is
// what controller-runtime's package metrics/filters does too. It is not used, because it
// imports k8s.io/apiserver, and with that CEL, gRPC gateways and OpenTelemetry: 23 modules
// and 8.8 MB (17 %) of a program that runs on every node, for two requests.
//
// A server ends with the context of its manager. All types are safe for concurrent use.
package endpoint
