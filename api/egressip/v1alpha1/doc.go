// Package v1alpha1 holds pools of egress IPs, egressip.network.openshift.io/v1alpha1: who may
// have an address is said once by an administrator, and teams ask for theirs.
//
// The package has only types and constants, and imports only apimachinery, so that clients can
// use it cheaply.
//
// +kubebuilder:object:generate=true
// +groupName=egressip.network.openshift.io
package v1alpha1
