package dataplane

import (
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/bpf"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/feature"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/iptables"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/mark"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/warning"
)

// State is what the kernel of one host must do. It is a plain value in
// canonical order, free of the shape of iptables, so that another backend can
// serve it.
type State struct {
	// HostIP is the host's own address, of IPv4 or IPv6. The interface that has it is the
	// uplink, looked up in each pass. The overlay leads to hosts with addresses of its family
	// alone.
	HostIP netip.Addr
	// Hosts are the addresses of all hosts, HostIP included: the overlay takes
	// packets from these alone, as far as they are of the family of HostIP, and traffic to
	// them is never egress traffic.
	Hosts []netip.Addr
	// Inside are the pod and service networks of the cluster, of IPv6 all of its addresses,
	// and whatever else traffic to is never egress traffic.
	Inside []netip.Prefix
	// Subnets are the networks of this host's pods, of both families, for Strict.
	Subnets []netip.Prefix
	// Strict: packets to the outside from an address of Subnets that is not in Pods
	// are dropped.
	Strict bool
	// Hosted are the egress IPs of this host.
	Hosted []Hosted
	// Standby are egress IPs that this host may have to take over soon. All that
	// does no harm without the address is prepared, so that a takeover costs the
	// address and its announcement alone. None is in Hosted.
	Standby []Hosted
	// Pods are addresses of this host's pods: of one with both families, two.
	Pods []Pod
	// Locate are addresses of pods of which the report says how the kernel leads there.
	Locate []netip.Addr
}

// overIPv6 reports whether the overlay's outer packets are of IPv6.
func (s State) overIPv6() bool { return s.HostIP.Is6() && !s.HostIP.Is4In6() }

// clone returns a State that shares nothing with s.
func (s State) clone() State {
	s.Hosts, s.Inside, s.Subnets = slices.Clone(s.Hosts), slices.Clone(s.Inside), slices.Clone(s.Subnets)
	s.Hosted, s.Standby, s.Pods = slices.Clone(s.Hosted), slices.Clone(s.Standby), slices.Clone(s.Pods)
	s.Locate = slices.Clone(s.Locate)
	for i := range s.Pods {
		p := &s.Pods[i]
		p.Via, p.Sources, p.Excluded = slices.Clone(p.Via), slices.Clone(p.Sources), slices.Clone(p.Excluded)
	}
	return s
}

// equal reports whether two States say the same, in the same order.
func (s State) equal(o State) bool {
	return s.equalButPods(o) && slices.EqualFunc(s.Pods, o.Pods, Pod.equal) && slices.Equal(s.Locate, o.Locate)
}

// equalButPods reports whether two States say the same, in the same order, but for what they
// say about pods.
func (s State) equalButPods(o State) bool {
	return s.HostIP == o.HostIP && s.Strict == o.Strict &&
		slices.Equal(s.Hosts, o.Hosts) && slices.Equal(s.Inside, o.Inside) && slices.Equal(s.Subnets, o.Subnets) &&
		slices.Equal(s.Hosted, o.Hosted) && slices.Equal(s.Standby, o.Standby)
}

func (p Pod) equal(o Pod) bool {
	return p.IP == o.IP && p.Kind == o.Kind && p.NetID == o.NetID && p.EgressIP == o.EgressIP &&
		slices.Equal(p.Via, o.Via) && slices.Equal(p.Sources, o.Sources) && slices.Equal(p.Excluded, o.Excluded)
}

// Hosted is an egress IP that the host has on its uplink, or on Interface; packets of network
// NetID and of its family that come over the overlay leave with it as source.
type Hosted struct {
	IP    netip.Addr
	NetID uint32
	// Interface is the one that has the IP, if that is not the uplink: what leaves with it
	// leaves by this interface alone, to neighbours and by Gateway; to neighbours only if that
	// is the zero Addr.
	Interface string
	Gateway   netip.Addr
}

// PodKind is the path of a pod's traffic out of the cluster.
type PodKind uint8

// The paths.
const (
	// Node: the node's own rules apply, and nothing of ours.
	Node PodKind = iota
	// Local: leaves here with EgressIP, which is one of Hosted, as source.
	Local
	// Remote: over the overlay to one of Via.
	Remote
	// Drop: traffic to the outside is dropped, and nothing is said: a moment later it may be
	// Local or Remote, and connections go on.
	Drop
	// Refuse: it is dropped, and that of IPv6 is refused, so that clients go on with IPv4.
	Refuse
	// closed is Refuse of IPv6 where the rules give no marks to IPv6.
	closed
)

// Pod is one pod address and its path.
type Pod struct {
	IP   netip.Addr
	Kind PodKind
	// NetID is the network identifier that the overlay carries, for Remote.
	NetID uint32
	// EgressIP is the source address, for Local, of the family of IP.
	EgressIP netip.Addr
	// Via are the egress hosts for Remote, at most MaxVia, by the addresses that the overlay
	// knows them by, of the family of State.HostIP; a connection keeps the one that it began
	// with.
	Via []netip.Addr
	// Sources are the source addresses that the hosts of Via give, in their
	// order. A connection whose source would change with its host ends. Where
	// Sources is not given, the change is not known, and the connection goes on.
	Sources []netip.Addr
	// Excluded are networks of the family of IP, none of which contains another, to which the
	// pod's traffic leaves as without us, unless it is of kind Node, which does so anyway.
	Excluded []netip.Prefix
}

// MaxVia is the greatest number of egress hosts among which one pod's
// connections are spread.
const MaxVia = bpf.MaxVia

// Marks divide the packet mark: the bits that are ours, and what they mean.
type Marks = mark.Marks

// DefaultMarks returns the marks of an agent with default flags.
func DefaultMarks() Marks { return mark.Default() }

