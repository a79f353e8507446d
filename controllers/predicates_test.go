package controllers

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	ovnv1 "github.com/egressip-operator/egressip-operator/api/ovn/v1"
	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/pkg/egress"
)

// TestHeartbeatsAreNoNews: of 5,000 nodes, 500 post their status each second;
// only what the jobs look at makes a pass.
func TestHeartbeatsAreNoNews(t *testing.T) {
	node := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{
			Name: "node1", UID: "u", ResourceVersion: "1", Labels: map[string]string{"a": "b"},
			Annotations: map[string]string{"volumes": "x"}, ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "kubelet"}},
		},
		Status: corev1.NodeStatus{
			Addresses:  []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "192.168.7.11"}},
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
			Images:     make([]corev1.ContainerImage, 50),
		},
	}
	stripped := func(change func(*corev1.Node)) *corev1.Node {
		n := node.DeepCopy()
		n.ResourceVersion = "2"
		change(n)
		object, err := transformNode(n)
		if err != nil {
			t.Fatal(err)
		}
		return object.(*corev1.Node)
	}
	before := stripped(func(n *corev1.Node) { n.ResourceVersion = "1" })
	for _, tc := range []struct {
		name   string
		change func(*corev1.Node)
		same   bool
	}{
		{"heartbeat", func(n *corev1.Node) {
			n.Status.Conditions[0].LastHeartbeatTime = metav1.NewTime(time.Unix(1e9, 0))
			n.Status.Images = append(n.Status.Images, corev1.ContainerImage{})
			n.Annotations["volumes"] = "y"
		}, true},
		{"not ready", func(n *corev1.Node) { n.Status.Conditions[0].Status = corev1.ConditionFalse }, false},
		{"another address", func(n *corev1.Node) { n.Status.Addresses[0].Address = "192.168.7.12" }, false},
		{"pod network", func(n *corev1.Node) { n.Spec.PodCIDR = "10.0.0.0/24" }, false},
		{"capacity", func(n *corev1.Node) { n.Annotations[egress.AnnotationCloudConfig] = "[]" }, false},
		{"a label, by which a pool may select it", func(n *corev1.Node) { n.Labels["a"] = "c" }, false},
		{"zone", func(n *corev1.Node) { n.Labels[corev1.LabelTopologyZone] = "a" }, false},
		{"another Node", func(n *corev1.Node) { n.UID = "v" }, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := sameNode(before, stripped(tc.change)); got != tc.same {
				t.Errorf("sameNode is %v, want %v", got, tc.same)
			}
		})
	}
	if len(before.Status.Images)+len(before.ManagedFields) > 0 {
		t.Errorf("the cache keeps what nobody reads: %+v", before)
	}
}

// TestReportsOfAgentsAreNoNews: agents write the status of their HostSubnets;
// most of it concerns nobody else.
//
// Kills the mutant what-is-refused-is-no-news.
func TestReportsOfAgentsAreNoNews(t *testing.T) {
	before := &v1.HostSubnet{ObjectMeta: metav1.ObjectMeta{Name: "node1", Generation: 1}}
	before.Status.Agent = &v1.AgentStatus{Version: "1.2.2"}
	before.Status.EgressIPs = []v1.ClaimStatus{{IP: "192.168.7.200", Configured: true}, {IP: "192.168.7.201"}}
	report := before.DeepCopy()
	report.Status.EgressIPs[0] = v1.ClaimStatus{IP: "192.168.7.200", Namespace: "shop", State: v1.StateActive, Configured: true, Message: "as planned"}
	report.Status.Agent = &v1.AgentStatus{Version: "1.2.3"}
	report.Status.ObservedGeneration = 1
	if !sameClaims(before, report) {
		t.Error("a report of claims makes a pass")
	}
	for what, change := range map[string]func(*v1.HostSubnetStatus){
		"the uplink's network":     func(s *v1.HostSubnetStatus) { s.Agent.UplinkCIDR = "192.168.7.11/24" },
		"what it says of others":   func(s *v1.HostSubnetStatus) { s.Agent.Silent = []string{"node2"} },
		"its witnesses":            func(s *v1.HostSubnetStatus) { s.Witnesses = []string{"node2"} },
		"that its agent reports":   func(s *v1.HostSubnetStatus) { s.Agent = nil },
		"an address that it hosts": func(s *v1.HostSubnetStatus) { s.EgressIPs[1].Configured = true },
		"why it lacks an address":  func(s *v1.HostSubnetStatus) { s.EgressIPs[1].Reason = "NotConfigured" },
		"a claim that it reports":  func(s *v1.HostSubnetStatus) { s.EgressIPs = s.EgressIPs[:1] },
		"whether it is ready": func(s *v1.HostSubnetStatus) {
			s.Conditions = []metav1.Condition{{Type: v1.ConditionAgentReady, Status: metav1.ConditionTrue}}
		},
		"what it warns of": func(s *v1.HostSubnetStatus) {
			s.Conditions = []metav1.Condition{{Type: v1.ConditionWarnings, Status: metav1.ConditionTrue, Reason: "ForwardingOff"}}
		},
		"a network that objects name": func(s *v1.HostSubnetStatus) {
			s.FoundNetworks = []v1.FoundNetwork{{CIDR: "10.96.0.0/16", Source: "ServiceCIDR kubernetes", Use: v1.UseServices}}
		},
		"an address of the host's own": func(s *v1.HostSubnetStatus) { s.Agent.Addresses = []string{"192.168.7.200"} },
		"an address that is in use":    func(s *v1.HostSubnetStatus) { s.Conditions = inUse() },
	} {
		after := report.DeepCopy()
		change(&after.Status)
		if sameClaims(report, after) {
			t.Errorf("a change of %s makes no pass", what)
		}
	}
}

func inUse() []metav1.Condition {
	return []metav1.Condition{{Type: v1.ConditionAddressInUse, Status: metav1.ConditionTrue}}
}

// What the brain reads of annotations is news to the controller when it changes, on both kinds of
// objects; other annotations are not.
//
// Mutants killed: excluded-destinations-are-no-news, included-destinations-of-egressips-are-no-news.
func TestAnnotationsThatAreNews(t *testing.T) {
	for annotation, news := range map[string]bool{
		v1.AnnotationMode: true, v1.AnnotationFailBack: true, v1.AnnotationOtherFamily: true,
		v1.AnnotationExcludeCIDRs: true, v1.AnnotationIncludeCIDRs: true, v1.AnnotationGateways: true,
		"example.com/note": false,
	} {
		var n v1.NetNamespace
		m := n
		m.Annotations = map[string]string{annotation: "changed"}
		if sameRequests(&n, &m) == news {
			t.Errorf("NetNamespace: annotation %s is news: %t, want %t", annotation, !news, news)
		}
		var e ovnv1.EgressIP
		f := e
		f.Annotations = map[string]string{annotation: "changed"}
		if sameEgressIP(&e, &f) == news {
			t.Errorf("EgressIP: annotation %s is news: %t, want %t", annotation, !news, news)
		}
	}
}
