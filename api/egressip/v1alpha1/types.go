package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// EgressIPPool has addresses that the controller gives to EgressIPRequests.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,path=egressippools,singular=egressippool,shortName=eippool
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="CIDRs",type=string,JSONPath=`.spec.cidrs`,description="The addresses of the pool"
// +kubebuilder:printcolumn:name="Given",type=integer,JSONPath=`.status.given`,description="How many are given to requests"
// +kubebuilder:printcolumn:name="Kept",type=integer,JSONPath=`.status.kept`,description="How many are kept for requests that are gone"
// +kubebuilder:printcolumn:name="Refused",type=integer,JSONPath=`.status.refused`,description="How many requests have none"
type EgressIPPool struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec says which addresses the pool has, and which namespaces may have them.
	Spec EgressIPPoolSpec `json:"spec"`
	// status says how many of them are given.
	// +optional
	Status EgressIPPoolStatus `json:"status,omitzero"`
}

// EgressIPPoolSpec says which addresses the pool has, and which namespaces may have them.
type EgressIPPoolSpec struct {
	// cidrs are the addresses of the pool: IPv4 and IPv6 CIDRs without host bits, in canonical
	// form. They are given out in order, but for those that cannot be egress IPs.
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=64
	// +kubebuilder:validation:items:XValidation:rule="isCIDR(self) && self == string(cidr(self).masked())",messageExpression="'\"' + self + '\" is no range of egress IPs: give an IPv4 or IPv6 CIDR without host bits, such as 192.168.7.128/25, 192.168.7.9/32 or 2001:db8:7::100/120'",message="give an IPv4 or IPv6 CIDR without host bits, such as 192.168.7.128/25"
	CIDRs []string `json:"cidrs"`

	// namespaceSelector selects the namespaces that may have addresses of the pool, by their
	// labels. Without it, all may.
	// +optional
	NamespaceSelector *metav1.LabelSelector `json:"namespaceSelector,omitempty"`

	// nodeSelector restricts the Nodes that may have these addresses, of those with the label
	// k8s.ovn.org/egress-assignable, by their labels. Without it, all of these may.
	// +optional
	NodeSelector *metav1.LabelSelector `json:"nodeSelector,omitempty"`

	// gateways are the addresses of routers, at most one of each family, by which the pool's
	// addresses leave networks of Nodes' other interfaces than that with the Node's address, where
	// the Node's routes name no gateway.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=2
	// +kubebuilder:validation:items:MaxLength=64
	// +kubebuilder:validation:items:XValidation:rule="isIP(self)",messageExpression="'\"' + self + '\" is no gateway: give the address of a router, such as 172.16.5.1 or fe80::1, without zone'",message="give the address of a router, such as 172.16.5.1 or fe80::1, without zone"
	// +kubebuilder:validation:XValidation:rule="self.size() < 2 || !isIP(self[0]) || !isIP(self[1]) || ip(self[0]).family() != ip(self[1]).family()",message="give one gateway of each family at most"
	Gateways []string `json:"gateways,omitempty"`

	// perNamespace is the greatest number of requests of one namespace that are served.
	// Without it, there is no limit.
	// +optional
	// +kubebuilder:validation:Minimum=0
	PerNamespace *int32 `json:"perNamespace,omitempty"`
}

// EgressIPPoolStatus is written by the controller.
type EgressIPPoolStatus struct {
	// given is how many addresses requests have.
	// +optional
	Given int32 `json:"given"`
	// kept is how many addresses are kept for requests that are gone.
	// +optional
	Kept int32 `json:"kept"`
	// refused is how many requests have no address.
	// +optional
	Refused int32 `json:"refused"`
	// conditions holds Ready: the pool can be used.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=8
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// EgressIPPoolList is a list of EgressIPPools.
//
// +kubebuilder:object:root=true
type EgressIPPoolList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []EgressIPPool `json:"items"`
}

// EgressIPRequest asks for an address of a pool, one of each family that the pool has. The pods of
// its namespace, or those that podSelector selects, leave the cluster with it. The controller makes
// an EgressIP for it, named NAMESPACE.NAME, which gets the annotations mode, include-cidrs and
// exclude-cidrs of egressip.network.openshift.io that the request has.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Namespaced,path=egressiprequests,singular=egressiprequest,shortName=eipreq
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Pool",type=string,JSONPath=`.spec.pool`,description="The pool that is asked"
// +kubebuilder:printcolumn:name="Egress IPs",type=string,JSONPath=`.status.egressIPs`,description="The addresses that were given"
// +kubebuilder:printcolumn:name="Given",type=string,JSONPath=`.status.conditions[?(@.type=="Given")].status`,description="Whether the request has its addresses"
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Given")].reason`,description="Why, or why not"
// +kubebuilder:validation:XValidation:rule="self.metadata.name.size() <= 180",message="the name may have 180 characters: the EgressIP is named NAMESPACE.NAME"
type EgressIPRequest struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is what is asked for.
	Spec EgressIPRequestSpec `json:"spec"`
	// status is what was given.
	// +optional
	Status EgressIPRequestStatus `json:"status,omitzero"`
}

// EgressIPRequestSpec is what is asked for.
type EgressIPRequestSpec struct {
	// pool is the name of the EgressIPPool.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="the pool of a request cannot be changed: make another request"
	Pool string `json:"pool"`
	// podSelector selects the pods of the namespace that have the addresses, by their labels.
	// Without it, all have them.
	// +optional
	PodSelector metav1.LabelSelector `json:"podSelector,omitzero"`
}

// EgressIPRequestStatus is written by the controller.
type EgressIPRequestStatus struct {
	// egressIPs are the addresses that were given.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=2
	EgressIPs []string `json:"egressIPs,omitzero"`
	// conditions holds Given: the request has its addresses. The EgressIP of the request says
	// whether traffic leaves with them.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=8
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// EgressIPRequestList is a list of EgressIPRequests.
//
// +kubebuilder:object:root=true
type EgressIPRequestList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []EgressIPRequest `json:"items"`
}

// Annotations of EgressIPs that the controller makes for requests.
const (
	// AnnotationRequest names the request, as NAMESPACE/NAME.
	AnnotationRequest = "egressip.network.openshift.io/request"
	// AnnotationPool names its pool.
	AnnotationPool = "egressip.network.openshift.io/pool"
	// AnnotationAddresses are the addresses that were given, with commas between them. They are
	// kept for a while after the request is gone.
	AnnotationAddresses = "egressip.network.openshift.io/addresses"
	// AnnotationReleasedAt is since when the request is gone, in the form of RFC 3339.
	AnnotationReleasedAt = "egressip.network.openshift.io/released-at"
	// AnnotationFromRequest lists the annotations that the EgressIP has from its request, with commas
	// between them: mode, include-cidrs and exclude-cidrs of egressip.network.openshift.io.
	AnnotationFromRequest = "egressip.network.openshift.io/from-request"
)

// ConditionGiven on an EgressIPRequest: it has its addresses.
const ConditionGiven = "Given"

// ConditionReady on an EgressIPPool: it can be used.
const ConditionReady = "Ready"
