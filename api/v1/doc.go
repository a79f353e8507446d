// Package v1 holds the API of OpenShift SDN's egress IPs, network.openshift.io/v1,
// as objects that any Kubernetes cluster can serve.
//
// The kinds keep OpenShift's names and top-level fields, so that YAML taken
// from an OpenShift cluster applies unchanged. Both gain what OpenShift never
// had: a status subresource that says what was made of the fields, and why.
//
// The package imports apimachinery alone, so that clients can use it cheaply.
//
// +kubebuilder:object:generate=true
// +groupName=network.openshift.io
package v1
