package egress

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Cluster is everything that decisions rest on, parsed and in canonical order.
// Snapshot makes it; bad input is not in it, but for the traces that Invalid
// fields keep so that a namespace with nothing but bad requests stays dropped.
type Cluster struct {
	// Groups in order of name.
	Groups []Group
	// Hosts in order of name.
	Hosts []Host
	// WithIPv6: a namespace requests, or a host claims, egress IPs of IPv6.
	WithIPv6 bool
	// Included are networks outside to which egress IPs apply, and to no others, as long as a group
	// does not say otherwise; none for all.
	Included []netip.Prefix
	// Family is the only one that the cluster has, where it is a view; see of.
	Family Family
}

// ForRouting returns the cluster without what is only reported: which host a packet goes
// to, and what a host has, is the same for both. Agents that are told of the statuses of
// all hosts need not decide again for each.
func (c Cluster) ForRouting() Cluster {
	c.Hosts = slices.Clone(c.Hosts)
	for h := range c.Hosts {
		host := &c.Hosts[h]
		host.AgentGone, host.PodsMissing, host.Overlaps = false, "", nil
		var taken map[netip.Addr]Report
		for ip, report := range host.Reports {
			if report.taken() {
				if taken == nil {
					taken = make(map[netip.Addr]Report)
				}
				taken[ip] = Report{Reason: report.Reason}
			}
		}
		host.Reports = taken
	}
	return c
}

// Host returns the host with that name; false where there is none.
func (c Cluster) Host(name string) (Host, bool) {
	h, ok := findHost(c.Hosts, name)
	if !ok {
		return Host{}, false
	}
	return c.Hosts[h], true
}

// Group is a set of pods with an identity in the overlay, egress IPs and a mode: those of one
// namespace, as its NetNamespace says, or those that an EgressIP selects.
type Group struct {
	// Name is unique: that of the namespace, or what GroupOfEgressIP returns.
	Name  string
	NetID uint32
	// Unnumbered: the object has no netid yet, and NetID means nothing.
	Unnumbered bool
	// Selects are the pods of an EgressIP; nil for those of a namespace, and for an EgressIP
	// whose selectors cannot be used.
	Selects *Selection
	// OnlyOn names the hosts that the controller may assign to; nil for all.
	OnlyOn *HostSet
	// Requests are the egress IPs, in the user's order, without duplicates.
	Requests []netip.Addr
	// Invalid are requests that are no usable address, as written. A namespace
	// with any request, valid or not, never leaves with a node's address.
	Invalid []string
	Mode    Mode
	// Keeps are the egress IPs that the namespace used last, as its status says, if it asks to
	// keep them as long as they can be used, although earlier ones can, too.
	Keeps []netip.Addr
	// Other is what becomes of the family of which the namespace requests no egress IPs.
	Other OtherFamily
	// Destinations are the networks outside to which the egress IPs apply; nil for all.
	Destinations *Destinations
	// Gateways are those of each family, by Family, by which its egress IPs leave networks of
	// other interfaces than the uplink, where the host's routes name none.
	Gateways [2]netip.Addr
	// Elsewhere: in a view of one family, it requests usable egress IPs of the other.
	Elsewhere bool
}

// Requesting reports whether the namespace requests egress IPs at all, usable or not.
func (n Group) Requesting() bool { return len(n.Requests)+len(n.Invalid) > 0 }

// Mode is how a namespace uses several egress IPs.
type Mode int

// The modes; see AnnotationMode of the API.
const (
	Ordered Mode = iota
	Balanced
)

// MaxActive is the greatest number of egress IPs that a namespace in mode Balanced
// uses at a time: as many as the kernel can spread connections over.
const MaxActive = 8

// limit is the greatest number of egress IPs in use.
func (m Mode) limit() int {
	if m == Ordered {
		return 1
	}
	return MaxActive
}

