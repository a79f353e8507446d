package v1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	networkv1 "github.com/egressip-operator/egressip-operator/api/v1"
)

// LabelEgressAssignable on a Node, with any value, lets the controller assign egress IPs of
// EgressIPs to it.
const LabelEgressAssignable = "k8s.ovn.org/egress-assignable"

// EgressIP gives egress IPs to the pods that it selects, in any number of namespaces. The
// controller assigns each address to another Node that has the label
// k8s.ovn.org/egress-assignable, and in whose network it is; connections are spread over all.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,path=egressips,singular=egressip,shortName=eip
// +kubebuilder:subresource:status
// +kubebuilder:metadata:annotations="egressip.network.openshift.io/served-by=egressip-operator"
// +kubebuilder:printcolumn:name="EgressIPs",type=string,JSONPath=`.spec.egressIPs[*]`,description="The egress IPs that are requested"
// +kubebuilder:printcolumn:name="Assigned Node",type=string,JSONPath=`.status.items[*].node`,description="The nodes that have them"
// +kubebuilder:printcolumn:name="Assigned EgressIPs",type=string,JSONPath=`.status.items[*].egressIP`,description="The egress IPs that nodes have"
// +kubebuilder:printcolumn:name="Ready",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="EgressReady")].status`,description="Whether traffic leaves with the egress IPs"
// +kubebuilder:printcolumn:name="Reason",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="EgressReady")].reason`,description="Why, or why not"
type EgressIP struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is what is requested.
	Spec EgressIPSpec `json:"spec"`
	// status is what has become of it, as the controller sees it.
	// +optional
	Status EgressIPStatus `json:"status,omitzero"`
}

// EgressIPSpec is what is requested.
type EgressIPSpec struct {
	// egressIPs are the addresses with which the traffic of the selected pods leaves the
	// cluster: bare IPv4 and IPv6 addresses, each of which is assigned to another node. IPv4
	// traffic leaves with those of IPv4, IPv6 traffic with those of IPv6. If there are none of
	// one family, its traffic is dropped, unless annotation
	// egressip.network.openshift.io/other-family says otherwise. Annotations
	// egressip.network.openshift.io/include-cidrs and exclude-cidrs say to which destinations
	// they apply.
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:items:MaxLength=64
	// +kubebuilder:validation:items:XValidation:rule="isIP(self)",messageExpression="'\"' + self + '\" is no egress IP: give a bare IPv4 or IPv6 address, such as 192.168.7.200 or 2001:db8:7::200, without prefix length or zone, and IPv4 not in the form of IPv6'",message="give a bare IPv4 or IPv6 address, such as 192.168.7.200 or 2001:db8:7::200, without prefix length or zone, and IPv4 not in the form of IPv6"
	// +kubebuilder:validation:XValidation:rule="oldSelf.orValue([]) == self || [self.filter(x, isIP(x)).map(x, ip(x))].all(ips, ips.all(x, ips.indexOf(x) == ips.lastIndexOf(x)))",optionalOldSelf=true,messageExpression="'\"' + self.filter(x, self.indexOf(x) != self.lastIndexOf(x))[0] + '\" is listed more than once: list each egress IP once'",message="list each egress IP once, in one form"
	EgressIPs []string `json:"egressIPs"`

	// namespaceSelector selects namespaces by their labels; an empty one selects all.
	NamespaceSelector metav1.LabelSelector `json:"namespaceSelector"`

	// podSelector selects, of the pods in these namespaces, those that have the egress IPs, by
	// their labels. An empty one selects all.
	// +optional
	PodSelector metav1.LabelSelector `json:"podSelector,omitzero"`
}

// EgressIPList is a list of EgressIPs.
//
// +kubebuilder:object:root=true
type EgressIPList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []EgressIP `json:"items"`
}

// EgressIPStatus is written by the controller.
type EgressIPStatus struct {
	// observedGeneration is the generation that this status is about.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// items are the egress IPs that nodes have for the selected pods, in the order of the
	// request. It is empty as long as none is assigned.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=256
	Items []EgressIPStatusItem `json:"items,omitzero"`

	// netid identifies the selected pods on the overlay: 0 to 16777215. No NetNamespace and no
	// other EgressIP has the same. The controller chooses it.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=16777215
	NetID *uint32 `json:"netid,omitempty"`

	// selectors are those that select the pods: the ones of the spec, or as long as one of these
	// cannot be used, those before.
	// +optional
	Selectors *Selectors `json:"selectors,omitempty"`

	// egressIPs holds the state of each requested address, in the order of the request.
	// +optional
	// +listType=map
	// +listMapKey=ip
	// +kubebuilder:validation:MaxItems=256
	EgressIPs []networkv1.RequestStatus `json:"egressIPs,omitempty"`

	// conditions holds EgressReady: the traffic of the selected pods leaves with an egress IP.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=32
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// Selectors select pods; see EgressIPSpec.
type Selectors struct {
	// namespaceSelector selects namespaces.
	NamespaceSelector metav1.LabelSelector `json:"namespaceSelector"`
	// podSelector selects pods in them.
	PodSelector metav1.LabelSelector `json:"podSelector"`
}

// EgressIPStatusItem is an egress IP that a node has.
type EgressIPStatusItem struct {
	// egressIP is the address.
	EgressIP string `json:"egressIP"`
	// node is the name of the Node.
	Node string `json:"node"`
}

// ID returns the netid; false if it has none yet.
func (e *EgressIP) ID() (netID uint32, ok bool) {
	if e.Status.NetID == nil {
		return 0, false
	}
	return *e.Status.NetID, true
}
