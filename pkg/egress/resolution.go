package egress

import (
	"net/netip"
	"slices"
	"strings"
)

// State is what has become of an egress IP. The values are those of the API's
// EgressIPState.
type State string

// The states.
const (
	Active      State = "Active"
	Standby     State = "Standby"
	Unassigned  State = "Unassigned"
	HostOffline State = "HostOffline"
	Conflict    State = "Conflict"
	Invalid     State = "Invalid"
)

// Reason is a word for programs that says why something is as it is; it stands
// in conditions, events and metrics alike.
type Reason string

// The reasons.
const (
	// ReasonAssigned: a request and a claim match.
	ReasonAssigned Reason = "Assigned"
	// ReasonNotRequested: no namespace requests the address, or the namespace
	// requests none.
	ReasonNotRequested Reason = "NotRequested"
	// ReasonNotClaimed: no host claims the address, or the host claims none.
	ReasonNotClaimed Reason = "NotClaimed"
	// ReasonNoEligibleHost: automatic hosts exist whose ranges hold the
	// address, but none can take it.
	ReasonNoEligibleHost Reason = "NoEligibleHost"
	// ReasonNodeGone: the Node of a host is gone, and another host claims the
	// address as well.
	ReasonNodeGone Reason = "NodeGone"
	// ReasonHostOffline: the host that claims the address is offline.
	ReasonHostOffline Reason = "HostOffline"
	// ReasonMultipleNamespaces: two namespaces request one address; both are
	// dropped entirely.
	ReasonMultipleNamespaces Reason = "MultipleNamespaces"
	// ReasonMultipleHosts: two hosts claim one address.
	ReasonMultipleHosts Reason = "MultipleHosts"
	// ReasonSameHost: two egress IPs of one namespace on one host.
	ReasonSameHost Reason = "SameHost"
	// ReasonDuplicateNetID: two namespaces with one netid both request egress
	// IPs, so that the egress host could not tell their packets apart.
	ReasonDuplicateNetID Reason = "DuplicateNetID"
	// ReasonHostAddress: the address is the own address of a host, its hostIP or another one.
	ReasonHostAddress Reason = "HostAddress"
	// ReasonPodAddress: the address is in the pod network of a host, or in one of all pods
	// that an object names.
	ReasonPodAddress Reason = "PodAddress"
	// ReasonServiceAddress: the address is in a network of services.
	ReasonServiceAddress Reason = "ServiceAddress"
	// ReasonAPIServerAddress: the address is that of an API server.
	ReasonAPIServerAddress Reason = "APIServerAddress"
	// ReasonOutsideNetwork: the address is outside the network of the uplink
	// of the host that claims it.
	ReasonOutsideNetwork Reason = "OutsideNetwork"
	// ReasonBadAddress: not a unicast address.
	ReasonBadAddress Reason = "BadAddress"
	// ReasonBadNetID: a netid of more than 24 bits.
	ReasonBadNetID Reason = "BadNetID"
	// ReasonNoNetID: the NetNamespace has no netid yet.
	ReasonNoNetID Reason = "NoNetID"
	// ReasonBadSelector: a selector of an EgressIP that cannot be used.
	ReasonBadSelector Reason = "BadSelector"
	// ReasonOverlap: another EgressIP says the egress IPs of a pod, and counts for it.
	ReasonOverlap Reason = "Overlap"
	// ReasonBadCIDR: not a CIDR without host bits.
	ReasonBadCIDR Reason = "BadCIDR"
	// ReasonFamilyNotServed: the agent of the host that claims the address does not report
	// that it serves egress IPs of that family.
	ReasonFamilyNotServed Reason = "FamilyNotServed"
	// ReasonBadMode: annotation mode has an unknown value.
	ReasonBadMode Reason = "BadMode"
	// ReasonBadOtherFamily: annotation other-family has an unknown value.
	ReasonBadOtherFamily Reason = "BadOtherFamily"
	// ReasonBadGateways: annotation gateways, or a part of it, cannot be used.
	ReasonBadGateways Reason = "BadGateways"
	// ReasonBadFailBack: annotation fail-back has an unknown value.
	ReasonBadFailBack Reason = "BadFailBack"
	// ReasonBadDestinations: annotation include-cidrs or exclude-cidrs, or a part of it, cannot be
	// used.
	ReasonBadDestinations Reason = "BadDestinations"
	// ReasonKept: the namespace keeps the egress IP that it uses, although this one is earlier
	// in its list.
	ReasonKept Reason = "Kept"
	// ReasonBadHost: a HostSubnet without a usable hostIP.
	ReasonBadHost Reason = "BadHost"
	// ReasonOutsideRange: a claim of an automatic host that none of its ranges
	// holds.
	ReasonOutsideRange Reason = "OutsideRange"
	// ReasonCapacity: more claims than the host has capacity for.
	ReasonCapacity Reason = "Capacity"
	// ReasonRebalanced: the claim moves to a host that has much less than its share.
	ReasonRebalanced Reason = "Rebalanced"
	// ReasonAddressInUse: another machine on the segment has the address too. The host
	// that claims it does not take it because of that, or has it nevertheless.
	ReasonAddressInUse Reason = "AddressInUse"
	// ReasonEvacuated: the claim moves away because its host is being
	// evacuated, or another egress IP is used for that reason.
	ReasonEvacuated Reason = "Evacuated"
	// ReasonTooMany: the namespace is balanced over as many egress IPs as are possible,
	// and this one is left over.
	ReasonTooMany Reason = "TooMany"
	// ReasonHostSilent: probes alone find the host silent, and the namespace has no other.
	ReasonHostSilent Reason = "HostSilent"
	// ReasonAgentUnknown: the host's agent has not reported yet that the host has its
	// hostIP.
	ReasonAgentUnknown Reason = "AgentUnknown"
	// ReasonAgentGone: the host runs and its agent does not, so nothing is known about
	// the egress IP since.
	ReasonAgentGone Reason = "AgentGone"
	// ReasonNotReported: the host's agent has not reported on the egress IP yet.
	ReasonNotReported Reason = "NotReported"
	// ReasonNotConfigured: the kernel of the host that must have the egress IP is not,
	// or not completely, configured for it.
	ReasonNotConfigured Reason = "NotConfigured"
	// ReasonPodNetworksMissing: a pod is in no network that is known to be inside. Of a
	// namespace: it may send to that pod with an egress IP.
	ReasonPodNetworksMissing Reason = "PodNetworksMissing"
	// ReasonHostsOutOfReach: from some hosts the overlay leads to none of the namespace's egress
	// hosts.
	ReasonHostsOutOfReach Reason = "HostsOutOfReach"
	// ReasonDropped: the namespace requests egress IPs and none is active.
	ReasonDropped Reason = "Dropped"
)

