package agent

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/egressip-operator/egressip-operator/internal/flagcheck"
	"github.com/egressip-operator/egressip-operator/pkg/dataplane"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// The bounds of Options.ResyncPeriod.
const (
	minResyncPeriod = 100 * time.Millisecond
	maxResyncPeriod = time.Hour
	// minAwayAfter is the least Options.AwayAfter but 0: an agent that is upgraded is away
	// for some seconds.
	minAwayAfter = 10 * time.Second
	// minAnnounceInterval is the least Options.AnnounceInterval but 0.
	minAnnounceInterval = time.Second
)

// Options say how the agent works. Kernel says how it marks what is its own,
// and must be the same for as long as the agent has anything on the node.
type Options struct {
	// NodeName is the name of this node's Node object.
	NodeName string
	// MetricsAddress and HealthAddress are host:port to listen on, "0" or "" for
	// none.
	MetricsAddress, HealthAddress string
	// MetricsSecure: metrics are served over HTTPS, to clients that the API server
	// allows to get /metrics.
	MetricsSecure bool
	// Profiling: profiles of the process are served besides metrics, to clients that the API
	// server allows to get /debug/pprof.
	Profiling bool
	// Inside are networks of the cluster in addition to the nodes' pod CIDRs and
	// the ServiceCIDR objects, and those that are excluded: traffic to them is never
	// egress traffic.
	Inside []netip.Prefix
	// Included are networks outside to which egress IPs apply, and to no others, as long as a
	// namespace or an EgressIP does not say otherwise; none for all.
	Included []netip.Prefix
	// PodNetworks are those of Inside that hold pods: for Strict, where the Node
	// has no podCIDR.
	PodNetworks []netip.Prefix
	// EgressIPs: those of k8s.ovn.org/v1 are served, too, where their definition is ours.
	EgressIPs bool
	// Strict: traffic that leaves the cluster is dropped if it comes from an
	// address of this node's pod CIDR that belongs to no pod that the agent knows.
	Strict bool
	// AwayAfter is how long no agent may run on the node until Strict ends, 0 for ever.
	AwayAfter time.Duration
	// CRISocket is the path of the container runtime's socket on the node, cri.Auto
	// for the first one that is where sockets usually are, or cri.None.
	CRISocket string
	// HostRun is where the node's /run is mounted.
	HostRun string
	// ResyncPeriod is how often the kernel is compared with the planned state
	// when no event asks for it.
	ResyncPeriod time.Duration
	// ProbePort is the UDP port on which hosts health-check each other, the same
	// on all nodes; 0 for no probes.
	ProbePort uint16
	// ProbeInterval is the time between two probes to one host; 0 for the default.
	ProbeInterval time.Duration
	// WithdrawAfter is how long a node must reach neither the API server nor a
	// majority of the hosts that it watches before it gives up its egress IPs; 0
	// for never.
	WithdrawAfter time.Duration
	// ARPProbe says what it means that another machine answers ARP requests for an
	// egress IP of the node: one of ARPProbes(), "" for the first. ARPIgnore are MAC
	// addresses whose answers mean nothing.
	ARPProbe  string
	ARPIgnore []net.HardwareAddr
	// EgressInterfaces are the interfaces on which egress IPs may be besides that of the node's
	// own address: names as patterns of package path, "auto" for those of hardware and what is
	// made of these, "none" alone for none.
	EgressInterfaces []string
	// SNATPorts says which source ports connections with an egress IP get: one of
	// SNATPorts(), "" for the first.
	SNATPorts string
	// AnnounceInterval is the time between two announcements of an egress IP while the
	// node has it; 0 for none.
	AnnounceInterval time.Duration
	// ResetConnections: pods get a TCP reset for connections whose source address
	// has changed, as by a failover.
	ResetConnections bool
	// GuardFilter: the guard is a tc filter although the kernel has TCX, for version 0.1.0.
	GuardFilter bool
	// DaemonSet is the one that runs the agents: when it has been deleted, an
	// agent that ends gives the node's egress IPs up. The zero value is for an
	// agent that is run otherwise, and leaves everything as it is.
	DaemonSet types.NamespacedName
	// Version is reported in the status.
	Version string
	Kernel  KernelOptions
}

