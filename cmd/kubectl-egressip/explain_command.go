package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// explainCommand returns the command that says why something is as it is.
func explainCommand(out io.Writer, config clientcmd.ClientConfig) *cobra.Command {
	p := podCommand{config: config}
	cmd := &cobra.Command{
		Use:   "explain [NAMESPACE | egressip/NAME | pod/NAME | ip/ADDRESS]",
		Short: "Explain why namespaces, EgressIPs, pods and addresses have or lack egress IPs, and what to do",
		Long: `Explain why something is as it is, and what to do about it.

Of namespaces and EgressIPs: which egress IP is where, in which state, and why.

Of a pod: the way of its packets, step by step: the group that decides, the egress IPs and their hosts,
the source that a destination outside sees, and the rule that decides. With --to, what becomes of
packets to one address. It is decided as the agent of the pod's node decides it, from the same
objects, and compared with what agents report. What the API does not say is listed as not known.
NetworkPolicies, and packet filters of others, are not looked at.

With --live, the agents of the pod's host and of its egress hosts read their kernels back at once: sets,
maps, rules, routes, addresses, neighbours and filters that the pod's packets depend on. What is not as
meant is listed: missing, foreign (of others) or stale (ours, of something else). The exit code is 3 then,
2 if something could only not be read, and 0 if all is as meant. A kernel is behind the API for a moment:
ask again before you act.

Of an address: who requests, claims and has it, and what would become of a request for it.`,
		Example: `  kubectl egressip explain                                    # all that request egress IPs
  kubectl egressip explain shop                               # one namespace
  kubectl egressip explain egressip/web                       # one EgressIP
  kubectl egressip explain pod/web-1 -n shop                  # the way of a pod's packets
  kubectl egressip explain pod/web-1 -n shop --to 203.0.113.9:443
  kubectl egressip explain pod/web-1 -n shop --live           # what the kernels really have
  kubectl egressip explain ip/192.168.7.200                   # who has an address, or could have it`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: completion(config, explainable),
	}
	cmd.Flags().StringVarP(&p.namespace, "namespace", "n", "", "`namespace` of the pod; that of the context by default")
	cmd.Flags().StringVar(&p.to, "to", "", "`destination` of a pod's packets: ADDRESS or ADDRESS:PORT")
	cmd.Flags().BoolVar(&p.live, "live", false, "ask the agents what the kernels of the pod's host and of its egress hosts have, and compare it")
	f := addFormat(cmd.Flags(), formatTable, formatJSON, formatYAML)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		kind, name := "", ""
		if len(args) > 0 {
			kind, name, _ = strings.Cut(args[0], "/")
		}
		switch kind = strings.ToLower(kind); {
		case (p.to != "" || p.live) && kind != "pod":
			return errors.New("--to and --live are for explain pod/NAME")
		case kind == "pod" || kind == "ip":
			if name == "" {
				return fmt.Errorf("%s/ names nothing: give %s", kind, map[string]string{"pod": "pod/NAME", "ip": "ip/ADDRESS"}[kind])
			}
		case *f != formatTable:
			return fmt.Errorf("-o %s is for explain pod/NAME and ip/ADDRESS; the objects themselves have the status of namespaces and EgressIPs: kubectl get netnamespaces,eip -o %s", *f, *f)
		}
		o, c, err := connect(cmd.Context(), config)
		if err != nil {
			return err
		}
		switch kind {
		case "pod":
			return p.run(cmd.Context(), out, c, o, name, *f)
		case "ip":
			ip, err := netip.ParseAddr(name)
			if err != nil {
				return fmt.Errorf("ip/%s is no address: %w", name, err)
			}
			e := explainIP(cmd.Context(), c, o, ip.Unmap())
			return f.print(out, e, func() error { return e.print(out) })
		}
		group := ""
		if len(args) > 0 {
			group = groupOf(args[0])
		}
		return explain(out, o, group)
	}
	return cmd
}

// podCommand is explain of a pod.
type podCommand struct {
	config        clientcmd.ClientConfig
	namespace, to string
	live          bool
}

func (p *podCommand) run(ctx context.Context, out io.Writer, c client.Client, o egress.Objects, name string, f format) (err error) {
	if p.namespace == "" {
		if p.namespace, _, err = p.config.Namespace(); err != nil {
			return err
		}
	}
	var destination netip.AddrPort
	if p.to != "" {
		if destination, err = parseDestination(p.to); err != nil {
			return err
		}
	}
	e, err := explainPod(ctx, c, o, p.namespace, name, destination)
	if err != nil {
		return err
	}
	if p.live {
		r, err := newReacher(p.config)
		if err != nil {
			return err
		}
		e.look(ctx, askAgents(c, r), destination.Addr())
	}
	if err := f.print(out, e, func() error { return e.print(out) }); err != nil {
		return err
	}
	return e.verdict()
}
