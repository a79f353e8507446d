package egress

import (
	"cmp"
	"net/netip"

	"k8s.io/apimachinery/pkg/labels"
)

// Pod is a pod of the planned host that has an IP of its own: host-network
// pods are not listed, nor pods whose containers have all ended.
type Pod struct {
	Namespace, Name string
	// UID distinguishes a pod from a later one with the same name or address.
	UID string
	IP  netip.Addr
	// Labels are the pod's labels.
	Labels labels.Set
	// Group is the EgressIP's group that decides about its traffic; "" for that of its
	// namespace. See grouped.
	Group string
	// Others are further groups that say egress IPs for it, and do not count but for where none of its
	// groups' egress IPs apply.
	Others []string
	// RuntimeOnly: the container runtime has the pod, and the API server does not
	// have it (yet).
	RuntimeOnly bool
}

// group returns the name of the group that decides about the pod's traffic.
func (p *Pod) group() string { return cmp.Or(p.Group, p.Namespace) }

// Plan is what one host's kernel must do. It knows no Kubernetes objects.
type Plan struct {
	// Host is the name of the planned host, HostIP its address.
	Host   string
	HostIP netip.Addr
	// Hosts are the confirmed addresses of all hosts, this one included, in order: the
	// overlay takes packets only from these, and traffic to them is not egress
	// traffic.
	Hosts []netip.Addr
	// Inside are the pod CIDRs of all hosts, their IPv6 addresses, link-local addresses of
	// IPv4, the networks given by the caller (service CIDRs, further pod CIDRs, API servers),
	// networks in which hosts found their pods, and further addresses of hosts, in order and without duplicates: traffic to them is not egress
	// traffic.
	Inside []netip.Prefix
	// Subnets are the pod CIDRs of this host: with strict classification, egress
	// traffic of an address in them that is not in Pods is dropped.
	Subnets []netip.Prefix
	// Hosted are the egress IPs of this host, in order of address.
	Hosted []HostedIP
	// Standby are egress IPs that would move to this host if the host that has
	// them died, in order of address. The kernel is prepared for them as far as
	// it can be.
	Standby []HostedIP
	// Pods are the host's own pods in order of address, each with its path. A pod with
	// addresses of both families has two.
	Pods []PodPath
	// Orphans are all requested or claimed addresses that this host must not
	// have; for reports only.
	Orphans []netip.Addr
	// NotExcluded names the objects of pods of this host whose lists together exclude more networks
	// than the kernel is given, so that none is excluded; for reports only.
	NotExcluded []string
}

// HostedIP is an egress IP that a host has, and whose traffic it carries.
type HostedIP struct {
	IP    netip.Addr
	NetID uint32
	// Interface has it, if that is not the uplink, and its traffic leaves there by Gateway; to
	// neighbours only if that is the zero Addr.
	Interface string
	Gateway   netip.Addr
	// Group is for reports.
	Group string
}

// PathKind is how a pod's traffic leaves the cluster.
type PathKind int

// The kinds of paths.
const (
	// PathNode: no egress IP is requested; the node's own rules apply.
	PathNode PathKind = iota
	// PathLocal: it leaves from this host, with EgressIP as source.
	PathLocal
	// PathRemote: it goes over the overlay to one of Via.
	PathRemote
	// PathDrop: egress IPs of the pod's family are requested and none is active. That may
	// change at any moment, so that nothing is said to the pod.
	PathDrop
	// PathRefuse: egress IPs are requested, and none of the pod's family. What the pod sends
	// by it is dropped, and the pod may be told, so that it goes on with the other family.
	PathRefuse
)

// PodPath is where the traffic of one pod goes.
type PodPath struct {
	IP    netip.Addr
	NetID uint32
	Kind  PathKind
	// EgressIP is the source address, for PathLocal, of the pod's family.
	EgressIP netip.Addr
	// Via are the addresses of the egress hosts for PathRemote, of the overlay and not of
	// the pod's family: one in mode Ordered; in mode Balanced one or more, each connection pinned to one.
	Via []netip.Addr
	// Sources are the source addresses that the hosts of Via translate to, in
	// the order of Via.
	Sources []netip.Addr
	// Excluded are networks of the family of IP outside, in order, none of which contains another,
	// to which the pod sends as without egress IPs; empty for PathNode.
	Excluded []netip.Prefix
	// Namespace and Name are for reports.
	Namespace, Name string
}
