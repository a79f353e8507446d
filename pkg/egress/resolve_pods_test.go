package egress_test

import (
	"strings"
	"testing"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

func (g *given) subnet(name, cidr string) *given {
	g.edit(name, func(h *v1.HostSubnet) { h.Subnet = cidr })
	return g
}

// TestPodAddresses: an address in a pod network is no egress IP, whoever claims it, and
// is given to no host.
//
// Kills the mutants pod-network-is-outside, pods-where-hosts-are and
// pod-address-is-allocated.
func TestPodAddresses(t *testing.T) {
	const ip = "10.244.1.7"
	for name, test := range map[string]struct {
		given  *given
		reason egress.Reason
	}{
		"of the host that claims it":    {new(given).namespace("red", ip).host("w0", ip).subnet("w0", "10.244.1.0/24"), egress.ReasonPodAddress},
		"of another host":               {new(given).namespace("red", ip).host("w0", ip).host("w1").subnet("w1", "10.244.1.0/24"), egress.ReasonPodAddress},
		"of a host that is offline":     {new(given).namespace("red", ip).host("w0", ip).host("w1").subnet("w1", "10.244.0.0/16").offline("w1"), egress.ReasonPodAddress},
		"nobody claims it":              {new(given).namespace("red", ip).host("w0").subnet("w0", "10.244.1.0/24"), egress.ReasonPodAddress},
		"an automatic host may have it": {new(given).namespace("red", ip).automatic("w0", "10.0.0.0/8").subnet("w0", "10.244.1.0/24"), egress.ReasonPodAddress},
		"beside all pod networks":       {new(given).namespace("red", ip).host("w0", ip).subnet("w0", "10.244.2.0/24"), egress.ReasonAssigned},
		"a pod network where hosts are": {new(given).namespace("red", "192.168.7.200").host("w0", "192.168.7.200").host("w1").subnet("w1", "192.168.7.0/24"), egress.ReasonAssigned},
	} {
		t.Run(name, func(t *testing.T) {
			cluster, _ := egress.Snapshot(test.given.Objects)
			red, _ := egress.Resolve(cluster).Group("red")
			if got := red.Requests[0]; got.Reason != test.reason || red.Dropped != (test.reason != egress.ReasonAssigned) {
				t.Errorf("request %+v, dropped: %t", got, red.Dropped)
			}
			if test.reason == egress.ReasonPodAddress && !strings.Contains(red.Message, "is in a pod network of host w") {
				t.Errorf("message %q", red.Message)
			}
			for _, host := range egress.Allocate(cluster).Hosts {
				if len(host.Claims) > 0 {
					t.Errorf("host %s is given %v", host.Host, host.Claims)
				}
			}
		})
	}
}

// TestNamedNetworksHaveNoEgressIPs: an address in a network of pods or services that the
// control plane names is no egress IP, and is given to no host. The message says which
// network, and by whose word.
//
// Kills the mutants service-network-is-outside, service-address-is-allocated and
// services-where-hosts-are.
func TestNamedNetworksHaveNoEgressIPs(t *testing.T) {
	const ip = "10.96.3.7"
	broken := network(v1.UseServices, "10.96.0.0/16")
	broken.Problem = "it is not there"
	cluster := func(found ...v1.FoundNetwork) *given {
		return new(given).namespace("red", ip).automatic("w0", "10.0.0.0/8").host("w1", ip).found("w1", found...)
	}
	for name, test := range map[string]struct {
		given  *given
		reason egress.Reason
		of     string
	}{
		"services":                  {cluster(network(v1.UseServices, "10.96.0.0/16")), egress.ReasonServiceAddress, "service network of the cluster (10.96.0.0/16, by some object)"},
		"the address of a Service":  {cluster(network(v1.UseServices, ip+"/32")), egress.ReasonServiceAddress, "service network of the cluster (10.96.3.7/32, by some object)"},
		"a pool of pods":            {cluster(network(v1.UsePods, "10.96.0.0/16")), egress.ReasonPodAddress, "pod network of the cluster (10.96.0.0/16, by some object)"},
		"nobody claims it":          {cluster(network(v1.UseServices, "10.96.0.0/16")).claims("w1"), egress.ReasonServiceAddress, "service network"},
		"networks beside it":        {cluster(network(v1.UseServices, "10.97.0.0/16")), egress.ReasonAssigned, ""},
		"a network that is none":    {cluster(broken), egress.ReasonAssigned, ""},
		"pods of one node":          {cluster(network(v1.UseNodePods, "10.96.0.0/16")), egress.ReasonAssigned, ""},
		"a network where hosts are": {cluster(network(v1.UseServices, "10.0.0.0/8")).hostIP("w0", "10.9.9.9"), egress.ReasonAssigned, ""},
		"where an unseen host is":   {cluster(network(v1.UseServices, "10.0.0.0/8")).hostIP("w0", "10.9.9.9").unreported("w0"), egress.ReasonAssigned, ""},
	} {
		t.Run(name, func(t *testing.T) {
			cluster, _ := egress.Snapshot(test.given.Objects)
			red, _ := egress.Resolve(cluster).Group("red")
			if got := red.Requests[0]; got.Reason != test.reason || !strings.Contains(got.Message, test.of) || red.Dropped != (test.reason != egress.ReasonAssigned) {
				t.Errorf("request %+v, dropped: %t", got, red.Dropped)
			}
			for _, host := range egress.Allocate(cluster).Hosts {
				if test.reason != egress.ReasonAssigned && len(host.Claims) > 0 {
					t.Errorf("host %s is given %v", host.Host, host.Claims)
				}
			}
		})
	}
}
