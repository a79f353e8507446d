package egress

import "net/netip"

// Pod is a pod of the planned host that has an IP of its own: host-network
// pods are not listed, nor pods whose containers have all ended.
type Pod struct {
	Namespace, Name string
	// UID tells a pod from a later one with the same name or address.
	UID string
	IP  netip.Addr
}

// Plan is what one host's kernel must do. It knows no Kubernetes objects.
type Plan struct {
	// Host is the name of the planned host, HostIP its address.
	Host   string
	HostIP netip.Addr
	// Hosts are the addresses of all hosts, own one included, in order: the
	// overlay takes packets from these alone, and traffic to them is not
	// egress traffic.
	Hosts []netip.Addr
	// Inside are the pod CIDRs of all hosts and the networks given by the
	// caller (service CIDRs, further pod CIDRs), in order and without
	// duplicates: traffic to them is not egress traffic.
	Inside []netip.Prefix
	// Subnets are the pod CIDRs of this host: with strict classification, an
	// address in them that is not in Pods goes nowhere outside.
	Subnets []netip.Prefix
	// Hosted are the egress IPs that this host bears, in order of address.
	Hosted []HostedIP
	// Standby are egress IPs that would come to this host if the host that
	// bears them died, in order of address. What can be prepared for them is.
	Standby []HostedIP
	// Pods are the host's own pods in order of address, each with its path.
	Pods []PodPath
	// Orphans are all requested or claimed addresses that this host must not
	// bear; for reports only.
	Orphans []netip.Addr
}

// HostedIP is an egress IP that a host bears, and whose traffic it carries.
type HostedIP struct {
	IP    netip.Addr
	NetID uint32
	// Namespace for reports.
	Namespace string
}

// PathKind is the way of a pod's traffic out of the cluster.
type PathKind int

// The ways.
const (
	// PathNode: no egress IP is requested; the node's own rules apply.
	PathNode PathKind = iota
	// PathLocal: leaves here, with EgressIP as source.
	PathLocal
	// PathRemote: over the overlay to one of Via.
	PathRemote
	// PathDrop: egress IPs are requested and none is active.
	PathDrop
)

// PodPath is where the traffic of one pod goes.
type PodPath struct {
	IP    netip.Addr
	NetID uint32
	Kind  PathKind
	// EgressIP is the source address, for PathLocal.
	EgressIP netip.Addr
	// Via are the addresses of the egress hosts for PathRemote: one in mode
	// Ordered; in mode Balanced one or more, each connection pinned to one.
	Via []netip.Addr
	// Sources are the source addresses that the hosts of Via give, in their
	// order.
	Sources []netip.Addr
	// Namespace and Name are for reports.
	Namespace, Name string
}
