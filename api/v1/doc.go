// Package v1 holds the API of OpenShift SDN's egress IPs, network.openshift.io/v1,
// as custom resources of any Kubernetes cluster.
//
// The kinds keep OpenShift's names and top-level fields, so that YAML taken
// from an OpenShift cluster applies unchanged. Both gain what OpenShift never
// had: a status subresource that reports the result, and why.
//
// The package has only types and constants, and imports only apimachinery, so that
// clients can use it cheaply.
//
// +kubebuilder:object:generate=true
// +groupName=network.openshift.io
package v1
