package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// networks prints the networks that count as inside the cluster, and those that do not,
// with where each is from.
func networks(w io.Writer, o egress.Objects) error {
	cluster, _ := egress.Snapshot(o)
	table := newTable(w, "NETWORK", "SOURCE", "HOST", "INSIDE", "WHY NOT")
	for _, n := range egress.Networks(cluster) {
		table.row(n.Network, n.Source, n.Host, yesNo(n.Inside), orDash(n.Why))
	}
	if err := table.flush("No HostSubnet names a network: check that controller and agents run."); err != nil {
		return err
	}
	_, err := fmt.Fprintln(w, "\nInside are also ServiceCIDRs, API servers, link-local addresses, and the networks of kubeadm and of the agents' flags.")
	var missing []string
	for i := range o.HostSubnets {
		if a := o.HostSubnets[i].Status.Agent; a != nil && a.PodNetworksMissing != "" {
			missing = append(missing, o.HostSubnets[i].Name+": "+a.PodNetworksMissing)
		}
	}
	return errors.Join(err, printAll(w, missing))
}
