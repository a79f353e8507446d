// Command egressip-operator gives the namespaces of a Kubernetes cluster egress
// IPs, with the objects of OpenShift SDN. It is one program with a subcommand
// for each place where it runs.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/egressip-operator/egressip-operator/controllers"
	"github.com/egressip-operator/egressip-operator/internal/apiconn"
	"github.com/egressip-operator/egressip-operator/pkg/agent"
	"github.com/egressip-operator/egressip-operator/pkg/cri"
)

// version is stamped by the linker: -X main.version=v1.2.3.
var version string

func main() { os.Exit(run()) }

// run is main with an exit code that deferred calls get to see.
func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	// A second signal ends the program at once.
	context.AfterFunc(ctx, stop)

	cmd := rootCommand()
	if err := cmd.ExecuteContext(ctx); err != nil {
		fmt.Fprintf(cmd.ErrOrStderr(), "error: %v\n", err)
		return 1
	}
	return 0
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "egressip-operator",
		Short: "Egress IPs for any Kubernetes cluster, with the objects of OpenShift SDN",
		Long: `Gives a namespace's traffic out of the cluster a source address of its own:
NetNamespace objects request egress IPs, HostSubnet objects claim them for nodes.

The controller runs once in the cluster, the agent on every node.`,
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(controllerCommand(), agentCommand(), lockCommand(), cleanupCommand(), versionCommand())
	return root
}

