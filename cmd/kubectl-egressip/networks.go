package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// facts are what the API server has in objects that are not ours. errs say what could not
// be read: a kind may not be there, or the user may not read it.
type facts struct {
	services []networkingv1.ServiceCIDR
	kubeadm  egress.ClusterNetworks
	// servicesErr and kubeadmErr are for services and kubeadm. That there is no ConfigMap of
	// kubeadm is no error.
	servicesErr, kubeadmErr error
}

func readFacts(ctx context.Context, c client.Reader) facts {
	var f facts
	var list networkingv1.ServiceCIDRList
	f.servicesErr = c.List(ctx, &list)
	f.services = list.Items
	var config corev1.ConfigMap
	err := c.Get(ctx, client.ObjectKey{Namespace: metav1.NamespaceSystem, Name: egress.KubeadmConfigMap}, &config)
	f.kubeadmErr = client.IgnoreNotFound(err)
	f.kubeadm = egress.KubeadmNetworks(config.Data[egress.KubeadmKey])
	return f
}

// networks prints the networks that count as inside the cluster, and those that do not,
// with where each is from.
func networks(w io.Writer, o egress.Objects, f facts) error {
	cluster, _ := egress.Snapshot(o)
	table := newTable(w, "NETWORK", "SOURCE", "HOST", "INSIDE", "WHY NOT")
	known := append(egress.Networks(cluster), egress.NotedNetworks(cluster, f.kubeadm)...)
	for _, n := range known {
		table.row(networkOf(n), n.Source, orDash(n.Host), yesNo(n.Inside), orDash(n.Why))
	}
	for i := range f.services {
		for _, cidr := range f.services[i].Spec.CIDRs {
			if slices.ContainsFunc(known, func(n egress.Network) bool { return n.Services && n.Inside && networkOf(n) == cidr }) {
				continue // the controller has published it
			}
			table.row(cidr, "ServiceCIDR "+f.services[i].Name, "-", yesNo(true), "-")
		}
	}
	if err := table.flush("No HostSubnet names a network: check that controller and agents run."); err != nil {
		return err
	}
	_, err := fmt.Fprintln(w, "\nInside are also API servers, link-local addresses, and the networks of the agents' flags.")
	var missing []string
	if f.kubeadmErr != nil {
		missing = append(missing, fmt.Sprintf("The networks of kubeadm, if there is one, are not shown: %v.", f.kubeadmErr))
	}
	if len(f.services) == 0 && !egress.ServicesKnown(known) {
		missing = append(missing, servicesMissing(f.servicesErr))
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
	return "Networks of services: none is known here (" + why + "), unless the agents' flags name them. " +
		"What pods with egress IPs send to a Service without endpoints, or, with kube-proxy in mode ipvs, to any, may leave by the egress host. " +
		"Set --service-cidrs (in the chart: serviceCIDRs)."
}