// Resolution is what becomes of each object's requests and claims.
type Resolution struct {
	// Groups in order of name, one for each of the Cluster's.
	Groups []GroupResult
	// Hosts in order of name, one for each of the Cluster's.
	Hosts []HostResult
}

// Group returns what becomes of the group with that name; false where
// the Cluster has none.
func (r Resolution) Group(name string) (GroupResult, bool) {
	n, ok := slices.BinarySearchFunc(r.Groups, name, func(n GroupResult, name string) int {
		return strings.Compare(n.Name, name)
	})
	if !ok {
		return GroupResult{}, false
	}
	return r.Groups[n], true
}

// Host returns what becomes of the claims of the host with that name; false
// where the Cluster has none.
func (r Resolution) Host(name string) (HostResult, bool) {
	h, ok := slices.BinarySearchFunc(r.Hosts, name, func(h HostResult, name string) int {
		return strings.Compare(h.Name, name)
	})
	if !ok {
		return HostResult{}, false
	}
	return r.Hosts[h], true
}

// GroupResult is what becomes of one group.
type GroupResult struct {
	Name  string
	NetID uint32
	// Unnumbered: there is no netid yet, and NetID means nothing.
	Unnumbered bool
	Mode       Mode
	// Requests in the user's order, then those that are no usable address, as
	// written.
	Requests []RequestResult
	// Active are the assignments in use, those of IPv4 first: of each family at most one in
	// mode Ordered, at most MaxActive in mode Balanced.
	Active []Assignment
	// Dropped: of a family egress IPs are requested and none is active.
	Dropped bool
	// Drops are, by family, whether traffic to the outside is dropped: where Dropped says
	// so, and where no egress IPs of the family are requested, but of the other.
	Drops [2]bool
	// Ready, Reason and Message sum it up for the condition EgressReady.
	Ready   Readiness
	Reason  Reason
	Message string
}

// requests reports whether egress IPs of a family are requested, usable or not.
func (n *GroupResult) requests(f Family) bool {
	return slices.ContainsFunc(n.Requests, func(r RequestResult) bool { return RequestFamily(r.IP) == f })
}

// Readiness is whether traffic leaves as it should. The values are those of a
// condition's status.
type Readiness string

// The values. ReadyUnknown: traffic is sent to an egress host of which is not known
// that it works.
const (
	ReadyTrue    Readiness = "True"
	ReadyFalse   Readiness = "False"
	ReadyUnknown Readiness = "Unknown"
)

// RequestResult is what becomes of one requested egress IP.
type RequestResult struct {
	// IP as written for an Invalid request, else in canonical form.
	IP string
	// Host that claims it, where one alone does.
	Host    string
	State   State
	Reason  Reason
	Message string
}

// Assignment is a request and a claim that match without conflict.
type Assignment struct {
	IP   netip.Addr
	Host string
	// HostIP is where the overlay reaches that host.
	HostIP netip.Addr
}

// HostResult is what becomes of one host's claims.
type HostResult struct {
	Name string
	// Claims in address order.
	Claims []ClaimResult
	// Invalid are claims that are no usable address, as written.
	Invalid []string
	// Ready reports whether every claim is in order; Reason and Message sum it up
	// for the condition EgressReady.
	Ready   bool
	Reason  Reason
	Message string
}

// ClaimResult is what becomes of one claimed egress IP.
type ClaimResult struct {
	IP netip.Addr
	// Group that requests it, where one alone does.
	Group string
	// NetID of that namespace.
	NetID   uint32
	State   State
	Reason  Reason
	Message string
}

// Assigned reports whether the host must have the address. It has it also while
// another address of the namespace is active, or while it is considered offline
// itself, so that taking over costs nothing.
func (c ClaimResult) Assigned() bool {
	return c.State == Active || c.State == Standby || c.State == HostOffline
}
