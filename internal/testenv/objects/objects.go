// Package objects builds API objects for tests, with the fields that nearly
// every test gives. What a test needs besides, it sets itself.
//
// Concurrency: what is returned shares nothing.
package objects

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
)

// NetNamespace is one that requests egress IPs; nil for none.
func NetNamespace(name string, netID uint32, egressIPs ...string) v1.NetNamespace {
	return v1.NetNamespace{
		ObjectMeta: metav1.ObjectMeta{Name: name}, NetName: name, NetID: &netID, EgressIPs: slices.Clone(egressIPs),
	}
}

// HostSubnet is one that claims egress IPs; nil for none. It has no status.
func HostSubnet(name, hostIP string, egressIPs ...string) v1.HostSubnet {
	return v1.HostSubnet{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Host: name, HostIP: hostIP, EgressIPs: slices.Clone(egressIPs),
	}
}

// ReportedHostSubnet is one whose agent reports that all is well.
func ReportedHostSubnet(name, hostIP string, egressIPs ...string) v1.HostSubnet {
	h := HostSubnet(name, hostIP, egressIPs...)
	AgentReports(&h)
	return h
}

// AgentVersion is the version that AgentReports writes.
const AgentVersion = "test"

// AgentReports sets in the status of a HostSubnet what its agent reports if all is well:
// the host has its address, the kernel is as planned, and each claim is configured. It
// reports whether that changed anything. An uplink with a /32 does not say which network
// it is in.
func AgentReports(h *v1.HostSubnet) (changed bool) {
	before := h.Status.DeepCopy()
	if h.Status.Agent == nil {
		h.Status.Agent = &v1.AgentStatus{}
	}
	h.Status.Agent.Version, h.Status.Agent.UplinkCIDR = AgentVersion, h.HostIP+"/32"
	meta.SetStatusCondition(&h.Status.Conditions, metav1.Condition{
		Type: v1.ConditionAgentReady, Status: metav1.ConditionTrue, Reason: "Ready",
	})
	h.Status.EgressIPs = nil
	for _, written := range h.AllEgressIPs() {
		ip, _, _ := strings.Cut(written, "/")
		if !slices.ContainsFunc(h.Status.EgressIPs, func(c v1.ClaimStatus) bool { return c.IP == ip }) {
			h.Status.EgressIPs = append(h.Status.EgressIPs, v1.ClaimStatus{IP: ip, State: v1.StateActive, Configured: true})
		}
	}
	return !equality.Semantic.DeepEqual(before, &h.Status)
}

// Node is one with internal addresses and the given word on being Ready.
func Node(name string, ready corev1.ConditionStatus, addresses ...string) *corev1.Node {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	node.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: ready}}
	for _, address := range addresses {
		node.Status.Addresses = append(node.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: address})
	}
	return node
}

// Pod is one on a node that runs with an address.
func Pod(namespace, name, node, ip string) corev1.Pod {
	return corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID("uid-" + namespace + "-" + name)},
		Spec:       corev1.PodSpec{NodeName: node},
		Status:     corev1.PodStatus{Phase: corev1.PodRunning, PodIP: ip, PodIPs: []corev1.PodIP{{IP: ip}}},
	}
}
