package command

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/client-go/rest"

	"github.com/egressip-operator/egressip-operator/controllers"
	"github.com/egressip-operator/egressip-operator/pkg/probe"
)

// egressIPAPIUsage is the same for controller and agents, which must agree.
const egressIPAPIUsage = "serve EgressIPs (k8s.ovn.org/v1), unless their CustomResourceDefinition is another software's"

func controllerCommand(version string) *cobra.Command {
	var common commonOptions
	o := controllers.Options{Version: version}
	var limits requestLimits
	cmd := &cobra.Command{
		Use:   "controller",
		Short: "Maintain NetNamespaces and HostSubnets, and assign egress IPs to automatic hosts",
		Long: `Maintains a NetNamespace for each Namespace and a HostSubnet for each Node, assigns
egress IPs to hosts with egressCIDRs, and reports the result of each request in
status, conditions and events. Several may run; one of them leads.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cfg, err := common.start(cmd)
			if err := errors.Join(err, limits.Validate(), o.Validate()); err != nil {
				return err
			}
			limits.apply(cfg)
			return controllers.Run(ctx, cfg, o)
		},
	}
	f := cmd.Flags()
	common.add(f)
	f.StringVar(&o.MetricsAddress, "metrics-bind-address", ":9790", "`address` of the metrics endpoint, 0 for none")
	f.BoolVar(&o.MetricsSecure, "metrics-secure", true,
		"serve metrics over HTTPS, and only to clients whose bearer token the API server allows to get /metrics")
	f.BoolVar(&o.Page, "page", false, "serve a read-only page for browsers under /page, beside metrics, to clients that the API server allows to get that; needs --metrics-secure")
	f.BoolVar(&o.Profiling, "profiling", false,
		"serve profiles of this process at /debug/pprof of the metrics endpoint, to clients that the API server allows to get that")
	f.StringVar(&o.HealthAddress, "health-probe-bind-address", ":9791", "`address` of /healthz and /readyz, 0 for none")
	f.BoolVar(&o.LeaderElection, "leader-elect", true, "work only while holding a Lease, so that several controllers may run")
	f.StringVar(&o.LeaderElectionNamespace, "leader-election-namespace", "",
		"`namespace` of the Lease; that of the pod by default")
	f.StringVar(&o.NodeName, "node-name", "", "`name` of the Node that the controller runs on, for the Lease; that of the machine by default")
	f.StringVar(&o.PodUID, "pod-uid", "", "`UID` of the controller's pod, so that a restarted container goes on with its Lease; random by default")
	f.IntVar(&o.DefaultCapacity, "default-capacity", 0,
		"maximum `number` of egress IPs on a host whose Node has no annotation that limits it, 0 for no limit")
	f.DurationVar(&o.HostRetention, "host-retention", time.Hour,
		"how long a HostSubnet is kept after its Node is gone, 0 to delete it at once")
	f.DurationVar(&o.ClaimRetention, "claim-retention", 5*time.Minute,
		"how long egress IPs that a user, or a restore, wrote into the list of an automatic host are kept although no namespace requests them, 0 for not at all")
	f.BoolVar(&o.EgressIPs, "egressip-api", true, egressIPAPIUsage)
	f.DurationVar(&o.PoolRetention, "pool-retention", 24*time.Hour,
		"how long an address of an EgressIPPool is kept for an EgressIPRequest that is gone, 0 for not at all")
	f.StringVar(&o.RecordDir, "record-dir", "", "`directory` on a volume for the record of use, which several controllers may share; by default it is in memory alone")
	f.IntVar(&o.RecordMaxSize, "record-max-size", 50, "how large all files of the record of use may become together, in `MiB`: the oldest are removed")
	f.BoolVar(&o.FindNetworks, "find-networks", true,
		"read the networks of pods and services from objects of the CNI and of the cluster, where they exist and may be read")
	f.Var((*cidrsValue)(&o.Included), "include-cidrs", "networks outside as comma-separated `CIDRs` to which egress IPs apply, as agents have them: the status says so")
	f.Var((*cidrsValue)(&o.ServiceCIDRs), "service-cidrs", "service networks as comma-separated `CIDRs`, as agents have them: egress IPs there are refused")
	f.Uint16Var(&o.ProbePort, "probe-port", probe.Port,
		"UDP `port` of probes; 0 disables probes: use it without hostNetwork, where hosts do not answer")
	f.DurationVar(&o.ProbeInterval, "probe-interval", probe.DefaultConfig().Interval,
		"time between two probes of a host; it is offline after three without an answer, if most of its witnesses find the same")
	f.Var((*addressValue)(&o.ProbeSource), "host-ip", "`address` of this node from which probes are sent; by default one of IPv4 that the kernel chooses")
	limits.add(f)
	return cmd
}

// requestLimits limit the requests to the API server, which by default limits them
// itself.
type requestLimits struct {
	qps   float32
	burst int
}

func (l *requestLimits) add(f *pflag.FlagSet) {
	f.Float32Var(&l.qps, "kube-api-qps", 0, "`requests` to the API server per second, 0 for no limit")
	f.IntVar(&l.burst, "kube-api-burst", 100, "`requests` to the API server in a burst, if --kube-api-qps limits them")
}

// Validate reports everything that is wrong with the limits.
func (l *requestLimits) Validate() error {
	var errs []error
	if l.qps < 0 {
		errs = append(errs, fmt.Errorf("--kube-api-qps %v: give a number of requests per second, or 0 for no limit", l.qps))
	}
	if l.burst <= 0 {
		errs = append(errs, fmt.Errorf("--kube-api-burst %d: give a number greater than 0", l.burst))
	}
	return errors.Join(errs...)
}

func (l *requestLimits) apply(cfg *rest.Config) {
	cfg.QPS, cfg.Burst = l.qps, l.burst
	if l.qps == 0 {
		cfg.QPS = -1
	}
}
