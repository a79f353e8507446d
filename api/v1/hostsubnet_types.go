package v1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// HostSubnet says which egress IPs the Node of the same name claims, or from
// which ranges the controller may assign egress IPs to it. The controller
// creates it with its Node, and deletes it some time after its Node; users change
// egressIPs or egressCIDRs. One that a user creates may leave out everything else.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,path=hostsubnets,singular=hostsubnet
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Host",type=string,JSONPath=`.host`,description="The name of the node"
// +kubebuilder:printcolumn:name="Host IP",type=string,JSONPath=`.hostIP`,description="The IP address of the node"
// +kubebuilder:printcolumn:name="Subnet",type=string,JSONPath=`.subnet`,description="The CIDR range of the node's pods"
// +kubebuilder:printcolumn:name="Egress CIDRs",type=string,JSONPath=`.egressCIDRs`,description="The ranges from which egress IPs may be assigned to the node"
// +kubebuilder:printcolumn:name="Egress IPs",type=string,JSONPath=`.egressIPs`,description="The egress IPs that the node claims"
// +kubebuilder:printcolumn:name="Online",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Online")].status`,description="Whether the node takes egress traffic"
// +kubebuilder:printcolumn:name="Agent",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="AgentReady")].reason`,description="The state of the node's agent"
// +kubebuilder:printcolumn:name="Reason",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="EgressReady")].reason`,description="Why the node's egress IPs are or are not in order"
// +kubebuilder:printcolumn:name="Families",type=string,priority=1,JSONPath=`.status.agent.families`,description="The families of egress IPs that the node can have"
// +kubebuilder:printcolumn:name="Host IPs",type=string,priority=1,JSONPath=`.status.hostIPs`,description="The addresses of the node, of both families"
// +kubebuilder:printcolumn:name="IPv6 Networks",type=string,priority=1,JSONPath=`.status.ipv6Networks`,description="The IPv6 networks of the node's pods, and its IPv6 addresses"
// +kubebuilder:validation:XValidation:rule="!has(self.host) || self.host == self.metadata.name",fieldPath=".host",messageExpression="'\"' + self.host + '\" is not the name of the object: give \"' + self.metadata.name + '\", the name of the Node'",message="host must equal metadata.name, the name of the Node"
type HostSubnet struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// host is the name of the Node; it equals metadata.name. The controller
	// fills it in.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Host string `json:"host,omitempty"`

	// hostIP is the Node's internal address: the first of IPv4, or of a Node that has
	// none, the first global or unique local one of IPv6. Its egress IPs are added to
	// the interface that has this address, and other hosts reach it there by the overlay, if
	// theirs are of the same family. The controller fills it in when the
	// Node exists; until then the host has no egress IPs.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule="isIP(self) && (ip(self).family() == 4 || ip(self).isGlobalUnicast() && ip.isCanonical(self))",messageExpression="'\"' + self + '\" is no address of a node: give its bare address, such as 192.168.7.11 or, of a node without IPv4, fd00:7::11, in canonical form'",message="give the node's bare address, such as 192.168.7.11 or, of a node without IPv4, fd00:7::11, in canonical form"
	HostIP string `json:"hostIP,omitempty"`

	// subnet is the IPv4 CIDR of the Node's pods, from spec.podCIDR; it may be
	// empty where the CNI does not fill that field.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule="self == '' || (isCIDR(self) && cidr(self).ip().family() == 4 && self == string(cidr(self).masked()))",messageExpression="'\"' + self + '\" is no network of pods: give an IPv4 CIDR without host bits, such as 10.244.1.0/24, or leave it empty'",message="give an IPv4 CIDR without host bits, such as 10.244.1.0/24, or leave it empty"
	Subnet string `json:"subnet"`

	// egressIPs are the addresses that this host claims, of IPv4 and IPv6. On a host without
	// egressCIDRs, users set them; a value with a prefix length, such as
	// 192.168.7.200/24, is stored as the bare address. On a host with
	// egressCIDRs, the controller sets them. Those of IPv6 need an agent that serves them
	// (status.agent.families), and one of the uplink's networks (status.agent.uplinkNetworks).
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=512
	// +kubebuilder:validation:items:MaxLength=64
	// +kubebuilder:validation:items:XValidation:rule="isIP(self) || isCIDR(self)",messageExpression="'\"' + self + '\" is no egress IP: give an IPv4 or IPv6 address, such as 192.168.7.200, 192.168.7.200/24 or 2001:db8:7::200, without zone, and IPv4 not in the form of IPv6'",message="give an IPv4 or IPv6 address, such as 192.168.7.200, 192.168.7.200/24 or 2001:db8:7::200, without zone, and IPv4 not in the form of IPv6"
	// +kubebuilder:validation:XValidation:rule="oldSelf.orValue([]) == self || [self.filter(x, isIP(x) || isCIDR(x)).map(x, isIP(x) ? ip(x) : cidr(x).ip())].all(ips, ips.all(x, ips.indexOf(x) == ips.lastIndexOf(x)))",optionalOldSelf=true,messageExpression="[self.map(x, x.split('/')[0])].map(ips, ips.filter(x, !ips.exists_one(y, x == y))[0])[0] + ' is listed more than once: list each egress IP once, with or without prefix length'",message="list each egress IP once, in one form, with or without prefix length"
	EgressIPs []string `json:"egressIPs,omitempty"`

	// assignedEgressIPs are the addresses of EgressIPs (k8s.ovn.org/v1) that this host has, in
	// addition to egressIPs. The controller sets them.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=512
	// +kubebuilder:validation:items:MaxLength=64
	AssignedEgressIPs []string `json:"assignedEgressIPs,omitempty"`

	// egressCIDRs are the ranges from which the controller may assign egress
	// IPs to this host: IPv4 and IPv6 CIDRs without host bits, in canonical form.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:items:MaxLength=64
	// +kubebuilder:validation:items:XValidation:rule="isCIDR(self)",messageExpression="'\"' + self + '\" is no range of egress IPs: give an IPv4 or IPv6 CIDR without host bits, such as 192.168.7.128/25 or 2001:db8:7::100/120'",message="give an IPv4 or IPv6 CIDR without host bits, such as 192.168.7.128/25 or 2001:db8:7::100/120"
	// +kubebuilder:validation:items:XValidation:rule="!isCIDR(self) || self == string(cidr(self).masked())",messageExpression="'\"' + self + '\" has host bits, or is not in canonical form: give the network\\'s first address, such as 192.168.7.128/25 or 2001:db8:7::100/120'",message="give an IPv4 or IPv6 CIDR without host bits, such as 192.168.7.128/25 or 2001:db8:7::100/120"
	// +kubebuilder:validation:XValidation:rule="oldSelf.orValue([]) == self || self.all(x, self.indexOf(x) == self.lastIndexOf(x))",optionalOldSelf=true,messageExpression="'\"' + self.filter(x, self.indexOf(x) != self.lastIndexOf(x))[0] + '\" is listed more than once: list each range once'",message="list each range once"
	EgressCIDRs []string `json:"egressCIDRs,omitempty"`

	// status is what the controller and the host's agent observe. Each writes
	// its own fields, by server-side apply.
	// +optional
	Status HostSubnetStatus `json:"status,omitzero"`
}

