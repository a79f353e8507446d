package controllers

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/egressip-operator/egressip-operator/internal/endpoint"
	"github.com/egressip-operator/egressip-operator/internal/flagcheck"
	"github.com/egressip-operator/egressip-operator/pkg/probe"
)

// Options say how the controller works. The zero value works for one controller
// that serves neither metrics nor health.
type Options struct {
	// MetricsAddress and HealthAddress are host:port to listen on, "0" or ""
	// for none.
	MetricsAddress, HealthAddress string
	// MetricsSecure: metrics are served over HTTPS, to clients that the API server
	// allows to get /metrics.
	MetricsSecure bool
	// Page: the page for browsers is served at MetricsAddress, to clients that the API server
	// allows to get it; it needs MetricsSecure.
	Page bool
	// Profiling: profiles of the process are served besides metrics, to clients that the API
	// server allows to get /debug/pprof.
	Profiling bool
	// LeaderElection makes the controller work only while it holds a Lease, in
	// LeaderElectionNamespace; "" is the namespace of its pod.
	LeaderElection          bool
	LeaderElectionNamespace string
	// NodeName and PodUID are the Node that the controller runs on, and its pod: its
	// name in the Lease. A container that is restarted then goes on with its own
	// Lease. "" stands for the machine's name and a random part.
	NodeName, PodUID string
	// DefaultCapacity is the greatest number of egress IPs on a host whose Node
	// has no annotation that gives one; 0 for no limit.
	DefaultCapacity int
	// HostRetention is how long a HostSubnet is kept after its Node; 0 deletes it at
	// once.
	HostRetention time.Duration
	// ClaimRetention is how long claims that a user wrote into the list of an
	// automatic host are kept although no namespace requests them; 0 for not at all.
	ClaimRetention time.Duration
	// EgressIPs: those of k8s.ovn.org/v1 are served, too, where their definition is ours.
	EgressIPs bool
	// PoolRetention is how long an address of a pool is kept for a request that is gone; 0 for not
	// at all.
	PoolRetention time.Duration
	// FindNetworks: networks of pods and services that objects of the CNI and of the cluster
	// name are published.
	FindNetworks bool
	// Included are networks outside to which egress IPs apply, as agents are given them; for messages.
	Included []netip.Prefix
	// ServiceCIDRs are networks of services, as agents are given them: no egress IP can be
	// there.
	ServiceCIDRs []netip.Prefix
	// RecordDir is a directory for the record of use; empty for a record in memory alone.
	// RecordMaxSize is how large all its files together may become, in MiB; 0 only without one.
	RecordDir     string
	RecordMaxSize int
	// ProbePort is the UDP port of probes; 0 for no probes. The kernels of hosts answer
	// them over the overlay, or agents at that port of the node; both only to hosts.
	ProbePort uint16
	// ProbeInterval is the time between two probes to one host; 0 for the
	// default.
	ProbeInterval time.Duration
	// ProbeSource is the address of the node that the controller runs on; the
	// zero value leaves the choice to the kernel.
	ProbeSource netip.Addr
	// Version is logged.
	Version string
}

// Validate reports everything that is wrong with the options.
func (o Options) Validate() error {
	errs := []error{
		flagcheck.Listen("--metrics-bind-address", o.MetricsAddress),
		flagcheck.Listen("--health-probe-bind-address", o.HealthAddress),
	}
	if o.Page && (endpoint.None(o.MetricsAddress) || !o.MetricsSecure) {
		errs = append(errs, errors.New("--page: the page is served beside metrics, to known clients only: set --metrics-bind-address to an address and --metrics-secure to true"))
	}
	config := probe.DefaultConfig()
	if err := config.WithInterval(o.ProbeInterval).Validate(); err != nil {
		errs = append(errs, fmt.Errorf("--probe-interval %s: give a duration such as %s: %w", o.ProbeInterval, config.Interval, err))
	}
	if o.ProbeSource.Is4In6() || o.ProbeSource.Zone() != "" {
		errs = append(errs, fmt.Errorf("--host-ip %s: give an address of the node, of IPv4 or of IPv6 without zone", o.ProbeSource))
	}
	if o.DefaultCapacity < 0 {
		errs = append(errs, fmt.Errorf("--default-capacity %d: give a number of egress IPs, or 0 for no limit", o.DefaultCapacity))
	}
	if o.HostRetention < 0 {
		errs = append(errs, fmt.Errorf("--host-retention %s: give a duration such as 1h, or 0 to delete a HostSubnet with its Node", o.HostRetention))
	}
	if o.PoolRetention < 0 {
		errs = append(errs, fmt.Errorf("--pool-retention %s: give a duration such as 24h, or 0 to keep no address for a request that is gone", o.PoolRetention))
	}
	if o.ClaimRetention < 0 {
		errs = append(errs, fmt.Errorf("--claim-retention %s: give a duration such as 5m, or 0 to keep no claim that is not requested", o.ClaimRetention))
	}
	if o.RecordDir != "" && (!filepath.IsAbs(o.RecordDir) || o.RecordMaxSize < 1) {
		errs = append(errs, fmt.Errorf("--record-dir %s, --record-max-size %d: give the absolute path of a directory, and a number of MiB greater than 0", o.RecordDir, o.RecordMaxSize))
	}
	return errors.Join(errs...)
}
