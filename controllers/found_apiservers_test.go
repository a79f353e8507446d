package controllers_test

import (
	"context"
	"fmt"
	"testing"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/controllers"
	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// TestAPIServerAddressIsRefused: the address that a real API server names as its own is no
// egress IP, by decision of all who read the objects, while it is among the endpoints and while
// it is not; and no host is given it.
func TestAPIServerAddressIsRefused(t *testing.T) {
	a := startAPI(t)
	slice := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "kubernetes"}}
	testenv.Eventually(t, func(ctx context.Context) string {
		if err := a.Get(ctx, client.ObjectKeyFromObject(slice), slice); err != nil {
			return err.Error()
		}
		if len(slice.Endpoints) == 0 || len(slice.Endpoints[0].Addresses) == 0 {
			return "the API server does not say where it is"
		}
		return ""
	})
	ip := testenv.Addr(slice.Endpoints[0].Addresses[0])
	a.control(t, controllers.Options{FindNetworks: true})
	a.node(t, "node1", "10.254.1.0/24", "192.168.7.11")
	a.node(t, "node2", "10.254.2.0/24", "192.168.7.12")
	a.awaitHost(t, "node1", func(h *v1.HostSubnet) string {
		for _, f := range h.Status.FoundNetworks {
			if f.Use == v1.UseAPIServers && f.CIDR == fmt.Sprintf("%s/%d", ip, ip.BitLen()) {
				return ""
			}
		}
		return fmt.Sprintf("%s is not found: %v", ip, h.Status.FoundNetworks)
	})
	a.ranges(t, "node2", fmt.Sprintf("%s/%d", ip, ip.BitLen()), "192.168.7.0/24")
	a.namespace(t, "shop")
	a.request(t, "shop", ip.String())
	a.awaitNamespace(t, "shop", wantDropped("APIServerAddress", ip.String()+" is the address of an API server (EndpointSlice default/kubernetes)"))

	// It goes for a moment, as when the API server ends. Here it says again and again where it is.
	a.awaitNamespace(t, "shop", func(n *v1.NetNamespace) string {
		_ = a.Delete(t.Context(), slice.DeepCopy())
		return wantDropped("APIServerAddress", "was the address of an API server a while ago")(n)
	})
	a.awaitNamespace(t, "shop", wantDropped("APIServerAddress", ip.String()+" is the address of an API server (EndpointSlice default/kubernetes)"))

	// Whoever reads the objects, such as an agent or the plugin, decides the same.
	var o egress.Objects
	var namespaces v1.NetNamespaceList
	var hosts v1.HostSubnetList
	for _, list := range []client.ObjectList{&namespaces, &hosts} {
		if err := a.List(t.Context(), list); err != nil {
			t.Fatal(err)
		}
	}
	o.NetNamespaces, o.HostSubnets = namespaces.Items, hosts.Items
	cluster, _ := egress.Snapshot(o)
	shop, _ := egress.Resolve(cluster).Group("shop")
	if shop.Reason != egress.ReasonAPIServerAddress || !shop.Dropped {
		t.Errorf("others decide: %+v", shop)
	}
	for _, h := range hosts.Items {
		if len(h.EgressIPs) > 0 {
			t.Errorf("host %s is given %v", h.Name, h.EgressIPs)
		}
	}
}
