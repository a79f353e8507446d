package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// serviceCIDRs are those of the API server. err says why they could not be read: it may not
// have the kind, or the user may not read it.
type serviceCIDRs struct {
	items []networkingv1.ServiceCIDR
	err   error
}

func readServiceCIDRs(ctx context.Context, c client.Reader) serviceCIDRs {
	var list networkingv1.ServiceCIDRList
	err := c.List(ctx, &list)
	return serviceCIDRs{list.Items, err}
}

// networks prints the networks that count as inside the cluster, and those that do not,
// with where each is from.
func networks(w io.Writer, o egress.Objects, services serviceCIDRs) error {
	cluster, _ := egress.Snapshot(o)
	table := newTable(w, "NETWORK", "SOURCE", "HOST", "INSIDE", "WHY NOT")
	known := egress.Networks(cluster)
	for _, n := range known {
		table.row(networkOf(n), n.Source, orDash(n.Host), yesNo(n.Inside), orDash(n.Why))
	}
	for i := range services.items {
		for _, cidr := range services.items[i].Spec.CIDRs {
			table.row(cidr, "ServiceCIDR "+services.items[i].Name, "-", yesNo(true), "-")
		}
	}
	if err := table.flush("No HostSubnet names a network: check that controller and agents run."); err != nil {
		return err
	}
	_, err := fmt.Fprintln(w, "\nInside are also API servers, link-local addresses, and the networks of kubeadm and of the agents' flags.")
	var missing []string
	if len(services.items) == 0 && !egress.ServicesKnown(known) {
		missing = append(missing, servicesMissing(services.err))
	}
	for i := range o.HostSubnets {
		if a := o.HostSubnets[i].Status.Agent; a != nil && a.PodNetworksMissing != "" {
			missing = append(missing, o.HostSubnets[i].Name+": "+a.PodNetworksMissing)
		}
	}
	return errors.Join(err, printAll(w, missing))
}

func networkOf(n egress.Network) string {
	if n.Network.IsValid() {
		return n.Network.String()
	}
	return orDash(n.Written)
}

// servicesMissing says what it means that no network of services is known.
func servicesMissing(err error) string {
	why := "the API server has no ServiceCIDR"
	if err != nil {
		why = err.Error()
	}
	return "Networks of services: none is known here (" + why + "), unless kubeadm or the agents' flags name them. " +
		"What pods with egress IPs send to a Service without endpoints, or, with kube-proxy in mode ipvs, to any, may leave by the egress host. " +
		"Set --service-cidrs (in the chart: serviceCIDRs)."
}
