package egress

import "net/netip"

// Cluster is everything that decisions rest on, parsed and in canonical order.
// Snapshot makes it; bad input is not in it, but for the traces that Invalid
// fields keep so that a namespace with nothing but bad requests stays dropped.
type Cluster struct {
	// Namespaces in order of name.
	Namespaces []Namespace
	// Hosts in order of name.
	Hosts []Host
}

// Host returns the host with that name; false where there is none.
func (c Cluster) Host(name string) (Host, bool) {
	h, ok := findHost(c.Hosts, name)
	if !ok {
		return Host{}, false
	}
	return c.Hosts[h], true
}

// Namespace is one NetNamespace.
type Namespace struct {
	Name  string
	NetID uint32
	// Unnumbered: the NetNamespace has no netid yet, and NetID means nothing.
	Unnumbered bool
	// Requests are the egress IPs, in the user's order, without duplicates.
	Requests []netip.Addr
	// Invalid are requests that are no usable address, as written. A namespace
	// with any request, valid or not, never leaves with a node's address.
	Invalid []string
	Mode    Mode
}

// Requesting reports whether the namespace requests egress IPs at all, usable or not.
func (n Namespace) Requesting() bool { return len(n.Requests)+len(n.Invalid) > 0 }

// Mode is how a namespace uses several egress IPs.
type Mode int

// The modes; see AnnotationMode of the API.
const (
	Ordered Mode = iota
	Balanced
)

// Host is one HostSubnet.
type Host struct {
	Name string
	// IP is the host's own address on the uplink; invalid where the object
	// gives none that is usable.
	IP netip.Addr
	// Network is the uplink's network as the cloud or the host's agent reported
	// it; invalid where neither has yet.
	Network netip.Prefix
	// Subnets are the pod CIDRs of the host; empty where the CNI does not say.
	Subnets []netip.Prefix
	// Claims are the egress IPs listed for the host, in canonical form and
	// without duplicates, in address order.
	Claims []netip.Addr
	// Invalid are claims that are no usable address, as written.
	Invalid []string
	// Ranges are its egressCIDRs without host bits, in order; a host with any
	// is automatic.
	Ranges []netip.Prefix
	// Automatic is set where egressCIDRs is not empty, valid or not: the
	// claims of such a host belong to the controller.
	Automatic bool
	// Online reports whether the host takes egress traffic.
	Online bool
	// Closed: an automatic host keeps what it has, and gets nothing more.
	Closed bool
	// Evacuating: the administrator wants the host free of egress traffic. Its
	// automatic egress IPs go elsewhere one by one, and of a namespace's egress
	// IPs others are used, as far as there are any.
	Evacuating bool
	// Gone: the Node does not exist any more. The host's address and claims yield to
	// those of other hosts.
	Gone bool
	// Awaited are claims of an automatic host that a user wrote a short while ago, as
	// by a restore, in order. They are kept although no namespace requests them, and
	// where two automatic hosts list an address, they are what counts.
	Awaited []netip.Addr
	// Capacity is the greatest number of egress IPs that the host can have; 0
	// means no limit, a negative number none at all.
	Capacity int
	// Witnesses are the hosts whose agents vote on whether the host is silent, as
	// the controller has published them.
	Witnesses []string
}

// Problem is a part of an API object that cannot be used. It concerns that
// part alone: the rest of the object, and all other objects, work on.
type Problem struct {
	// Kind and Name tell the object, such as NetNamespace and "shop".
	Kind, Name string
	// Field and Value tell which part, such as egressIPs and "0.0.0.0".
	Field, Value string
	// Reason is a word for programs; Message says what is wrong and the remedy.
	Reason  Reason
	Message string
}
