// Package v1 holds the API of OVN-Kubernetes' egress IPs, k8s.ovn.org/v1, as a custom resource
// of any Kubernetes cluster.
//
// The kind keeps the name, the fields and the columns that OpenShift's documentation shows, so
// that its YAML applies unchanged. It gains a status subresource that says why something is as
// it is. A cluster in which OVN-Kubernetes serves the kind itself keeps its own.
//
// The package has only types and constants, and imports only apimachinery and the types of
// network.openshift.io/v1, so that clients can use it cheaply.
//
// +kubebuilder:object:generate=true
// +groupName=k8s.ovn.org
package v1
