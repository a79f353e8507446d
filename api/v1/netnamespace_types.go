package v1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// MaxNetID is the greatest netid: netids are 24 bits wide, as a VXLAN network
// identifier is.
const MaxNetID = 1<<24 - 1

// NetNamespace says which egress IPs the Namespace of the same name requests.
// The controller creates and deletes it with its Namespace; users change
// egressIPs. One that a user creates may leave out everything else.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,path=netnamespaces,singular=netnamespace
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="NetID",type=integer,JSONPath=`.netid`,description="The network identifier number assigned to the namespace"
// +kubebuilder:printcolumn:name="Egress IPs",type=string,JSONPath=`.egressIPs`,description="The egress IPs that the namespace requests, in order of preference"
// +kubebuilder:printcolumn:name="Active IP",type=string,priority=1,JSONPath=`.status.active.ip`,description="The egress IP that the namespace's traffic leaves with now"
// +kubebuilder:printcolumn:name="Host",type=string,priority=1,JSONPath=`.status.active.host`,description="The host of the active egress IP"
// +kubebuilder:printcolumn:name="Active IPv6",type=string,priority=1,JSONPath=`.status.activeIPs[?(@.family=="IPv6")].ip`,description="The egress IP that the namespace's IPv6 traffic leaves with now"
// +kubebuilder:printcolumn:name="IPv6 Host",type=string,priority=1,JSONPath=`.status.activeIPs[?(@.family=="IPv6")].host`,description="The host of the active egress IP of IPv6"
// +kubebuilder:printcolumn:name="Reason",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="EgressReady")].reason`,description="Why the namespace has or lacks a ready egress IP"
// +kubebuilder:validation:XValidation:rule="!has(self.netname) || self.netname == self.metadata.name",fieldPath=".netname",messageExpression="'\"' + self.netname + '\" is not the name of the object: give \"' + self.metadata.name + '\", the name of the Namespace'",message="netname must equal metadata.name, the name of the Namespace"
type NetNamespace struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// netname is the name of the Namespace; it equals metadata.name. The
	// controller fills it in.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	NetName string `json:"netname,omitempty"`

	// netid identifies the namespace on the overlay: 0 to 16777215, unique
	// among namespaces with egress IPs. If it is left out, the controller
	// chooses one as soon as the Namespace exists.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=16777215
	NetID *uint32 `json:"netid,omitempty"`

	// egressIPs are the addresses that the namespace requests for its traffic
	// out of the cluster, in order of preference: bare IPv4 and IPv6 addresses. IPv4 traffic
	// leaves with those of IPv4, IPv6 traffic with those of IPv6. If there are none of one
	// family, its traffic is dropped, unless annotation
	// egressip.network.openshift.io/other-family says otherwise. Without any, traffic leaves
	// with the node's address. Annotations egressip.network.openshift.io/include-cidrs and
	// exclude-cidrs say to which destinations they apply.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:items:MaxLength=64
	// +kubebuilder:validation:items:XValidation:rule="isIP(self)",messageExpression="'\"' + self + '\" is no egress IP: give a bare IPv4 or IPv6 address, such as 192.168.7.200 or 2001:db8:7::200, without prefix length or zone, and IPv4 not in the form of IPv6'",message="give a bare IPv4 or IPv6 address, such as 192.168.7.200 or 2001:db8:7::200, without prefix length or zone, and IPv4 not in the form of IPv6"
	// +kubebuilder:validation:XValidation:rule="oldSelf.orValue([]) == self || [self.filter(x, isIP(x)).map(x, ip(x))].all(ips, ips.all(x, ips.indexOf(x) == ips.lastIndexOf(x)))",optionalOldSelf=true,messageExpression="'\"' + self.filter(x, self.indexOf(x) != self.lastIndexOf(x))[0] + '\" is listed more than once: list each egress IP once'",message="list each egress IP once, in one form"
	EgressIPs []string `json:"egressIPs,omitempty"`

	// status is the result of the request, as the controller sees it.
	// +optional
	Status NetNamespaceStatus `json:"status,omitzero"`
}

// ID returns the netid; false if it has none yet. 0 is a netid like any other.
func (n *NetNamespace) ID() (netID uint32, ok bool) {
	if n.NetID == nil {
		return 0, false
	}
	return *n.NetID, true
}

// NetNamespaceList is a list of NetNamespaces.
//
// +kubebuilder:object:root=true
type NetNamespaceList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []NetNamespace `json:"items"`
}

