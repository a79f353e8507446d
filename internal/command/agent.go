package command

import (
	"errors"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/egressip-operator/egressip-operator/pkg/agent"
	"github.com/egressip-operator/egressip-operator/pkg/cri"
)

func agentCommand(version string) *cobra.Command {
	var common commonOptions
	var clusterCIDRs, serviceCIDRs, excludeCIDRs, includeCIDRs cidrsValue
	o := agent.Options{Version: version, ARPProbe: agent.ARPProbes()[0], SNATPorts: agent.SNATPorts()[0], Kernel: agent.DefaultKernelOptions()}
	cmd := &cobra.Command{
		Use:   "agent",
		Short: "Configure this node's kernel as the objects ask",
		Long: `Configures this node's part of the cluster's egress IPs in its kernel, and repairs it
when other software changes it. It needs root, the node's network namespace, and a
bpffs. Stopping it changes nothing in the kernel; "cleanup" removes everything.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.Inside, o.PodNetworks = slices.Concat(clusterCIDRs, serviceCIDRs, excludeCIDRs), clusterCIDRs
			o.Included = includeCIDRs
			ctx, cfg, err := common.start(cmd)
			if err := errors.Join(err, o.Validate()); err != nil {
				return err
			}
			return agent.Run(ctx, cfg, o)
		},
	}
	f := cmd.Flags()
	common.add(f)
	addKernelFlags(f, &o.Kernel)
	f.StringVar(&o.NodeName, "node-name", os.Getenv("NODE_NAME"), "`name` of this node; NODE_NAME by default")
	f.StringVar(&o.MetricsAddress, "metrics-bind-address", ":9792", "`address` of the metrics endpoint, 0 for none")
	f.BoolVar(&o.MetricsSecure, "metrics-secure", true,
		"serve metrics over HTTPS, and only to clients whose bearer token the API server allows to get /metrics")
	f.BoolVar(&o.Profiling, "profiling", false,
		"serve profiles of this process at /debug/pprof of the metrics endpoint, to clients that the API server allows to get that")
	f.StringVar(&o.HealthAddress, "health-probe-bind-address", "127.0.0.1:9793", "`address` of /healthz and /readyz, 0 for none")
	f.Var(&clusterCIDRs, "cluster-cidrs",
		"pod networks of the cluster as comma-separated `CIDRs`, in addition to the Nodes' podCIDRs and to those that agents find; also those of IPv6")
	f.Var(&serviceCIDRs, "service-cidrs",
		"service networks as comma-separated `CIDRs`, in addition to those of ServiceCIDR objects (Kubernetes 1.33)")
	f.Var(&excludeCIDRs, "exclude-cidrs",
		"further networks as comma-separated `CIDRs` to which all pods send as if there were no egress IPs")
	f.Var(&includeCIDRs, "include-cidrs",
		"networks outside as comma-separated `CIDRs` to which egress IPs apply, and to no others, unless a NetNamespace or an EgressIP says otherwise by its annotations; all by default")
	f.BoolVar(&o.EgressIPs, "egressip-api", true, egressIPAPIUsage)
	f.BoolVar(&o.Strict, "strict", true,
		"drop traffic that leaves the cluster from addresses of this node's pod CIDR, or of --cluster-cidrs if it has none, that belong to no known pod")
	f.DurationVar(&o.AwayAfter, "away-after", 2*time.Minute,
		"how long no agent may run on the node until --strict ends there, so that new pods work; 0 for never")
	f.StringVar(&o.CRISocket, "cri-socket", cri.Auto,
		"`path` of the container runtime's socket, from which the agent learns new pods' addresses before their first packet; "+
			"auto tries the usual paths, none learns addresses from the API server only")
	f.StringVar(&o.HostRun, "host-run", "/run", "`directory` where the node's /run is mounted")
	addBackendFlag(f, &o.Kernel)
	f.Uint16Var(&o.ProbePort, "probe-port", agent.DefaultProbePort,
		"UDP `port` on which hosts health-check each other, the same on all nodes; 0 disables probes")
	f.DurationVar(&o.ProbeInterval, "probe-interval", agent.DefaultProbeInterval(),
		"time between two probes of a host; it is offline after three without an answer")
	f.DurationVar(&o.WithdrawAfter, "withdraw-after", time.Second,
		"how long a node must reach neither the API server nor most of the hosts that it watches before it gives up its egress IPs (ten times as long where only probes are blocked), 0 for never")
	f.Var(newChoice(&o.ARPProbe, agent.ARPProbes()...), "arp-probe",
		"what it means that another machine answers ARP requests for an egress IP: `mode` strict does not add the address, warn adds and reports it, off asks and hears nobody")
	f.Var((*macsValue)(&o.ARPIgnore), "arp-ignore-macs",
		"comma-separated `MACs` of machines that answer ARP requests for every address, as in the networks of some clouds: their answers mean nothing")
	f.Var(newChoice(&o.SNATPorts, agent.SNATPorts()...), "snat-ports",
		"source ports of connections with an egress IP: `mode` preserve keeps the pod's port as long as it is free, random gives any")
	f.StringSliceVar(&o.EgressInterfaces, "egress-interfaces", []string{"auto"},
		"comma-separated `names` of interfaces on which egress IPs may be besides that of the node's own address, with * for any characters; auto for those of hardware, VLANs, bonds, teams and macvlans, none for none")
	f.DurationVar(&o.AnnounceInterval, "announce-interval", time.Minute,
		"time between two announcements of an egress IP while the node has it, with a question who else does; 0 for none")
	f.BoolVar(&o.ResetConnections, "reset-connections", true,
		"reset a pod's TCP connections when their source address changes, for example because their egress host died; otherwise they hang until the other end resets them")
	f.BoolVar(&o.GuardFilter, "guard-filter", false,
		"attach the guard as a tc filter although the kernel has TCX (Linux 6.6): before a downgrade to 0.1.0, which knows filters alone")
	f.Var((*objectValue)(&o.DaemonSet), "daemonset",
		"`namespace/name` of the DaemonSet that runs the agents: once it is deleted, an agent that stops gives up the node's egress IPs")
	f.DurationVar(&o.ResyncPeriod, "resync-period", time.Second,
		"how often the kernel is compared with the planned state, in addition to events")
	return cmd
}