// Validate reports everything that is wrong with the options.
func (o Options) Validate() error {
	var errs []error
	if o.NodeName == "" {
		errs = append(errs, errors.New("--node-name is empty: give the name of this node's Node object, "+
			"or set NODE_NAME, as the DaemonSet does from spec.nodeName"))
	}
	errs = append(
		errs,
		flagcheck.Listen("--metrics-bind-address", o.MetricsAddress),
		flagcheck.Listen("--health-probe-bind-address", o.HealthAddress),
	)
	if o.ResyncPeriod < minResyncPeriod || o.ResyncPeriod > maxResyncPeriod {
		errs = append(errs, fmt.Errorf("--resync-period %s: give a duration from %s to %s", o.ResyncPeriod, minResyncPeriod, maxResyncPeriod))
	}
	if o.ProbePort != 0 {
		if err := probeConfig(o.ProbeInterval).Validate(); err != nil {
			errs = append(errs, fmt.Errorf("--probe-interval %s: give a duration such as %s: %w", o.ProbeInterval, DefaultProbeInterval(), err))
		}
	}
	if err := egress.CheckIncluded(o.Included); err != nil {
		errs = append(errs, fmt.Errorf("--include-cidrs: %w", err))
	}
	if o.ARPProbe != "" && !slices.Contains(ARPProbes(), o.ARPProbe) {
		errs = append(errs, fmt.Errorf("--arp-probe %q: use one of %v", o.ARPProbe, ARPProbes()))
	}
	if o.SNATPorts != "" && !slices.Contains(SNATPorts(), o.SNATPorts) {
		errs = append(errs, fmt.Errorf("--snat-ports %q: use one of %v", o.SNATPorts, SNATPorts()))
	}
	if err := checkInterfaces(o.EgressInterfaces); err != nil {
		errs = append(errs, err)
	}
	if o.AnnounceInterval != 0 && o.AnnounceInterval < minAnnounceInterval {
		errs = append(errs, fmt.Errorf("--announce-interval %s: give a duration from %s, or 0 for none", o.AnnounceInterval, minAnnounceInterval))
	}
	if o.AwayAfter != 0 && o.AwayAfter < minAwayAfter {
		errs = append(errs, fmt.Errorf("--away-after %s: give a duration from %s, or 0 for never", o.AwayAfter, minAwayAfter))
	}
	if o.WithdrawAfter < 0 {
		errs = append(errs, fmt.Errorf("--withdraw-after %s: give a duration, or 0 for never", o.WithdrawAfter))
	}
	return errors.Join(append(errs, o.Kernel.Validate())...)
}

// NoInterfaces in Options.EgressInterfaces stands for none.
const NoInterfaces = "none"

// checkInterfaces reports what is wrong with Options.EgressInterfaces.
func checkInterfaces(patterns []string) error {
	for _, pattern := range patterns {
		if _, err := path.Match(pattern, ""); err != nil || pattern == "" {
			return fmt.Errorf("--egress-interfaces %q: give names of interfaces such as eth1, with * for any characters, or %s, or %s", pattern, dataplane.AnyInterface, NoInterfaces)
		}
		if pattern == NoInterfaces && len(patterns) > 1 {
			return fmt.Errorf("--egress-interfaces %s: %s stands alone", strings.Join(patterns, ","), NoInterfaces)
		}
	}
	return nil
}

// interfaces are those that the dataplane looks for.
func (o Options) interfaces() []string {
	if slices.Contains(o.EgressInterfaces, NoInterfaces) {
		return nil
	}
	return o.EgressInterfaces
}

// LockOptions say what a node knows about its cluster before it reaches the API
// server.
type LockOptions struct {
	// HostIP is the node's address, that of its default route if invalid.
	HostIP netip.Addr
	// Pods are the networks of the cluster's pods, Services those of its services, and
	// others that pods may send to.
	Pods, Services []netip.Prefix
	// ProbePort is the agents' probe port, 0 for none.
	ProbePort uint16
	Kernel    KernelOptions
}

// Validate reports everything that is wrong with the options.
func (o LockOptions) Validate() error {
	var errs []error
	if len(o.Pods) == 0 {
		errs = append(errs, errors.New("--cluster-cidrs is empty: give the pod networks of the cluster, such as 10.244.0.0/16"))
	}
	return errors.Join(append(errs, o.Kernel.Validate())...)
}

// KernelOptions say how the agent marks what is its own on the node.
type KernelOptions struct {
	// OverlayPort is the UDP port of the overlay, the same on all nodes.
	OverlayPort uint16
	// MarkMask holds the bits of the packet mark that are ours.
	MarkMask uint32
	// PinDir is a directory on a bpffs.
	PinDir string
	// Backend is one of Backends().
	Backend string
}

// DefaultKernelOptions are those that the flags start from.
func DefaultKernelOptions() KernelOptions {
	return KernelOptions{
		OverlayPort: 9789,
		MarkMask:    dataplane.DefaultMarks().Mask,
		PinDir:      "/sys/fs/bpf/egressip",
		Backend:     "auto",
	}
}

// ARPProbes are the choices of Options.ARPProbe.
func ARPProbes() []string {
	return []string{string(dataplane.ARPStrict), string(dataplane.ARPWarn), string(dataplane.ARPOff)}
}

// SNATPorts are the choices of Options.SNATPorts.
func SNATPorts() []string {
	return []string{string(dataplane.PreservePorts), string(dataplane.RandomPorts)}
}

// Backends are the choices of a place for our rules: a table of our own in nftables, or
// the chains of iptables. auto is nftables where the kernel can hold all rules so, else
// iptables; iptables means the backends of iptables in which the node's other rules are.
func Backends() []string {
	return []string{"auto", "nftables", "iptables", "iptables-nft", "iptables-legacy", "iptables-both"}
}

// Validate reports everything that is wrong with the options.
func (o KernelOptions) Validate() error {
	var errs []error
	if err := (dataplane.Marks{Mask: o.MarkMask}).Validate(); err != nil {
		errs = append(errs, fmt.Errorf("--mark-mask %#x: give more bits, such as %#x: %w", o.MarkMask, dataplane.DefaultMarks().Mask, err))
	}
	if !slices.Contains(Backends(), o.Backend) {
		errs = append(errs, fmt.Errorf("--backend %q: use one of %v", o.Backend, Backends()))
	}
	return errors.Join(errs...)
}
