package controllers_test

import (
	"context"
	"fmt"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/controllers"
	"github.com/egressip-operator/egressip-operator/internal/testenv"
)

// wantHost says what is wrong with the fields that follow the Node.
func wantHost(h *v1.HostSubnet, hostIP, subnet string, uid types.UID) string {
	if h.Host != h.Name || h.HostIP != hostIP || h.Subnet != subnet || h.Annotations[v1.AnnotationNodeUID] != string(uid) {
		return fmt.Sprintf("HostSubnet %s has host %q, hostIP %q, subnet %q, node %q; want hostIP %s, subnet %s, node %s",
			h.Name, h.Host, h.HostIP, h.Subnet, h.Annotations[v1.AnnotationNodeUID], hostIP, subnet, uid)
	}
	return ""
}

// TestHostSubnets: each Node has one, which follows it, and lives as long.
func TestHostSubnets(t *testing.T) {
	whole := t // the controller outlives subtests
	a := startAPI(t)
	stop := a.control(t, controllers.Options{})

	t.Run("it says what the Node says", func(t *testing.T) {
		node1 := a.node(t, "node1", "10.254.1.0/24", "fd00::11", "192.168.7.11", "192.168.9.11")
		a.awaitHost(t, "node1", func(h *v1.HostSubnet) string {
			if want := []string{"fd00::11/128"}; !slices.Equal(h.Status.IPv6Networks, want) {
				return fmt.Sprintf("ipv6Networks are %q, want %q", h.Status.IPv6Networks, want)
			}
			return wantHost(h, "192.168.7.11", "10.254.1.0/24", node1.UID)
		})
	})

	t.Run("a Node without podCIDR has one too", func(t *testing.T) {
		node2 := a.node(t, "node2", "", "192.168.7.12")
		a.awaitHost(t, "node2", func(h *v1.HostSubnet) string { return wantHost(h, "192.168.7.12", "", node2.UID) })
	})

	t.Run("a Node without IPv4 has one of IPv6, until it has IPv4", func(t *testing.T) {
		node6 := a.node(t, "node6", "fd00:10:6::/64", "fe80::16", "fd00:7::16", "2001:db8:7::16")
		is := func(want ...string) func(h *v1.HostSubnet) string {
			return func(h *v1.HostSubnet) string {
				if !slices.Equal(h.Status.HostIPs, want) {
					return fmt.Sprintf("hostIPs are %q, want %q", h.Status.HostIPs, want)
				}
				return wantHost(h, want[0], "", node6.UID)
			}
		}
		a.awaitHost(t, "node6", is("fd00:7::16"))
		a.nodeStatus(t, "node6", func(s *corev1.NodeStatus) {
			s.Addresses = append(s.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: "192.168.7.16"})
		})
		a.awaitHost(t, "node6", is("192.168.7.16", "fd00:7::16"))

		// While its agent finds that one, it stays, whatever the kubelet lists.
		a.awaitHost(t, "node6", func(h *v1.HostSubnet) string {
			if h.Status.Agent == nil || h.Status.Agent.UplinkCIDR != "192.168.7.16/32" {
				return fmt.Sprintf("its agent reports %+v", h.Status.Agent)
			}
			return ""
		})
		a.nodeStatus(t, "node6", func(s *corev1.NodeStatus) {
			s.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "fd00:7::16"}}
		})
		a.awaitEvent(t, "HostSubnet", "node6", "NodeAddressRefused", "still has its hostIP of IPv4")
		a.awaitHost(t, "node6", is("192.168.7.16", "fd00:7::16"))
	})

	t.Run("what a user claims stays as written", func(t *testing.T) {
		a.claim(t, "node1", "192.168.7.201", "192.168.7.200/24")
		a.awaitHost(t, "node1", func(h *v1.HostSubnet) string {
			if h.Annotations[v1.AnnotationBoundUID] != string(h.UID) {
				return "not bound to its Node"
			}
			return wantEgressIPs(h.EgressIPs, "192.168.7.201", "192.168.7.200/24")
		})
	})

	t.Run("it follows the Node's address, and keeps the user's fields", func(t *testing.T) {
		a.nodeStatus(t, "node1", func(s *corev1.NodeStatus) {
			s.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "192.168.7.111"}}
		})
		a.awaitHost(t, "node1", func(h *v1.HostSubnet) string {
			if h.HostIP != "192.168.7.111" || h.Subnet != "10.254.1.0/24" {
				return fmt.Sprintf("hostIP %s, subnet %s", h.HostIP, h.Subnet)
			}
			return wantEgressIPs(h.EgressIPs, "192.168.7.201", "192.168.7.200/24")
		})
	})

	t.Run("what a user overwrites is corrected", func(t *testing.T) {
		a.patch(t, hostSubnet("node2"), `{"hostIP": "10.9.9.9"}`)
		a.awaitHost(t, "node2", func(h *v1.HostSubnet) string {
			if h.HostIP != "192.168.7.12" {
				return "hostIP is " + h.HostIP
			}
			return ""
		})
	})

	t.Run("without retention it is deleted with its Node", func(t *testing.T) {
		a.claim(t, "node2", "192.168.7.209")
		a.awaitHost(t, "node2", func(h *v1.HostSubnet) string {
			if h.Annotations[v1.AnnotationBoundUID] != string(h.UID) {
				return "not bound to its Node"
			}
			return ""
		})
		if err := a.Delete(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node2"}}); err != nil {
			t.Fatal(err)
		}
		a.awaitGone(t, hostSubnet("node2"))
		a.awaitEvent(t, "HostSubnet", "node2", "SettingsDeleted", `egressIPs ["192.168.7.209"]`)
	})

	t.Run("a new Node of the name takes it over", func(t *testing.T) {
		old := a.awaitHost(t, "node1", func(*v1.HostSubnet) string { return "" })
		stop()
		if err := a.Delete(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node1"}}); err != nil {
			t.Fatal(err)
		}
		again := a.node(t, "node1", "10.254.1.0/24", "192.168.7.11")
		stop = a.control(whole, controllers.Options{})
		a.awaitHost(t, "node1", func(h *v1.HostSubnet) string {
			if h.UID != old.UID {
				return "it is another one"
			}
			if wrong := wantHost(h, "192.168.7.11", "10.254.1.0/24", again.UID); wrong != "" {
				return wrong
			}
			return wantEgressIPs(h.EgressIPs, "192.168.7.201", "192.168.7.200/24")
		})
	})

	t.Run("YAML from elsewhere is taken over", func(t *testing.T) {
		node3 := a.node(t, "node3", "10.254.3.0/24", "192.168.7.13")
		a.awaitHost(t, "node3", func(h *v1.HostSubnet) string { return wantHost(h, "192.168.7.13", "10.254.3.0/24", node3.UID) })
		if out, err := a.kubectl(t, `
apiVersion: network.openshift.io/v1
kind: HostSubnet
metadata:
  name: node3
  annotations:
    pod.network.openshift.io/node-uid: 4bd7a8a9-9d6c-4bd4-8ea9-1f1f6f9b8c3e
host: node3
hostIP: 192.168.7.13
subnet: 10.254.5.0/24
egressIPs: [192.168.7.210]
`, "apply", "-f", "-"); err != nil {
			t.Fatalf("kubectl apply: %v\n%s", err, out)
		}
		a.awaitHost(t, "node3", func(h *v1.HostSubnet) string {
			if wrong := wantHost(h, "192.168.7.13", "10.254.3.0/24", node3.UID); wrong != "" {
				return wrong
			}
			return wantEgressIPs(h.EgressIPs, "192.168.7.210")
		})
	})

	t.Run("one without a Node is kept", func(t *testing.T) {
		external := hostSubnet("external")
		external.Host, external.HostIP, external.EgressIPs = "external", "192.168.7.99", []string{"192.168.7.220/24"}
		leftover := hostSubnet("leftover")
		leftover.Host, leftover.HostIP = "leftover", "192.168.7.98"
		leftover.Annotations = map[string]string{v1.AnnotationNodeUID: "of-a-node-that-is-gone"}
		a.create(t, external, leftover)
		a.awaitEvent(t, "HostSubnet", "leftover", "SettingsKept", "of-a-node-that-is-gone")
		h := a.awaitHost(t, "external", func(h *v1.HostSubnet) string {
			return wantEgressIPs(h.EgressIPs, "192.168.7.220/24")
		})
		if h.UID != external.UID || h.Annotations[v1.AnnotationNodeUID] != "" {
			t.Errorf("the administrator's HostSubnet is now %+v", h)
		}
		a.node(t, "external", "", "192.168.7.99")
		a.awaitHost(t, "external", func(h *v1.HostSubnet) string {
			if h.UID != external.UID || h.Annotations[v1.AnnotationNodeUID] == "" {
				return "not bound to its Node"
			}
			return wantEgressIPs(h.EgressIPs, "192.168.7.220/24")
		})
	})
}

// TestNodesThatGoAtOnce: the HostSubnet of a Node that goes as soon as it is there goes
// too. It does not count as an administrator's because it was not bound yet.
func TestNodesThatGoAtOnce(t *testing.T) {
	a := startAPI(t)
	a.control(t, controllers.Options{})
	const count = 20
	for i := range count {
		a.node(t, fmt.Sprintf("brief%d", i), "", fmt.Sprintf("192.168.7.%d", 10+i))
	}
	for i := range count {
		name := fmt.Sprintf("brief%d", i)
		a.awaitHost(t, name, func(*v1.HostSubnet) string { return "" })
		if err := a.Delete(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}); err != nil {
			t.Fatal(err)
		}
	}
	testenv.Eventually(t, func(ctx context.Context) string {
		var left v1.HostSubnetList
		if err := a.List(ctx, &left); err != nil {
			return err.Error()
		}
		if len(left.Items) > 0 {
			return fmt.Sprintf("%d HostSubnets are left, such as %s with annotations %v", len(left.Items), left.Items[0].Name, left.Items[0].Annotations)
		}
		return ""
	})
}
