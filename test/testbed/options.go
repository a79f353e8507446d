package testbed

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
)

// Addresses that are the same in every test bed.
const (
	// BastionIP is outside the cluster; it serves HTTP and UDP echo on
	// BastionPort, TCP echo on BastionEchoPort.
	BastionIP       = "10.1.8.72"
	BastionPort     = 8080
	BastionEchoPort = 8081
	// LANHostIP is a host on the nodes' LAN that is no node.
	LANHostIP = "192.168.7.60"
	// ClusterCIDR holds all pods, ServiceCIDR all ClusterIPs.
	ClusterCIDR = "10.254.0.0/16"
	ServiceCIDR = "10.96.0.0/16"

	routerIP       = "192.168.7.1"
	controlPlaneIP = "192.168.7.10"
	routerOuterIP  = "10.1.8.1"
)

// Addresses of IPv6, which a test bed with DualStack has in addition, one with IPv6Only alone.
const (
	BastionIPv6   = "fd00:1:8::72"
	LANHostIPv6   = "fd00:7::60"
	ClusterCIDRv6 = "fd00:254::/48"
	ServiceCIDRv6 = "fd00:96::/112"

	routerIPv6       = "fd00:7::1"
	controlPlaneIPv6 = "fd00:7::10"
	routerOuterIPv6  = "fd00:1:8::1"

	// firstServiceIP and firstServiceIPv6 are the API server's own in each range of ClusterIPs.
	firstServiceIP   = "10.96.0.1"
	firstServiceIPv6 = "fd00:96::1"
)

// Places in which commands run, in addition to the nodes.
const (
	Router       = "router"
	Bastion      = "bastion"
	LANHost      = "lanhost"
	ControlPlane = "control-plane"
	lan          = "lan"
)

// TrafficImage is the image of the program in cmd/traffic, loaded on every node.
// Its entrypoint is /traffic, its default command "pause".
const TrafficImage = "testbed.local/traffic:1"

// Backend is an implementation of iptables in the kernel.
type Backend string

// The backends. The zero value means NFT.
const (
	NFT    Backend = "nft"
	Legacy Backend = "legacy"
)

// CNI is what connects the pods of a test bed.
type CNI string

// The CNIs. The zero value means Bridge.
const (
	// Bridge and PTP are the plugins of these names, with static routes between nodes and
	// one rule of iptables that masquerades what leaves the cluster.
	Bridge CNI = "bridge"
	PTP    CNI = "ptp"
	// Flannel is flannel with its backend vxlan, FlannelHostGW with host-gw, FlannelNFT
	// with vxlan and rules in nftables.
	Flannel       CNI = "flannel"
	FlannelHostGW CNI = "flannel-host-gw"
	FlannelNFT    CNI = "flannel-nftables"
	// KubeRouter is kube-router without its service proxy: routes by BGP, network
	// policies.
	KubeRouter CNI = "kube-router"
)

// CNIs returns all of them.
func CNIs() []CNI { return []CNI{Bridge, PTP, Flannel, FlannelHostGW, FlannelNFT, KubeRouter} }

// Program returns the name of the pinned program that it runs on each node, or "".
func (c CNI) Program() string {
	switch c {
	case Flannel, FlannelHostGW, FlannelNFT:
		return "flannel"
	case KubeRouter:
		return "kube-router"
	case Bridge, PTP:
	}
	return ""
}

// ProxyMode is how kube-proxy makes Services.
type ProxyMode string

// The modes. The zero value means ProxyIPTables.
const (
	ProxyIPTables ProxyMode = "iptables"
	ProxyNFTables ProxyMode = "nftables"
	// ProxyIPVS needs a kernel that has IPVS and dummy devices.
	ProxyIPVS ProxyMode = "ipvs"
)

// ProxyModes returns all of them.
func ProxyModes() []ProxyMode { return []ProxyMode{ProxyIPTables, ProxyNFTables, ProxyIPVS} }

// Options describe a test bed. The zero value is a good one.
type Options struct {
	// Prefix begins the names of all that the test bed makes: 1 to 8 lower
	// case letters and digits. The default is "eip".
	Prefix string
	// Nodes is their number, 1 to 40; the default is 3.
	Nodes int
	// Backend holds the nodes' own rules: kube-proxy's, the CNI's, and the
	// masquerading of pod traffic that leaves the cluster.
	Backend Backend
	// CNI connects pods; the default is Bridge.
	CNI CNI
	// ProxyMode is kube-proxy's; the default is ProxyIPTables.
	ProxyMode ProxyMode
	// MTU of the LAN, and of pods unless the CNI makes it smaller, in bytes; the default is 1500.
	MTU int
	// PodAddresses is how many addresses a node has for its pods, at least 8; the
	// default is all of its pod CIDR. With few of them, new pods soon get
	// addresses of former ones.
	PodAddresses int
	// DualStack gives nodes, pods, Services, the bastion and everything between them
	// addresses of IPv6, too; with Bridge and PTP alone.
	DualStack bool
	// IPv6Only gives all of these addresses of IPv6 and none of IPv4, but for loopback
	// interfaces; with Bridge and PTP alone.
	IPv6Only bool
	// NoPodCIDRs leaves the Nodes without a podCIDR, as a CNI does that gives addresses
	// out of pools of its own. The pods have the same addresses as otherwise.
	NoPodCIDRs bool
	// Images are docker-archive files to load on every node.
	Images []string
	// Detached keeps the test bed after this process has ended. Otherwise Up by
	// another process removes it then.
	Detached bool
	// NodeMonitorGrace is how long a node may be silent before it is NotReady;
	// the default is 16 s, stretched as a slow machine needs it.
	NodeMonitorGrace time.Duration
	// Progress takes a line for each step; nil discards them.
	Progress io.Writer `json:"-"`
}

