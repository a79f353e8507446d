package controllers

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/testenv/objects"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// TestFoundNetworksStayUntilAllIsRead: a controller that has just started, or does not reach
// the API server, publishes no less than the one before. Of addresses of API servers, those
// stay that are listed as egress IPs, unless no object is read at all.
//
// Kills the mutants restart-takes-networks-away, annotations-are-always-read and
// former-api-servers-are-forgotten.
func TestFoundNetworksStayUntilAllIsRead(t *testing.T) {
	pool := []v1.FoundNetwork{
		{CIDR: "192.168.7.200/32", Source: "EndpointSlice default/kubernetes", Use: v1.UseAPIServers},
		{CIDR: "192.168.7.201/32", Source: "EndpointSlice default/kubernetes", Use: v1.UseAPIServers},
		{CIDR: "10.8.0.0/16", Source: "IPPool a", Use: v1.UsePods},
	}
	n := objects.NetNamespace("shop", 17, "192.168.7.200")
	h := objects.HostSubnet("node1", "192.168.7.11")
	h.Status.FoundNetworks = pool
	nodes := map[string]*corev1.Node{"node1": {ObjectMeta: metav1.ObjectMeta{
		Annotations: map[string]string{"kube-router.io/pod-cidr": "10.5.1.0/24"},
	}}}
	annotated := []v1.FoundNetwork{
		{CIDR: "192.168.7.200/32", Source: "EndpointSlice default/kubernetes, a while ago", Use: v1.UseAPIServers},
		{CIDR: "10.5.1.0/24", Source: "annotation kube-router.io/pod-cidr of the Node", Use: v1.UseNodePods},
	}
	for name, test := range map[string]struct {
		reader *networkReader
		want   []v1.FoundNetwork
	}{
		"none":               {nil, pool},
		"not ready":          {&networkReader{sources: egress.NetworkSources()}, pool},
		"ready":              {&networkReader{sources: egress.NetworkSources(), ready: true}, annotated},
		"not to read at all": {&networkReader{ready: true}, nil},
		"services of the flag": {
			&networkReader{ready: true, services: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")}},
			[]v1.FoundNetwork{{CIDR: "10.96.0.0/16", Source: "--service-cidrs", Use: v1.UseServices}},
		},
	} {
		v := view{hosts: []*v1.HostSubnet{&h}, namespaces: []*v1.NetNamespace{&n}}
		v.readNetworks(test.reader, nodes)
		if diff := cmp.Diff(test.want, v.found["node1"]); diff != "" {
			t.Errorf("reader %s (-want +got):\n%s", name, diff)
		}
	}
}