// Config is what stays the same as long as the agent runs.
type Config struct {
	// Marks are the bits of the packet mark that are ours.
	Marks Marks
	// OverlayPort is the UDP port of the overlay.
	OverlayPort uint16
	// ProbePort is the UDP port on which hosts health-check each other. Like the
	// overlay's it takes packets from hosts only; 0 for none.
	ProbePort uint16
	// PinDir is the directory of a bpffs that holds our maps, so that a
	// restart keeps traffic flowing.
	PinDir string
	// Backends are the backends to use: NFTables alone, or iptables backends. Empty
	// means NFTables where the kernel can hold all our rules in it, else those of
	// iptables that are found to be in use on the host.
	Backends []Backend
	// ARPProbe says what it means that another machine answers for an egress IP, and
	// ARPIgnore are the MAC addresses of machines whose answers mean nothing.
	ARPProbe  ARPProbe
	ARPIgnore []net.HardwareAddr
	// AnnounceEvery is the time between two announcements of an egress IP while the
	// host has it; 0 for none. Other machines with the address are found at the same
	// pace at least.
	AnnounceEvery time.Duration
	// SNATPorts says which source ports connections with an egress IP get.
	SNATPorts SNATPorts
	// AwayAfter is how long without an Apply it takes until unknown addresses are no
	// longer dropped, although Strict asks for it: without an agent, no new pod would
	// become known. 0 means the default, a negative number never.
	AwayAfter time.Duration
	// IPTables: where Backends is empty, it means only those of iptables.
	IPTables bool
	// Interfaces are those that egress IPs may be on besides the uplink: names, as patterns
	// of package path, and AnyInterface. Without any there are none.
	Interfaces []string
	// GuardFilter: the guard is a tc filter although the kernel has TCX. Version 0.1.0 knows, and
	// takes over, only that.
	GuardFilter bool
	// shared: the table of our own has no owner, as with kernels before Linux 6.9. For
	// tests.
	shared bool
	// ResetConnections: a pod that goes on with a TCP connection whose source
	// address is no longer its own gets a reset at once. Else such a connection
	// ends by the server's reset or a timeout.
	ResetConnections bool
}

// SNATPorts says which source ports connections with an egress IP get.
type SNATPorts string

// The ways to choose source ports.
const (
	// PreservePorts: a connection keeps the port that its pod chose, as long as no other
	// connection to the same destination has it. The zero value means the same.
	PreservePorts SNATPorts = "preserve"
	// RandomPorts: it gets a random one.
	RandomPorts SNATPorts = "random"
)

// Backend is a place for our rules in the kernel.
type Backend = iptables.Backend

// The backends: a table of our own, and our chains among those of iptables.
const (
	NFTables = Backend("nftables")
	NFT      = iptables.NFT
	Legacy   = iptables.Legacy
)

// usesTable reports whether our rules are in a table of our own.
func usesTable(use []Backend) bool { return slices.Contains(use, NFTables) }

// Report is what Apply found and did.
type Report struct {
	// Uplink is the interface that has HostIP, UplinkCIDR that address with
	// its prefix length there.
	Uplink     string
	UplinkCIDR netip.Prefix
	// Addresses are the host's own addresses: those that it can be reached at from other
	// machines, without egress IPs and those of services.
	Addresses []netip.Addr
	// Backends are the backends that hold our rules, and BackendReason is why they
	// were chosen.
	Backends      []Backend
	BackendReason string
	// Kernel is the kernel's release, and Missing what it lacks of what is used where it is
	// there; empty until that is known.
	Kernel  string
	Missing []feature.Feature
	// IPv6Locked reports whether pods that must not leave by IPv6 cannot.
	IPv6Locked bool
	// IPv6 is what the host can do for egress IPs of IPv6.
	IPv6 IPv6Report
	// Overlay reports whether the overlay device is up with its programs.
	Overlay bool
	// Hosted reports, for each address of State.Hosted, whether it is on the uplink
	// with all its rules, or why not.
	Hosted []HostedReport
	// Changes counts the changes that this pass made; 0 in a settled kernel.
	Changes int
	// Warnings are findings that the admin should know and that stop nothing, the worst
	// first.
	Warnings []warning.Warning
	// Counts is how often Usage of egress IPs has been counted.
	Counts int
	// PodRoutes are how the kernel leads to the addresses of State.Locate, in their order.
	PodRoutes []PodRoute
	// UplinkMTU is what the uplink carries; 0 where it is not known.
	UplinkMTU int
	// Networks are those of further interfaces in which egress IPs can be, in order of their
	// indices. They are not known after a pass that found no uplink, or could not read them.
	Networks      []Network
	NetworksKnown bool
}

// IPv6Report is what a host can do for egress IPs of IPv6.
type IPv6Report struct {
	// Known reports whether the rest is: not after a pass that found no uplink, or could not
	// read what it has.
	Known bool
	// Reason is why the host can neither have such egress IPs nor lead pods to them; empty
	// if it can. What a State asks for nevertheless is dropped.
	Reason string
	// Networks are those of IPv6 that are on the uplink's link, in which its egress IPs
	// must be.
	Networks []netip.Prefix
}

// HostedReport is the state of one hosted egress IP in the kernel.
type HostedReport struct {
	IP         netip.Addr
	Configured bool
	// Error says why it is not configured.
	Error string
	// InUseBy is the MAC address of another machine on the segment that has the
	// address too; empty if there is none. That may be why it is not configured.
	InUseBy string
	// Taken: it is not configured because another machine has it, or this one has it as an
	// address of its own, or as its gateway's. The data plane may be well.
	Taken bool
	// Usage is how much it is used; 0 until that is counted.
	Usage Usage
}