// withDefaults fills in what is not given, and fails if a value is out of range.
func (o Options) withDefaults() (Options, error) {
	o.Prefix = cmp.Or(o.Prefix, "eip")
	o.Nodes = cmp.Or(o.Nodes, 3)
	o.Backend = cmp.Or(o.Backend, NFT)
	o.CNI = cmp.Or(o.CNI, Bridge)
	o.ProxyMode = cmp.Or(o.ProxyMode, ProxyIPTables)
	o.MTU = cmp.Or(o.MTU, 1500)
	o.NodeMonitorGrace = cmp.Or(o.NodeMonitorGrace, testenv.Stretch(16*time.Second))
	if o.Progress == nil {
		o.Progress = io.Discard
	}
	errs := o.outOfRange()
	for i, image := range o.Images {
		path, err := filepath.Abs(image)
		if err == nil {
			_, err = os.Stat(path)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("image: %w", err))
		}
		o.Images[i] = path
	}
	return o, errors.Join(errs...)
}

// outOfRange returns an error for each value that cannot be.
func (o Options) outOfRange() (errs []error) {
	if !regexp.MustCompile(`^[a-z0-9]{1,8}$`).MatchString(o.Prefix) {
		errs = append(errs, fmt.Errorf("prefix %q: want 1 to 8 lower case letters and digits", o.Prefix))
	}
	if o.Nodes < 1 || o.Nodes > 40 {
		errs = append(errs, fmt.Errorf("%d nodes: want 1 to 40", o.Nodes))
	}
	if o.Backend != NFT && o.Backend != Legacy {
		errs = append(errs, fmt.Errorf("backend %q: want %s or %s", o.Backend, NFT, Legacy))
	}
	if !slices.Contains(CNIs(), o.CNI) {
		errs = append(errs, fmt.Errorf("CNI %q: want one of %v", o.CNI, CNIs()))
	}
	if !slices.Contains(ProxyModes(), o.ProxyMode) {
		errs = append(errs, fmt.Errorf("mode %q of kube-proxy: want one of %v", o.ProxyMode, ProxyModes()))
	}
	if o.MTU < 600 || o.MTU > 9000 {
		errs = append(errs, fmt.Errorf("MTU %d: want 600 to 9000", o.MTU))
	}
	if o.PodAddresses != 0 && (o.PodAddresses < 8 || o.PodAddresses > 250) {
		errs = append(errs, fmt.Errorf("%d pod addresses: want 8 to 250", o.PodAddresses))
	}
	return append(errs, o.atOdds()...)
}

// atOdds returns an error for each pair of values that cannot be together.
func (o Options) atOdds() (errs []error) {
	if o.CNI.Program() != "" && (o.NoPodCIDRs || o.PodAddresses != 0) {
		errs = append(errs, fmt.Errorf("CNI %s gives pods all addresses of their Node's podCIDR", o.CNI))
	}
	if o.CNI.Program() != "" && o.ipv6() {
		errs = append(errs, fmt.Errorf("CNI %s is run with IPv4 alone", o.CNI))
	}
	if o.DualStack && o.IPv6Only {
		errs = append(errs, errors.New("both families, and IPv6 alone: want one of the two"))
	}
	if o.ipv6() && o.MTU < 1280 {
		errs = append(errs, fmt.Errorf("MTU %d: a link has no IPv6 below 1280", o.MTU))
	}
	return errs
}

// nodeName, nodeIP and podCIDR of the i-th node, from 1.
func nodeName(i int) string { return fmt.Sprintf("node%d", i) }

func nodeIP(i int) netip.Addr { return netip.AddrFrom4([4]byte{192, 168, 7, byte(10 + i)}) }

func podCIDR(i int) string { return fmt.Sprintf("10.254.%d.0/24", i) }

// nodeIPv6 and podCIDRv6 are those of IPv6.
func nodeIPv6(i int) netip.Addr { return netip.MustParseAddr(fmt.Sprintf("fd00:7::1:%x", i)) }

func podCIDRv6(i int) string { return fmt.Sprintf("fd00:254:0:%x::/64", i) }

// ipv4 and ipv6 report whether the test bed has addresses of a family.
func (o Options) ipv4() bool { return !o.IPv6Only }

func (o Options) ipv6() bool { return o.DualStack || o.IPv6Only }

// families returns, of what there is for IPv4 and for IPv6, that of the families which the
// test bed has, IPv4 first.
func (o Options) families(v4, v6 string) []string {
	switch {
	case o.DualStack:
		return []string{v4, v6}
	case o.IPv6Only:
		return []string{v6}
	}
	return []string{v4}
}

// joined is families as flags of Kubernetes take them.
func (o Options) joined(v4, v6 string) string { return strings.Join(o.families(v4, v6), ",") }

// first is the first of families: Nodes, pods and Services have their first address of it.
func (o Options) first(v4, v6 string) string { return o.families(v4, v6)[0] }

// Base is the directory that holds those of all test beds.
func Base() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the cache directory: %w", err)
	}
	return filepath.Join(cache, "egressip-operator", "testbed"), nil
}