// NetNamespaceStatus is written by the controller.
type NetNamespaceStatus struct {
	// observedGeneration is the generation that this status is about.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// active is the assignment that traffic uses now. It is absent if the
	// namespace requests nothing, or if its traffic is dropped. In mode balanced,
	// which uses several, it is the first of them. Of a namespace with egress IPs of both
	// families it is that of IPv4, if there is one.
	// +optional
	Active *Assignment `json:"active,omitempty"`

	// activeIPs are all assignments that traffic uses now, those of IPv4 first. They are
	// there for a namespace that requests IPv6 egress IPs.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	ActiveIPs []Assignment `json:"activeIPs,omitempty"`

	// egressIPs holds the state of each requested address, in the order of the
	// request.
	// +optional
	// +listType=map
	// +listMapKey=ip
	// +kubebuilder:validation:MaxItems=256
	EgressIPs []RequestStatus `json:"egressIPs,omitempty"`

	// conditions holds EgressReady: the namespace's traffic leaves with an egress
	// IP.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=32
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// Assignment is a request and a claim that match.
type Assignment struct {
	// ip is the egress IP.
	IP string `json:"ip"`
	// host is the HostSubnet that claims it.
	Host string `json:"host"`
	// family is FamilyIPv4 or FamilyIPv6. It is set in activeIPs only.
	// +optional
	Family string `json:"family,omitempty"`
}

// RequestStatus is the state of one requested egress IP.
type RequestStatus struct {
	// ip is the address as requested.
	IP string `json:"ip"`
	// host is the HostSubnet that claims the address; empty if none does.
	// +optional
	Host string `json:"host,omitempty"`
	// state is the state of the request.
	State EgressIPState `json:"state"`
	// reason is a machine-readable word, the same that events and conditions use.
	// +optional
	Reason string `json:"reason,omitempty"`
	// message says what is wrong, if anything, and what to do about it.
	// +optional
	Message string `json:"message,omitempty"`
}

// EgressIPState is the state of an egress IP that is requested or claimed.
//
// +kubebuilder:validation:Enum=Active;Standby;Unassigned;HostOffline;Conflict;Invalid
type EgressIPState string

// The states of an egress IP.
const (
	// StateActive: the namespace's traffic leaves with this address now.
	StateActive EgressIPState = "Active"
	// StateStandby: assigned to an online host; an earlier address is active.
	StateStandby EgressIPState = "Standby"
	// StateUnassigned: no host claims the address, or no namespace requests it.
	StateUnassigned EgressIPState = "Unassigned"
	// StateHostOffline: the host that claims the address is offline.
	StateHostOffline EgressIPState = "HostOffline"
	// StateConflict: two namespaces, or two hosts, or one namespace twice on
	// one host; no host has the address.
	StateConflict EgressIPState = "Conflict"
	// StateInvalid: the address cannot be an egress IP.
	StateInvalid EgressIPState = "Invalid"
)

// Annotations that change how a NetNamespace or Node is handled.
const (
	// AnnotationMode on a NetNamespace chooses how several egress IPs are
	// used: ModeOrdered (the default) or ModeBalanced.
	AnnotationMode = "egressip.network.openshift.io/mode"
	// ModeOrdered uses the first egress IP in the list whose host is online,
	// as OpenShift SDN did up to 4.7.
	ModeOrdered = "ordered"
	// ModeBalanced spreads connections over all egress IPs whose hosts are
	// online, as OpenShift SDN did from 4.8 on.
	ModeBalanced = "balanced"
	// AnnotationFailBack on a NetNamespace in mode ordered says what happens when the host of an
	// egress IP that is earlier in the list can be used again: FailBackAlways (the default) or
	// FailBackNever.
	AnnotationFailBack = "egressip.network.openshift.io/fail-back"

	// AnnotationGateways on a NetNamespace or an EgressIP lists gateways, at most one of each
	// family, separated by commas: by these its egress IPs leave networks of hosts' other
	// interfaces than the uplink, where the routes of the host name no gateway.
	AnnotationGateways = "egressip.network.openshift.io/gateways"
	// FailBackAlways: the namespace goes back to the earlier one.
	FailBackAlways = "always"
	// FailBackNever: it keeps the egress IP that it uses, as its status says, until that
	// cannot be used, so that connections are cut once and not twice.
	FailBackNever = "never"
	// AnnotationOtherFamily on a NetNamespace that requests egress IPs of one family only,
	// IPv4 or IPv6, says what becomes of the other: OtherFamilyDropped (the default) or
	// OtherFamilyNode.
	AnnotationOtherFamily = "egressip.network.openshift.io/other-family"
	// OtherFamilyDropped: traffic of the other family to the outside is dropped, so that
	// the namespace has no address outside but its egress IPs.
	OtherFamilyDropped = "dropped"
	// OtherFamilyNode: it leaves with the node's address, as without egress IPs.
	OtherFamilyNode = "node"
	// AnnotationExcludeCIDRs on a NetNamespace or an EgressIP lists networks outside, as CIDRs or
	// addresses with commas between them, to which pods send as if they had no egress IPs.
	AnnotationExcludeCIDRs = "egressip.network.openshift.io/exclude-cidrs"
	// AnnotationIncludeCIDRs lists networks outside to which pods send with their egress IPs, and to
	// no others. Of the networks of both annotations that an address is in, the most specific one
	// counts.
	AnnotationIncludeCIDRs = "egressip.network.openshift.io/include-cidrs"
	// AnnotationNodeUID on a HostSubnet is the UID of the Node that it belongs
	// to, as OpenShift SDN wrote it. A HostSubnet without it and without a Node
	// of its name belongs to an administrator and is left alone.
	AnnotationNodeUID = "pod.network.openshift.io/node-uid"
	// AnnotationNamespaceUID on a NetNamespace is the UID of the Namespace that
	// it belongs to, written by the controller. A NetNamespace without it and
	// without a Namespace of its name belongs to an administrator, who may have
	// restored it before its Namespace, and is left alone.
	AnnotationNamespaceUID = "egressip.network.openshift.io/namespace-uid"
	// AnnotationBoundUID on a NetNamespace or HostSubnet is the object's own UID,
	// written by the controller beside the UID of the owner. A copy that a backup
	// or another cluster brought has another UID, so the controller knows that it
	// did not bind that object, and does not delete it.
	AnnotationBoundUID = "egressip.network.openshift.io/bound-uid"
	// AnnotationChangeNetwork on a NetNamespace asks OpenShift SDN's
	// multitenant mode for another netid. The controller refuses and removes
	// it, as OpenShift SDN does in its other modes.
	AnnotationChangeNetwork = "pod.network.openshift.io/multitenant.change-network"
	// AnnotationClaimsWriter on a HostSubnet names the controller that may write
	// egressIPs of automatic hosts: the number of its term, a blank, and its name.
	// Each leader writes it before its first claim. Do not write it by hand.
	AnnotationClaimsWriter = "egressip.network.openshift.io/claims-writer"
	// AnnotationEvacuate on a Node, set to "true", moves the egress IPs of an
	// automatic host away one by one, and makes those of a manual host stand by
	// where the namespace has another. Removing it undoes that.
	AnnotationEvacuate = "egressip.network.openshift.io/evacuate"
)

// Types of conditions.
const (
	// ConditionEgressReady: on a NetNamespace, its traffic leaves with an
	// egress IP. On a HostSubnet, every claim is in order.
	ConditionEgressReady = "EgressReady"
	// ConditionAgentReady on a HostSubnet: its agent runs, and the kernel is
	// as planned. Written by that agent alone.
	ConditionAgentReady = "AgentReady"
	// ConditionOnline on a HostSubnet: the controller considers the host
	// online. It is Unknown if probes find the host silent while its Node is Ready. The
	// agents read it, so that all of them use the same verdict.
	ConditionOnline = "Online"
	// ConditionEvacuating on a HostSubnet is True while its Node has
	// AnnotationEvacuate. Written by the controller, and read by the agents.
	ConditionEvacuating = "Evacuating"
	// ConditionNodeGone on a HostSubnet is True since its Node is gone. Its claims
	// yield to those of other hosts meanwhile. Written by the controller, and read
	// by the agents.
	ConditionNodeGone = "NodeGone"
	// ConditionAddressInUse on a HostSubnet is True while another machine on the
	// segment has an egress IP that the host has, or should have; the message
	// names the addresses and the MAC addresses. It is False once that is over, and
	// missing if it never was so. Written by the host's agent.
	ConditionAddressInUse = "AddressInUse"
	// ConditionWarnings on a HostSubnet is True while something on the host, of other
	// software or a setting, weakens egress IPs or stops traffic there although the
	// kernel is as planned. The reason is that of the worst finding; the message has
	// all, one a line, each with its object and its remedy. Written by the host's agent.
	ConditionWarnings = "Warnings"
)
