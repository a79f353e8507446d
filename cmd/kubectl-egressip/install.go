package main

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// The labels that the chart gives to all that it installs, and which part an object is of.
const (
	labelName      = "app.kubernetes.io/name"
	labelComponent = "app.kubernetes.io/component"
	ourName        = "egressip-operator"

	componentAgent      = "agent"
	componentController = "controller"
)

// ours selects what the chart installs.
func ours() client.MatchingLabels { return client.MatchingLabels{labelName: ourName} }

// agentFlags are what the agents were started with, as far as decisions depend on it.
type agentFlags struct {
	// cluster, service, exclude and include are the networks of the flags of that name.
	cluster, service, exclude, include []netip.Prefix
	strict                             bool
	overlayPort                        uint16
}

// defaultFlags are those of an agent without any.
func defaultFlags() agentFlags { return agentFlags{strict: true, overlayPort: 9789} }

// readFlags reads the flags of the agents from their DaemonSet. Without a right to see it, or
// without it, the defaults are returned with an error.
func readFlags(ctx context.Context, c client.Reader) (agentFlags, error) {
	var list appsv1.DaemonSetList
	if err := c.List(ctx, &list, ours()); err != nil {
		return defaultFlags(), fmt.Errorf("list DaemonSets: %w", err)
	}
	for i := range list.Items {
		if args, ok := argumentsOf(&list.Items[i].Spec.Template, componentAgent); ok {
			return parseFlags(args), nil
		}
	}
	return defaultFlags(), fmt.Errorf("no DaemonSet with label %s=%s has a container that runs the agent", labelName, ourName)
}

// argumentsOf are the arguments of the container that runs one of our parts, which is its first
// argument.
func argumentsOf(template *corev1.PodTemplateSpec, part string) ([]string, bool) {
	for i := range template.Spec.Containers {
		args := template.Spec.Containers[i].Args
		if at := slices.Index(args, part); at >= 0 {
			return args[at+1:], true
		}
	}
	return nil, false
}

func parseFlags(args []string) agentFlags {
	f := defaultFlags()
	for _, arg := range args {
		name, value, _ := strings.Cut(arg, "=")
		switch name {
		case "--cluster-cidrs":
			f.cluster = prefixes(value)
		case "--service-cidrs":
			f.service = prefixes(value)
		case "--exclude-cidrs":
			f.exclude = prefixes(value)
		case "--include-cidrs":
			f.include = prefixes(value)
		case "--strict":
			f.strict = value != "false"
		case "--overlay-port":
			if port, err := strconv.ParseUint(value, 10, 16); err == nil {
				f.overlayPort = uint16(port)
			}
		}
	}
	return f
}

// prefixes reads networks that commas separate.
func prefixes(list string) (networks []netip.Prefix) {
	for written := range strings.SplitSeq(list, ",") {
		if p, err := netip.ParsePrefix(strings.TrimSpace(written)); err == nil {
			networks = append(networks, p.Masked())
		}
	}
	return networks
}
