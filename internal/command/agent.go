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
	var clusterCIDRs, serviceCIDRs cidrsValue
	o := agent.Options{Version: version, Kernel: agent.DefaultKernelOptions()}
	cmd := &cobra.Command{
		Use:   "agent",
		Short: "Make this node's kernel do what the objects ask",
		Long: `Brings this node's part of the cluster's egress IPs to its kernel, and repairs it
where something else changes it. Needs root, the node's network namespace, and
a bpffs. Ending it changes nothing in the kernel; "cleanup" takes everything off.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.Inside, o.PodNetworks = slices.Concat(clusterCIDRs, serviceCIDRs), clusterCIDRs
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
	f.StringVar(&o.NodeName, "node-name", os.Getenv("NODE_NAME"), "`name` of this node; from NODE_NAME by default")
	f.StringVar(&o.MetricsAddress, "metrics-bind-address", ":9792", "`address` of the metrics endpoint, 0 for none")
	f.StringVar(&o.HealthAddress, "health-probe-bind-address", "127.0.0.1:9793", "`address` of /healthz and /readyz, 0 for none")
	f.Var(&clusterCIDRs, "cluster-cidrs",
		"pod networks of the cluster as IPv4 `CIDRs` with commas between; needed where Nodes have no podCIDR")
	f.Var(&serviceCIDRs, "service-cidrs",
		"service networks as IPv4 `CIDRs` with commas between; those of ServiceCIDR objects are added (Kubernetes 1.33)")
	f.BoolVar(&o.Strict, "strict", true,
		"addresses of this node's pod CIDR, or of --cluster-cidrs where it has none, that belong to no known pod go nowhere outside the cluster")
	f.StringVar(&o.CRISocket, "cri-socket", cri.Auto,
		"`path` of the container runtime's socket, which tells new pods' addresses before their first packet; "+
			"auto is where such sockets usually are, none is to learn addresses from the API server alone")
	f.StringVar(&o.HostRun, "host-run", "/run", "`directory` in which the node's /run is seen")
	addBackendFlag(f, &o.Kernel)
	f.Uint16Var(&o.ProbePort, "probe-port", agent.DefaultProbePort,
		"UDP `port` on which hosts ask each other whether they are there, the same on all nodes; 0 for no probes")
	f.DurationVar(&o.ProbeInterval, "probe-interval", agent.DefaultProbeInterval(),
		"time between two probes to one host; three without an answer make it offline")
	f.DurationVar(&o.WithdrawAfter, "withdraw-after", time.Second,
		"how long a node must reach neither the API server nor most of the hosts that it watches to give up its egress IPs, 0 for never")
	f.BoolVar(&o.ResetConnections, "reset-connections", true,
		"reset a pod's TCP connections when their source address changes, as when their egress host has died; else they hang until the other end resets them")
	f.Var((*objectValue)(&o.DaemonSet), "daemonset",
		"`namespace/name` of the DaemonSet that runs the agents: once it is deleted, an agent that ends gives the node's egress IPs up")
	f.DurationVar(&o.ResyncPeriod, "resync-period", time.Second,
		"how often the kernel is compared with the planned state, beside on events")
	return cmd
}