// Host is one HostSubnet.
type Host struct {
	Name string
	// IP is the host's own address on the uplink; invalid where the object
	// gives none that is usable.
	IP netip.Addr
	// Networks are those of the uplink as the cloud or the host's agent reported them, that
	// of IPv4 first: at most one of IPv4, and none of a family of which neither has
	// reported any.
	Networks []netip.Prefix
	// FurtherNetworks are those at other interfaces, in order of CIDR and interface: none where a
	// cloud reports networks. SharedNetworks are those of them that another host is in, too.
	FurtherNetworks []FurtherNetwork
	SharedNetworks  []netip.Prefix
	// Cloud: a cloud reported the network of IPv4. It counts whatever the uplink says. Clouded:
	// it reported one of either family.
	Cloud, Clouded bool
	// ServesIPv6: the host's agent reports that it can have egress IPs of IPv6.
	ServesIPv6 bool
	// Subnets are the pod CIDRs of the host; empty where the CNI does not say.
	Subnets []netip.Prefix
	// IPv6 are the IPv6 networks of the host's pods, and its addresses as networks of one,
	// in order.
	IPv6 []netip.Prefix
	// Claims are the egress IPs listed for the host, in canonical form and
	// without duplicates, in address order.
	Claims []netip.Addr
	// Excess are claims of a manual host beyond its capacity, counted in the order of
	// the user's list. They are not used. In address order.
	Excess []netip.Addr
	// Invalid are claims that are no usable address, as written.
	Invalid []string
	// Assigned are those of Claims that the controller has assigned for EgressIPs, and that are
	// on no list of the administrator's, in address order.
	Assigned []netip.Addr
	// Managed: the controller assigns egress IPs to the host, or has done so.
	Managed bool
	// Assignable: the Node has the label by which hosts are chosen for EgressIPs.
	Assignable bool
	// Overlaps are pods of the host whose egress IPs two groups say.
	Overlaps []Overlap
	// Ranges are its egressCIDRs without host bits, in order; a host with any
	// is automatic.
	Ranges []netip.Prefix
	// Automatic is set where egressCIDRs is not empty, valid or not: the
	// claims of such a host belong to the controller.
	Automatic bool
	// Confirmed: the host's agent has reported that the uplink has IP. Until then IP is
	// only what the Node says, which is not believed: it is neither inside the cluster
	// nor a source of overlay packets, and takes no egress traffic.
	Confirmed bool
	// Addresses are those that the host's agent sees on its interfaces, in addition to IP,
	// and Listed are those that its Node lists. See nodeAddresses.
	Addresses, Listed []netip.Addr
	// Further are those of Addresses that no egress IP of the host can be; nor one of any
	// host, if they are on the host's segment and SharesSegment: another host is on it, too.
	// See findFurther.
	Further       []netip.Addr
	SharesSegment bool
	// PodNetworks are those that the host's agent sees its pods in, and PodsListed are
	// those in which the API server has a Pod of the Node. See foundPodNetworks.
	PodNetworks, PodsListed []netip.Prefix
	// Found are the networks that objects of the cluster name, as the controller has
	// published them here.
	Found []Found
	// PodsMissing is what the host's agent reports about a pod of its own that is in no
	// network which all hosts know; empty if there is none. See podsMissing.
	PodsMissing string
	// Unheard: the agent has never reported anything, and its time to do so is over.
	// AgentReady: it has reported that the kernel is as planned. AgentGone: the host runs
	// and its agent does not.
	Unheard, AgentReady, AgentGone bool
	// AnswersOverlay: its kernel answers probes that come over the overlay.
	AnswersOverlay bool
	// Reports are what the agent reports about the claims, by address.
	Reports map[netip.Addr]Report
	// Shadowed: another host probably has IP. No claim of this one counts.
	Shadowed bool
	// Failing are claims for which the host could not be configured for a while, or
	// could not a short time ago. Other hosts are preferred for them.
	Failing map[netip.Addr]bool
	// Created is when the object was created, for hosts with one IP; see established.
	Created time.Time
	// Online reports whether the host takes egress traffic.
	Online bool
	// Doubtful: the host is not online, by probes alone, which may be at fault. It is
	// used where a namespace has no other way; see online.Verdict.
	Doubtful bool
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
	// means no limit, a negative number none at all. It is for both families together if
	// IPv6Capacity is 0, and for IPv4 otherwise.
	Capacity, IPv6Capacity int
	// Witnesses are the hosts whose agents vote on whether the host is silent, as
	// the controller has published them.
	Witnesses []string
}

// manages reports whether a claim of the host is the controller's and not the administrator's.
func (h *Host) manages(ip netip.Addr) bool {
	if h.Automatic {
		return true
	}
	_, found := slices.BinarySearchFunc(h.Assigned, ip, netip.Addr.Compare)
	return found
}

// byHand is how many claims of the host are the administrator's.
func (h *Host) byHand() int {
	if h.Automatic {
		return 0
	}
	return len(h.Claims) - len(h.Assigned)
}

// Report is what a host's agent reports about one claim.
type Report struct {
	// Configured: the address is on the host and its rules are in place.
	Configured bool
	// Reason and Message say why it is not configured.
	Reason  Reason
	Message string
}

// taken reports whether another machine has the address.
func (r Report) taken() bool { return !r.Configured && r.Reason == ReasonAddressInUse }

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

// findHost returns the position of the host with that name.
func findHost(hosts []Host, name string) (int, bool) {
	return slices.BinarySearchFunc(hosts, name, func(h Host, name string) int {
		return strings.Compare(h.Name, name)
	})
}

// HostSet names hosts. Groups that may be on the same ones share one, so that thousands of them need
// not be compared one by one.
type HostSet struct{ names map[string]bool }

// NewHostSet returns a set of the names for which there is true. The map must not be changed.
func NewHostSet(names map[string]bool) *HostSet { return &HostSet{names: names} }

// Has reports whether a host is in the set. All are in nil.
func (s *HostSet) Has(host string) bool { return s == nil || s.names[host] }

// Equal reports whether two sets have the same hosts.
func (s *HostSet) Equal(other *HostSet) bool {
	return s == other || s != nil && other != nil && maps.Equal(s.names, other.names)
}