func controllerCommand() *cobra.Command {
	var common commonOptions
	o := controllers.Options{Version: buildVersion()}
	var qps float32
	var burst int
	cmd := &cobra.Command{
		Use:   "controller",
		Short: "Keep NetNamespaces and HostSubnets, and assign egress IPs to automatic hosts",
		Long: `Keeps a NetNamespace for each Namespace and a HostSubnet for each Node, assigns
egress IPs to hosts with egressCIDRs, and tells in status, conditions and events
what has become of each request. Any number may run; one of them leads.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cfg, err := common.start(cmd)
			if err != nil {
				return err
			}
			if qps <= 0 || burst <= 0 {
				return fmt.Errorf("--kube-api-qps %v, --kube-api-burst %d: both must be greater than 0", qps, burst)
			}
			if o.DefaultCapacity < 0 {
				return fmt.Errorf("--default-capacity %d: give a number of egress IPs, or 0 for no limit", o.DefaultCapacity)
			}
			cfg.QPS, cfg.Burst = qps, burst
			return controllers.Run(ctx, cfg, o)
		},
	}
	f := cmd.Flags()
	common.add(f)
	f.StringVar(&o.MetricsAddress, "metrics-bind-address", ":9790", "`address` of the metrics endpoint, 0 for none")
	f.StringVar(&o.HealthAddress, "health-probe-bind-address", ":9791", "`address` of /healthz and /readyz, 0 for none")
	f.BoolVar(&o.LeaderElection, "leader-elect", true, "lead only while holding a Lease, so that several may run")
	f.StringVar(&o.LeaderElectionNamespace, "leader-election-namespace", "",
		"`namespace` of the Lease; the pod's own by default")
	f.IntVar(&o.DefaultCapacity, "default-capacity", 0,
		"greatest `number` of egress IPs on a host that does not say by annotation, 0 for no limit")
	f.Uint16Var(&o.ProbePort, "probe-port", agent.DefaultProbePort,
		"UDP `port` on which agents answer probes; 0 for none, and in a pod's network, where none are answered")
	f.DurationVar(&o.ProbeInterval, "probe-interval", agent.DefaultProbeInterval(),
		"time between two probes to one host; three without an answer, and the same from most agents, make it offline")
	f.Var((*addressValue)(&o.ProbeSource), "host-ip", "`address` of this node, from which probes are sent; the kernel's choice by default")
	f.Float32Var(&qps, "kube-api-qps", 50, "`requests` to the API server a second")
	f.IntVar(&burst, "kube-api-burst", 100, "`requests` to the API server in a burst")
	return cmd
}

func agentCommand() *cobra.Command {
	var common commonOptions
	var clusterCIDRs, serviceCIDRs cidrsValue
	o := agent.Options{Version: buildVersion(), Kernel: agent.DefaultKernelOptions()}
	cmd := &cobra.Command{
		Use:   "agent",
		Short: "Make this node's kernel do what the objects ask",
		Long: `Brings this node's part of the cluster's egress IPs to its kernel, and repairs it
where something else changes it. Needs root, the node's network namespace, and
a bpffs. Ending it changes nothing in the kernel; "cleanup" takes everything off.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.NodeName == "" {
				return errors.New("--node-name is empty: give the name of this node's Node object, " +
					"or set NODE_NAME, as the DaemonSet does from spec.nodeName")
			}
			const least, most = 100 * time.Millisecond, time.Hour
			if o.ResyncPeriod < least || o.ResyncPeriod > most {
				return fmt.Errorf("--resync-period %s: give a duration from %s to %s", o.ResyncPeriod, least, most)
			}
			if o.WithdrawAfter < 0 {
				return fmt.Errorf("--withdraw-after %s: give a duration, or 0 for never", o.WithdrawAfter)
			}
			ctx, cfg, err := common.start(cmd)
			if err != nil {
				return err
			}
			o.Inside, o.PodNetworks = slices.Concat(clusterCIDRs, serviceCIDRs), clusterCIDRs
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

func cleanupCommand() *cobra.Command {
	o := agent.DefaultKernelOptions()
	var logging loggingOptions
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "cleanup",
		Short: "Take everything of ours off this node",
		Long: `Removes from this node whatever an agent put there: egress IPs, the overlay device,
tc programs and maps, policy routes, sets, and rules in both iptables backends.
Nothing else is touched. Stop the agent first; give the flags that it ran with.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, err := logging.start(cmd)
			if err != nil {
				return err
			}
			if err := o.Validate(); err != nil {
				return err
			}
			if !dryRun {
				return agent.Cleanup(ctx, o)
			}
			leftovers, err := agent.Leftovers(ctx, o)
			for _, line := range leftovers {
				fmt.Fprintln(cmd.OutOrStdout(), line)
			}
			return err
		},
	}
	f := cmd.Flags()
	logging.add(f)
	addKernelFlags(f, &o)
	f.BoolVar(&dryRun, "dry-run", false, "list what would be removed, one object a line, and remove nothing")
	return cmd
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "egressip-operator %s %s %s/%s\n",
				buildVersion(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}

// buildVersion is the stamped version, else what the Go tool recorded.
func buildVersion() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	revision, modified := "", ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			revision = s.Value[:min(len(s.Value), 12)]
		case s.Key == "vcs.modified" && s.Value == "true":
			modified = "+dirty"
		}
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	if revision == "" {
		return "devel"
	}
	return "devel-" + revision + modified
}

// loggingOptions are the flags of every command that logs.
type loggingOptions struct {
	format  string
	verbose int
}

func (o *loggingOptions) add(f *pflag.FlagSet) {
	o.format = "text"
	f.Var(newChoice(&o.format, "text", "json"), "log-format", "`format` of the log: text or json")
	f.IntVarP(&o.verbose, "v", "v", 0, "`verbosity` of the log, 0 to 10")
}

// start routes all logs, those of libraries included, into one structured log
// on standard error.
func (o *loggingOptions) start(cmd *cobra.Command) (context.Context, error) {
	if o.verbose < 0 || o.verbose > 10 {
		return nil, fmt.Errorf("--v %d: give a number from 0 to 10", o.verbose)
	}
	handler := newHandler(cmd.ErrOrStderr(), o.format, o.verbose)
	log := logr.FromSlogHandler(handler)
	slog.SetDefault(slog.New(handler)) // and the standard library's log with it
	ctrl.SetLogger(log)
	klogFlags := flag.NewFlagSet("klog", flag.ContinueOnError)
	klog.InitFlags(klogFlags)
	if err := klogFlags.Set("v", strconv.Itoa(o.verbose)); err != nil {
		return nil, fmt.Errorf("set the verbosity of klog: %w", err)
	}
	klog.SetLogger(log)
	return ctrl.LoggerInto(cmd.Context(), log), nil
}

// newHandler makes a handler whose levels are logr's: verbosity n is -n.
func newHandler(w io.Writer, format string, verbose int) slog.Handler {
	o := &slog.HandlerOptions{Level: slog.Level(-verbose)}
	if format == "json" {
		return slog.NewJSONHandler(w, o)
	}
	return slog.NewTextHandler(w, o)
}

// commonOptions are the flags of commands that talk to the API server.
type commonOptions struct {
	loggingOptions
	kubeconfig string
}

func (o *commonOptions) add(f *pflag.FlagSet) {
	o.loggingOptions.add(f)
	f.StringVar(&o.kubeconfig, "kubeconfig", os.Getenv("KUBECONFIG"),
		"`file` with the address of the API server and credentials; from KUBECONFIG by default, else the pod's service account")
}

func (o *commonOptions) start(cmd *cobra.Command) (context.Context, *rest.Config, error) {
	ctx, err := o.loggingOptions.start(cmd)
	if err != nil {
		return nil, nil, err
	}
	if err := apiconn.CheckHealth(); err != nil {
		return nil, nil, err
	}
	if o.kubeconfig != "" {
		cfg, err := clientcmd.BuildConfigFromFlags("", o.kubeconfig)
		if err != nil {
			return nil, nil, fmt.Errorf("--kubeconfig %s: %w", o.kubeconfig, err)
		}
		return ctx, cfg, nil
	}
	cfg, err := rest.InClusterConfig()
	if err != nil {
		return nil, nil, fmt.Errorf("--kubeconfig is empty, and this is no pod with a service account: %w", err)
	}
	return ctx, cfg, nil
}

func addBackendFlag(f *pflag.FlagSet, o *agent.KernelOptions) {
	f.Var(newChoice(&o.IPTablesBackend, agent.Backends()...), "iptables-backend",
		"`backend` of our rules: auto, nft, legacy or both; auto is where the node's other rules are")
}

// addKernelFlags adds what agent and cleanup must agree on.
func addKernelFlags(f *pflag.FlagSet, o *agent.KernelOptions) {
	f.Uint16Var(&o.OverlayPort, "overlay-port", o.OverlayPort, "UDP `port` of the overlay, the same on all nodes")
	f.Var((*maskValue)(&o.MarkMask), "mark-mask", "`bits` of the packet mark that are ours")
	f.StringVar(&o.PinDir, "pin-dir", o.PinDir, "`directory` on a bpffs for our maps")
}

// choice is a flag with few values.
type choice struct {
	value   *string
	choices []string
}

func newChoice(value *string, choices ...string) *choice {
	return &choice{value: value, choices: choices}
}

func (c *choice) String() string {
	if c.value == nil {
		return ""
	}
	return *c.value
}

func (c *choice) Set(s string) error {
	if !slices.Contains(c.choices, s) {
		return fmt.Errorf("use one of: %s", strings.Join(c.choices, ", "))
	}
	*c.value = s
	return nil
}

func (*choice) Type() string { return "string" }

// maskValue is a flag with bits, given as 0x1f7f or in decimal.
type maskValue uint32

func (m *maskValue) String() string { return fmt.Sprintf("%#x", uint32(*m)) }

func (m *maskValue) Set(s string) error {
	n, err := strconv.ParseUint(s, 0, 32)
	if err != nil {
		return errors.New("give 32 bits, such as 0x1f7f")
	}
	o := agent.DefaultKernelOptions()
	o.MarkMask = uint32(n)
	if err := o.Validate(); err != nil {
		return err
	}
	*m = maskValue(n)
	return nil
}

func (*maskValue) Type() string { return "hex" }

// objectValue is a flag with the name of an object in a namespace.
type objectValue types.NamespacedName

func (o *objectValue) String() string {
	if o.Name == "" {
		return ""
	}
	return o.Namespace + "/" + o.Name
}

func (o *objectValue) Set(s string) error {
	namespace, name, ok := strings.Cut(s, "/")
	if !ok || namespace == "" || name == "" || strings.Contains(name, "/") {
		return errors.New("give namespace/name, such as egressip-system/egressip-agent")
	}
	o.Namespace, o.Name = namespace, name
	return nil
}

func (*objectValue) Type() string { return "object" }

// addressValue is a flag with an IPv4 address.
type addressValue netip.Addr

func (a *addressValue) String() string {
	if ip := netip.Addr(*a); ip.IsValid() {
		return ip.String()
	}
	return ""
}

func (a *addressValue) Set(s string) error {
	ip, err := netip.ParseAddr(s)
	if err != nil {
		return errors.New("give an address, such as 192.168.7.11")
	}
	// Of a node whose first address is IPv6, the kernel chooses the other one.
	if *a = (addressValue{}); ip.Is4() {
		*a = addressValue(ip)
	}
	return nil
}

func (*addressValue) Type() string { return "address" }

// cidrsValue is a flag with IPv4 networks; given twice, it adds up.
type cidrsValue []netip.Prefix

func (c *cidrsValue) String() string {
	texts := make([]string, len(*c))
	for i, p := range *c {
		texts[i] = p.String()
	}
	return strings.Join(texts, ",")
}

func (c *cidrsValue) Set(s string) error {
	for text := range strings.SplitSeq(s, ",") {
		text = strings.TrimSpace(text)
		if text == "" {
			continue
		}
		p, err := netip.ParsePrefix(text)
		switch {
		case err != nil:
			return fmt.Errorf("%q is no CIDR; give IPv4 networks such as 10.244.0.0/16", text)
		case !p.Addr().Is4():
			return fmt.Errorf("%q is not IPv4; give IPv4 networks such as 10.244.0.0/16", text)
		case p.Bits() == 0:
			return fmt.Errorf("%q holds every address, so that no traffic would be egress traffic; give the cluster's networks", text)
		case p != p.Masked():
			return fmt.Errorf("%q has host bits; give %s", text, p.Masked())
		}
		*c = append(*c, p)
	}
	return nil
}

func (*cidrsValue) Type() string { return "CIDRs" }