// AllEgressIPs are egressIPs and assignedEgressIPs. The result may share memory with the object.
func (h *HostSubnet) AllEgressIPs() []string {
	if len(h.AssignedEgressIPs) == 0 {
		return h.EgressIPs
	}
	return append(append(make([]string, 0, len(h.EgressIPs)+len(h.AssignedEgressIPs)), h.EgressIPs...), h.AssignedEgressIPs...)
}

// HostSubnetList is a list of HostSubnets.
//
// +kubebuilder:object:root=true
type HostSubnetList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []HostSubnet `json:"items"`
}

// HostSubnetStatus has two writers. The host's own agent writes
// observedGeneration, agent, egressIPs and the conditions AgentReady, Warnings and
// AddressInUse; the controller writes placement, hostIPs, ipv6Networks,
// foundNetworks, witnesses and the conditions EgressReady,
// Online, Evacuating and NodeGone.
type HostSubnetStatus struct {
	// observedGeneration is the generation that the agent has applied to the
	// kernel.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// agent describes the host's agent.
	// +optional
	Agent *AgentStatus `json:"agent,omitempty"`

	// egressIPs holds what the agent found or configured for each claim.
	// +optional
	// +listType=map
	// +listMapKey=ip
	// +kubebuilder:validation:MaxItems=512
	EgressIPs []ClaimStatus `json:"egressIPs,omitempty"`

	// placement is what the controller decides by and no other field says, so that
	// agents and the kubectl plugin decide the same (by the controller).
	// +optional
	Placement *PlacementStatus `json:"placement,omitempty"`

	// hostIPs are hostIP and, if that is one of IPv4, the first global or unique local address of
	// IPv6 that the Node lists as its InternalIP, if there is one (by the controller).
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=2
	// +kubebuilder:validation:items:MaxLength=64
	HostIPs []string `json:"hostIPs,omitzero"`

	// ipv6Networks are the IPv6 networks of the Node's pods, and its IPv6 addresses, as
	// CIDRs (by the controller). Traffic to these is not egress traffic.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=64
	IPv6Networks []string `json:"ipv6Networks,omitzero"`

	// foundNetworks are the networks that other objects name, such as those of the CNI: those
	// of the Node's pods, and, in the HostSubnets of three hosts, those of the whole cluster,
	// which count for all (by the controller). "kubectl egressip networks" shows which of
	// them count.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=128
	FoundNetworks []FoundNetwork `json:"foundNetworks,omitzero"`

	// witnesses are the hosts whose agents watch this one: they alone vote on
	// whether it is silent (by the controller). Empty for a host that has no
	// egress IPs and no egressCIDRs.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=7
	// +kubebuilder:validation:items:MaxLength=253
	Witnesses []string `json:"witnesses,omitzero"`

	// conditions are:
	// AgentReady: the agent runs, and the kernel is as planned (by the agent);
	// Warnings: something on the host weakens egress IPs or stops traffic; the reason is
	// that of the worst finding, the message has all (by the agent);
	// AddressInUse: another machine on the segment answers for an egress IP of
	// this host (by the agent);
	// EgressReady: every claim is in order (by the controller);
	// Online: the controller considers the host online, so that it takes egress
	// traffic; Unknown if only probes find it silent, so that it is used where there is
	// no other (by the controller);
	// Evacuating: the egress IPs of this host are being moved away (by the
	// controller);
	// NodeGone: the Node does not exist any more, and the HostSubnet is kept for a
	// while (by the controller).
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=32
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// PlacementStatus is what limits the egress IPs of a host, and what its Node says. Of its
// fields only ipv6Capacity is ever left out.
type PlacementStatus struct {
	// network is the network of the host's IPv4 egress IPs as a cloud reports it, as a CIDR.
	// If it is empty, the network of the uplink counts (agent.uplinkCIDR).
	// +kubebuilder:validation:MaxLength=64
	Network string `json:"network"`
	// networks are all networks that a cloud reports, of IPv4 and IPv6. Without one of IPv6,
	// those of the uplink count (agent.uplinkNetworks).
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MaxLength=64
	Networks []string `json:"networks,omitzero"`
	// capacity is the greatest number of egress IPs that the host can have: of both
	// families together, or of IPv4 if ipv6Capacity is there.
	// +kubebuilder:validation:Minimum=0
	Capacity int32 `json:"capacity"`
	// ipv6Capacity is the greatest number of IPv6 egress IPs that the host can have, where a
	// cloud gives one for each family.
	// +optional
	// +kubebuilder:validation:Minimum=0
	IPv6Capacity *int32 `json:"ipv6Capacity,omitempty"`
	// closed is true while the host keeps the egress IPs that it has and is given no
	// more, for instance because its Node is not Ready.
	Closed bool `json:"closed"`
	// egressAssignable is true while the Node has the label k8s.ovn.org/egress-assignable, so
	// that the controller may assign egress IPs of EgressIPs to it.
	// +optional
	EgressAssignable bool `json:"egressAssignable"`
	// nodeAddresses are the InternalIPs and ExternalIPs of the Node that are IPv4.
	// Traffic to those that the host's agent sees too is not egress traffic.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MaxLength=64
	NodeAddresses []string `json:"nodeAddresses,omitzero"`
	// podNetworks are those of agent.podNetworks in which the API server has a Pod of the
	// Node. Traffic to these is not egress traffic.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=128
	// +kubebuilder:validation:items:MaxLength=64
	PodNetworks []string `json:"podNetworks,omitzero"`
}

// FoundNetwork is a network that an object names which others wrote.
type FoundNetwork struct {
	// cidr is the network, or what is written instead of one; empty if there is none.
	// +kubebuilder:validation:MaxLength=64
	CIDR string `json:"cidr"`
	// source is the object that names it, such as
	// "IPPool default-ipv4-ippool (crd.projectcalico.org)".
	// +kubebuilder:validation:MaxLength=512
	Source string `json:"source"`
	// use says what has addresses there: Pods, NodePods for those of the Node, Services, or
	// APIServers, of which each has a network of its own address.
	// +kubebuilder:validation:Enum=Pods;NodePods;Services;APIServers
	Use string `json:"use"`
	// problem says why the network does not count; empty if nothing in the object speaks
	// against it.
	// +optional
	// +kubebuilder:validation:MaxLength=512
	Problem string `json:"problem,omitempty"`
}

// Values of FoundNetwork.Use.
const (
	UsePods       = "Pods"
	UseNodePods   = "NodePods"
	UseServices   = "Services"
	UseAPIServers = "APIServers"
)

// AgentStatus describes a host's agent.
type AgentStatus struct {
	// version of the agent.
	Version string `json:"version"`
	// uplink is the interface that has hostIP.
	// +optional
	Uplink string `json:"uplink,omitempty"`
	// uplinkCIDR is hostIP with the prefix length that it has on the uplink,
	// such as 192.168.7.11/24. An egress IP outside this network and otherNetworks is refused.
	// +optional
	UplinkCIDR string `json:"uplinkCIDR,omitempty"`
	// uplinkNetworks are the further networks of the uplink, as CIDRs, such as those of IPv6.
	// An IPv6 egress IP outside all of them and otherNetworks is refused.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MaxLength=64
	UplinkNetworks []string `json:"uplinkNetworks,omitempty"`
	// otherNetworks are networks of the host at other interfaces than the uplink, in which its
	// egress IPs may be, too. An egress IP goes to the uplink if a network of that contains it,
	// else to the most specific of these; of two, to that of the first interface by name.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	OtherNetworks []OtherNetwork `json:"otherNetworks,omitempty"`
	// families are the IP families that this host can serve: IPv4, IPv6. It depends on the
	// agent and the kernel. An agent that does not report any serves IPv4 only. A host whose
	// hostIP is one of IPv6 never serves IPv4.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=2
	// +kubebuilder:validation:items:Enum=IPv4;IPv6
	Families []string `json:"families,omitempty"`
	// ipv6Reason says why families has no IPv6; empty if it has, or if the agent does not know
	// yet.
	// +optional
	// +kubebuilder:validation:MaxLength=2048
	IPv6Reason string `json:"ipv6Reason,omitempty"`
	// uplinkMTU is the MTU of the uplink. Agents of hosts with a larger one warn.
	// +optional
	// +kubebuilder:validation:Minimum=0
	UplinkMTU int32 `json:"uplinkMTU,omitempty"`
	// addresses are the IPv4 addresses that the host has in addition to hostIP and that are
	// not inside the cluster anyway. Traffic to those that its Node lists too, or
	// that are on a segment with another host, is not egress traffic.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MaxLength=64
	Addresses []string `json:"addresses,omitempty"`
	// podNetworks are the pod networks in the host's routing table that nothing else names,
	// as CIDRs. Where each pod has a route of its own, they are single addresses.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=128
	// +kubebuilder:validation:items:MaxLength=64
	PodNetworks []string `json:"podNetworks,omitempty"`
	// podNetworksMissing says which of the host's pods is in no network that all hosts
	// know to be inside the cluster, and why; empty if there is none.
	// +optional
	// +kubebuilder:validation:MaxLength=2048
	PodNetworksMissing string `json:"podNetworksMissing,omitempty"`
	// backend is where our rules are: nftables for a table of their own, or
	// iptables. backendReason says why.
	// +optional
	// +kubebuilder:validation:MaxLength=32
	Backend string `json:"backend,omitempty"`
	// backendReason says why backend was chosen: what the kernel lacks, or that it is
	// configured.
	// +optional
	// +kubebuilder:validation:MaxLength=32768
	BackendReason string `json:"backendReason,omitempty"`
	// kernel is the release of the node's kernel, as the agent sees it.
	// +optional
	// +kubebuilder:validation:MaxLength=128
	Kernel string `json:"kernel,omitempty"`
	// kernelLacks lists what the kernel lacks of what the agent uses where it is there, each
	// with the version of Linux that has it and with what is lost here. Nothing needs to
	// be done about it. It is empty if nothing is lost.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MaxLength=256
	KernelLacks []string `json:"kernelLacks,omitempty"`
	// iptables lists the backends of iptables that hold our rules, where backend is
	// iptables: nft, legacy, or both if other software has NAT rules in both.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=2
	// +kubebuilder:validation:items:MaxLength=32
	IPTables []string `json:"iptables,omitempty"`
	// ipv6 says what becomes of the IPv6 traffic to the outside of this host's pods whose
	// namespaces request egress IPs, and which have none of IPv6 to leave with: Dropped, or
	// NotDropped if that is not possible here; condition Warnings says why. It is empty if
	// there are no such pods with IPv6 addresses.
	// +optional
	// +kubebuilder:validation:MaxLength=32
	IPv6 string `json:"ipv6,omitempty"`
	// probes is Overlay if the host's kernel answers probes that come over the
	// overlay, so that they show whether the overlay works. It is missing where only
	// the agent answers, at the port of probes.
	// +optional
	// +kubebuilder:validation:Enum=Overlay
	Probes string `json:"probes,omitempty"`
	// overlaps are pods of this host whose egress IPs more than one object says: one pod for
	// each two objects.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	Overlaps []Overlap `json:"overlaps,omitempty"`
	// silent are the hosts that do not answer this agent, or answer that they
	// cannot serve, of those whose status.witnesses contain this host. A host
	// counts as offline if the controller and most of its witnesses find it
	// silent.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:items:MaxLength=253
	Silent []string `json:"silent,omitempty"`
}

// OtherNetwork is a network of a host at another interface than the uplink.
type OtherNetwork struct {
	// interface is the name of the interface.
	// +kubebuilder:validation:MaxLength=64
	Interface string `json:"interface"`
	// cidr is the network, such as 172.16.5.0/24.
	// +kubebuilder:validation:MaxLength=64
	CIDR string `json:"cidr"`
	// gateway is the gateway to all else, as the host's routes have it; empty if they have none. It
	// may be an address of IPv6 although cidr is of IPv4.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	Gateway string `json:"gateway,omitempty"`
}

// Overlap is a pod whose egress IPs two objects say. Each is "EgressIP/NAME", or the name of a
// NetNamespace.
type Overlap struct {
	// used is the object whose egress IPs the pod has.
	// +kubebuilder:validation:MaxLength=512
	Used string `json:"used"`
	// ignored is the other one.
	// +kubebuilder:validation:MaxLength=512
	Ignored string `json:"ignored"`
	// pod is the pod, as NAMESPACE/NAME.
	// +kubebuilder:validation:MaxLength=512
	Pod string `json:"pod"`
}

// Values of AgentStatus.Families.
const (
	FamilyIPv4 = "IPv4"
	FamilyIPv6 = "IPv6"
)

// ProbesOverlay is the value of AgentStatus.Probes.
const ProbesOverlay = "Overlay"

// Values of AgentStatus.IPv6.
const (
	IPv6Dropped    = "Dropped"
	IPv6NotDropped = "NotDropped"
)

// ClaimStatus is the state of one claimed egress IP on its host.
type ClaimStatus struct {
	// ip is the address as claimed, in canonical form.
	IP string `json:"ip"`
	// namespace is the NetNamespace that requests it; empty if none does.
	// +optional
	Namespace string `json:"namespace,omitempty"`
	// egressIP is the EgressIP that requests it; empty if none does.
	// +optional
	EgressIP string `json:"egressIP,omitempty"`
	// state is the state of the claim.
	State EgressIPState `json:"state"`
	// configured is true if the address is on the uplink, or on interface, and its rules are
	// in place.
	Configured bool `json:"configured"`
	// interface is the interface that the address belongs on, if that is not the uplink.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	Interface string `json:"interface,omitempty"`
	// reason is a machine-readable word, the same that events and conditions use.
	// +optional
	Reason string `json:"reason,omitempty"`
	// message says what is wrong, if anything, and what to do about it.
	// +optional
	Message string `json:"message,omitempty"`
}
