package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// completeWithin is how long a shell waits for names. Without an answer it completes nothing.
const completeWithin = 3 * time.Second

// completion returns what completes an argument with names of the cluster.
func completion(config clientcmd.ClientConfig, names func(egress.Objects) []string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 && cmd.Args != nil && cmd.Args(cmd, append(slices.Clone(args), begun)) != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp // there is no further argument
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(cmd.Context()), completeWithin)
		defer cancel()
		o, _, err := connect(ctx, config)
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		found := slices.DeleteFunc(names(o), func(name string) bool { return !strings.HasPrefix(name, begun) })
		slices.Sort(found)
		return slices.Compact(found), cobra.ShellCompDirectiveNoFileComp
	}
}

// hostNames are the hosts.
func hostNames(o egress.Objects) []string {
	names := make([]string, 0, len(o.HostSubnets))
	for i := range o.HostSubnets {
		names = append(names, o.HostSubnets[i].Name)
	}
	return names
}

// groupNames are namespaces and EgressIPs, as arguments name them.
func groupNames(o egress.Objects) []string {
	names := make([]string, 0, len(o.NetNamespaces)+len(o.EgressIPs))
	for i := range o.NetNamespaces {
		names = append(names, o.NetNamespaces[i].Name)
	}
	for i := range o.EgressIPs {
		names = append(names, "egressip/"+o.EgressIPs[i].Name)
	}
	return names
}

// explainable are groups, and the egress IPs that they request or hosts claim.
func explainable(o egress.Objects) []string {
	names := groupNames(o)
	for i := range o.NetNamespaces {
		for _, ip := range o.NetNamespaces[i].EgressIPs {
			names = append(names, "ip/"+ip)
		}
	}
	for i := range o.EgressIPs {
		for _, ip := range o.EgressIPs[i].Spec.EgressIPs {
			names = append(names, "ip/"+ip)
		}
	}
	for i := range o.HostSubnets {
		for _, ip := range o.HostSubnets[i].AllEgressIPs() {
			bare, _, _ := strings.Cut(ip, "/")
			names = append(names, "ip/"+bare)
		}
	}
	return names
}
