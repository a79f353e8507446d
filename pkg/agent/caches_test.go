package agent

import (
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/internal/testenv/objects"
)

// TestStatusRaisesNoPass: what agents and the controller report all the time makes no
// node decide again; what a decision depends on does.
//
// Mutant killed: every-status-is-news.
func TestStatusRaisesNoPass(t *testing.T) {
	t.Parallel()
	c := &caches{changed: newSignal()}
	raised := func(before, after any) bool {
		c.handler().OnUpdate(before, after)
		select {
		case <-c.changed:
			return true
		default:
			return false
		}
	}
	host := hostSubnet("node2", "10.1.8.12", "10.244.2.0/24", "10.1.8.200")
	host.Status.Agent = &v1.AgentStatus{Version: "1", UplinkCIDR: "10.1.8.12/24"}
	host.Status.Conditions = []metav1.Condition{{Type: v1.ConditionOnline, Status: metav1.ConditionTrue, Reason: "NodeReady"}}
	namespace := objects.NetNamespace("shop", 17, "10.1.8.200")
	for i := range 1000 {
		h, n := host.DeepCopy(), namespace.DeepCopy()
		version := fmt.Sprint(i)
		h.ResourceVersion, h.Status.ObservedGeneration = version, int64(i)
		h.Status.Agent.Version, h.Status.Agent.Silent = version, []string{version}
		h.Status.EgressIPs = []v1.ClaimStatus{{IP: "10.1.8.200", Configured: i%2 == 0, Message: version}}
		h.Status.Conditions[0].Message, h.Status.Conditions[0].LastTransitionTime = version, metav1.NewTime(time.Unix(int64(i), 0))
		h.Status.Conditions = append(h.Status.Conditions, metav1.Condition{Type: v1.ConditionAgentReady, Status: metav1.ConditionFalse, Message: version})
		h.Annotations = map[string]string{v1.AnnotationNodeUID: version}
		n.ResourceVersion, n.Status.ObservedGeneration = version, int64(i)
		n.Status.EgressIPs = []v1.RequestStatus{{IP: "10.1.8.200", Message: version}}
		n.Annotations = map[string]string{"who-wrote-it": version}
		if raised(&host, h) || raised(&namespace, n) {
			t.Fatalf("update %d of status alone raised a pass", i)
		}
	}
	for what, change := range map[string]func(*v1.HostSubnet){
		"its generation":       func(h *v1.HostSubnet) { h.Generation++ },
		"another object":       func(h *v1.HostSubnet) { h.UID = "other" },
		"hostIP":               func(h *v1.HostSubnet) { h.HostIP = "10.1.8.13" },
		"subnet":               func(h *v1.HostSubnet) { h.Subnet = "10.244.3.0/24" },
		"egressIPs":            func(h *v1.HostSubnet) { h.EgressIPs = nil },
		"egressIPs, unusable":  func(h *v1.HostSubnet) { h.EgressIPs = append(h.EgressIPs, "nonsense") },
		"egressCIDRs":          func(h *v1.HostSubnet) { h.EgressCIDRs = []string{"10.1.8.0/24"} },
		"the uplink's network": func(h *v1.HostSubnet) { h.Status.Agent.UplinkCIDR = "10.1.8.12/25" },
		"the families":         func(h *v1.HostSubnet) { h.Status.Agent.Families = []string{"IPv4", "IPv6"} },
		"networks of IPv6":     func(h *v1.HostSubnet) { h.Status.Agent.UplinkNetworks = []string{"fd00:7::/64"} },
		"the uplink's MTU":     func(h *v1.HostSubnet) { h.Status.Agent.UplinkMTU = 9000 },
		"condition Online":     func(h *v1.HostSubnet) { h.Status.Conditions[0].Status = metav1.ConditionFalse },
		"its witnesses":        func(h *v1.HostSubnet) { h.Status.Witnesses = []string{"node1"} },
		"condition Evacuating": func(h *v1.HostSubnet) { h.Status.Conditions[0].Type = v1.ConditionEvacuating },
		"another machine that has an egress IP": func(h *v1.HostSubnet) {
			h.Status.EgressIPs = []v1.ClaimStatus{{IP: "10.1.8.200", Reason: "AddressInUse"}}
		},
		"uplink's network, bad": func(h *v1.HostSubnet) { h.Status.Agent.UplinkCIDR = "nonsense" },
	} {
		after := host.DeepCopy()
		if change(after); !raised(&host, after) {
			t.Errorf("HostSubnet, %s: no pass", what)
		}
	}
	for what, change := range map[string]func(*v1.NetNamespace){
		"another object":      func(n *v1.NetNamespace) { n.UID = "other" },
		"netid":               func(n *v1.NetNamespace) { n.NetID = new(*n.NetID + 1) },
		"netname":             func(n *v1.NetNamespace) { n.NetName = "other" },
		"egressIPs":           func(n *v1.NetNamespace) { n.EgressIPs = nil },
		"egressIPs, unusable": func(n *v1.NetNamespace) { n.EgressIPs = append(n.EgressIPs, "nonsense") },
		"what it keeps": func(n *v1.NetNamespace) {
			n.Annotations = map[string]string{v1.AnnotationFailBack: v1.FailBackNever}
			n.Status.Active = &v1.Assignment{IP: n.EgressIPs[0], Host: "node1"}
		},
		"mode": func(n *v1.NetNamespace) { n.Annotations = map[string]string{v1.AnnotationMode: v1.ModeBalanced} },
	} {
		after := namespace.DeepCopy()
		if change(after); !raised(&namespace, after) {
			t.Errorf("NetNamespace, %s: no pass", what)
		}
	}
	before, after := &networkingv1.ServiceCIDR{}, &networkingv1.ServiceCIDR{}
	after.Status.Conditions = []metav1.Condition{{Type: "Ready"}}
	if raised(before, after) {
		t.Error("the status of a ServiceCIDR raised a pass")
	}
	if after.Spec.CIDRs = []string{"10.96.0.0/16"}; !raised(before, after) {
		t.Error("ServiceCIDR: no pass")
	}
	was := &discoveryv1.EndpointSlice{Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"172.30.9.1"}}}}
	is := was.DeepCopy()
	is.Endpoints[0].Conditions.Ready = new(false)
	if raised(was, is) {
		t.Error("an API server that is not ready raised a pass")
	}
	if is.Endpoints[0].Addresses = []string{"172.30.9.2"}; !raised(was, is) {
		t.Error("another API server: no pass")
	}
}

// TestSamePod: a pod whose readiness changes is the same, one that gets an
// address is not.
func TestSamePod(t *testing.T) {
	t.Parallel()
	strip := func(p corev1.Pod) *corev1.Pod {
		s, err := stripPod(&p)
		if err != nil {
			t.Fatal(err)
		}
		return s.(*corev1.Pod)
	}
	before := strip(pod("a", "10.244.1.5"))
	ready := strip(pod("a", "10.244.1.5", func(p *corev1.Pod) {
		p.ResourceVersion = "7"
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, LastTransitionTime: metav1.NewTime(time.Unix(5, 0))}}
	}))
	if !samePod(before, ready) {
		t.Error("readiness made another pod of it")
	}
	if before.ResourceVersion != "" {
		t.Error("samePod changed the cached pod")
	}
	if samePod(before, strip(pod("a", "10.244.1.6"))) {
		t.Error("another address was not seen")
	}
}
